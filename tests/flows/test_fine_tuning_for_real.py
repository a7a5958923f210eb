"""The flow of a sweep, from texts to a ranked result, on a real GPU worker; the model is tiny and random."""

import polars as pl
import pytest

from flows.fine_tuning import FineTuning, Grid, Texts, fine_tuning
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.ledger import keys
from gpu_jobs.store import campaign_names, open_store
from gpu_jobs.workloads.training.settings import TrainingParams
from tests.flows.prefect_records import artifacts_of
from tests.gpu_jobs.workloads.tiny_models import write_llama

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def asked(prefect_api, tmp_path, monkeypatch):
    monkeypatch.setenv("FANFOLD_MODEL_CACHE", str(tmp_path / "cache"))
    texts = [f"text number {number} says {number * number}" for number in range(80)]
    pl.DataFrame({"id": [f"t{n}" for n in range(80)], "text": [*texts[:-1], ""]}).write_parquet(tmp_path / "t.parquet")
    return FineTuning(
        dataset=str(tmp_path / "t.parquet"),
        params=TrainingParams(
            model=write_llama(tmp_path / "llama"), batch=4, steps=4, save_steps=2, eval_steps=2, prompt="text"
        ),
        texts=Texts(block=16, validation_share=0.2),
        grid=Grid(learning_rate=[1e-3, 1e38]),
        where={"store_root": str(tmp_path / "store")},
        limits={"max_workers": 1},
    )


def test_a_sweep_is_prepared_trained_ranked_and_shown(asked):
    """Texts once, with the broken one set aside; curves in Prefect; no checkpoint is left; again, nothing is to do."""
    state = fine_tuning(asked, return_state=True)
    summary = state.result()

    assert (summary.num_committed, summary.num_quarantined) == (1, 1)
    campaign = Campaign.open(summary.campaign)
    (row,) = campaign.outputs().collect().to_dicts()
    assert (row["item"], row["rank"], row["steps"]) == ("learning_rate=0.001", 1, 4)
    assert not list(campaign.store.list(keys.CHECKPOINTS))
    name = summary.campaign.rpartition("/")[2]
    curves = next(artifact for artifact in artifacts_of(state) if artifact.key == f"{name}-curves")
    assert "| learning_rate=0.001 | 4 |" in curves.data
    root = open_store(asked.where.store_root)
    (prepared,) = (each for each in campaign_names(root) if each.startswith("prepare-"))
    assert Campaign.open(f"{root.uri}/{prepared}").quarantine().collect()["detail"].to_list() == ["the text is empty"]

    again = fine_tuning(asked, return_state=True)
    assert "nothing to do: all 2 items were already settled" in again.message
