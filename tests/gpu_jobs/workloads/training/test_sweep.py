"""A sweep with a poisoned training: the others finish and are ranked. Real gangs, a tiny random model."""

from pathlib import Path

import polars as pl
import pytest
from safetensors import safe_open

from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.sweep import download_best, ranking
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.report import write_report
from gpu_jobs.telemetry.training_curves import Curves
from tests.chaos.havoc import finish, quarantine_of, rows_of
from tests.gpu_jobs.workloads.training.clouds import GPUS, ROOT, bucket, modal_with, runpod_with, upload
from tests.gpu_jobs.workloads.training.sweeps import SHORT, open_sweep, write_prepared

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUNS = [
    {"id": "low", "learning_rate": 1e-5, "patience": 0},
    {"id": "poisoned", "learning_rate": 1e38, "patience": 0},
    {"id": "high", "learning_rate": 5e-2, "patience": 0},
    {"id": "too patient to stop", "learning_rate": 1e-3, "patience": 5},
]


def test_three_finish_and_the_poisoned_one_is_quarantined_with_its_cause(tmp_path, llama):
    """Two GPU workers; the report ranks them, the curves are in the store, the best adapter can be had and loaded."""
    policy = Policy(max_workers=2, heartbeat_s=0.5, lease_timeout_s=10.0)
    campaign = open_sweep(tmp_path, policy, RUNS, model=llama, data=write_prepared(tmp_path), **SHORT)

    manifest = finish(campaign, policy)

    assert_three_are_ranked(campaign, manifest)
    assert_the_best_can_be_had(campaign, tmp_path, llama)


def test_a_sweep_on_two_clouds_at_once_is_that_of_one_place(tmp_path, llama):
    """A pod with four GPUs and the one container that Modal may have, a gang over all GPUs of each."""
    policy = Policy(
        platforms=("modal", "runpod"), objective="fastest", max_workers=2, heartbeat_s=0.5, lease_timeout_s=10.0
    )
    environ = {"FANFOLD_GANG_SIZE": str(GPUS), "FANFOLD_MODEL_CACHE": str(tmp_path / "cache-of-containers")}
    with (
        bucket() as gcs,
        modal_with(tmp_path, gcs, **environ) as (_, modal),
        runpod_with(tmp_path, gcs, **environ) as (runpod, on_runpod),
    ):
        model, data = upload(Path(llama), f"{ROOT}/llama"), write_prepared(ROOT)
        campaign = open_sweep(ROOT, policy, RUNS, model=model, data=data, **{**SHORT, "gpus": GPUS})
        *_, last = campaign.run(policy, [modal, on_runpod], tick_s=0.1)
        assert last.is_complete, (last.closed, last.jobs)
        manifest = collect(campaign.store, campaign.plan)

        assert_three_are_ranked(campaign, manifest)
        assert_the_best_can_be_had(campaign, tmp_path, model)
        assert set(rows_of(campaign, manifest)["processes"]) == {GPUS}
        assert min(campaign.cost().group_by("platform").agg(pl.col("items").sum())["items"]) > 0
        assert set(campaign.cost()["platform"]) == {"modal", "runpod"}
        assert {pod.body.gpu.count for pod in runpod.world.pods.values()} == {GPUS}


def assert_three_are_ranked(campaign, manifest):
    report = write_report(campaign, manifest)
    rows = rows_of(campaign, manifest)
    assert rows["item"].to_list() == ["low", "high", "too patient to stop"]
    (poisoned,) = quarantine_of(campaign, manifest).to_dicts()
    assert poisoned["item"] == "poisoned"
    assert poisoned["detail"].startswith("diverged: the ")
    assert "with a learning rate of 1e+38" in poisoned["detail"]
    ranked = ranking(campaign)
    assert ranked["rank"].to_list() == [1, 2, 3]
    assert ranked["eval_loss"].is_sorted()
    curves = Curves(campaign.store).look()
    assert [curves[index]["step"].to_list() for index in (0, 2, 3)] == [list(range(13))] * 3
    page = campaign.store.get("report.html").decode()
    assert page.index("Trainings") < page.index(ranked["item"][0]) < page.index("poisoned")
    assert report.uri.endswith("report.html")


def assert_the_best_can_be_had(campaign, tmp_path, model):
    ranked = ranking(campaign)
    folder = download_best(campaign, tmp_path / "best")
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert any("lora_A" in key for key in file.keys())  # noqa: SIM118
    assert f'"base_model_name_or_path": "{model}"' in (folder / "adapter_config.json").read_text()
    card = (folder / "README.md").read_text()
    assert f"base_model: {model}" in card
    assert f"{ranked['eval_loss'][0]:.4f}" in card
    assert (folder / "tokenizer.json").exists()
