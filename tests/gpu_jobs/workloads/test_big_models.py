"""A model that a GPU is too small for is not sent there; its size is read without fetching it."""

import json

import polars as pl
import pytest

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs.offers import big_enough
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.store import open_store
from gpu_jobs.testing import FakePlatform, a_policy, an_offer
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.weights import measure_weights

GIB = 2**30
L4 = an_offer(gpu="l4", gpu_memory_gib=24.0)
TWO_L4 = an_offer(gpu="l4", gpu_memory_gib=24.0, num_gpus=2, usd_per_hour=0.72)
H100 = an_offer(gpu="h100", gpu_memory_gib=80.0, usd_per_hour=4.0)
CPU = an_offer(gpu="cpu", num_gpus=0)


@pytest.fixture
def model(tmp_path):
    """28 GiB of weights in 16 bits, as far as names and sizes tell, in two files."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    for number in (1, 2):
        with (folder / f"model-0000{number}-of-00002.safetensors").open("wb") as file:
            file.truncate(14 * GIB)  # takes no room on the disk
    return str(folder)


@pytest.mark.parametrize(
    ("precision", "gib"), [("fp32", 70), ("bf16", 35), ("fp16", 35), ("int8", 17.5), ("int4", 8.75), ("auto", 8.75)]
)
def test_a_model_takes_what_its_precision_makes_of_its_files(model, precision, gib):
    """And a quarter more for what comes and goes; `auto` takes fewer bits where it must."""
    assert load_workload("generate", {"model": model, "precision": precision}).gpu_memory_gib() == pytest.approx(gib)


def test_a_quantized_model_stays_as_it_is(model, tmp_path):
    (tmp_path / "model" / "config.json").write_text(json.dumps({"dtype": "bfloat16", "quantization_config": {}}))

    assert load_workload("generate", {"model": model, "precision": "int4"}).gpu_memory_gib() == pytest.approx(35)


def test_a_bucket_is_only_listed(monkeypatch):
    """The config is read; of the weights nothing but the sizes, and those of folders below do not count."""
    with GcsEmulator() as gcs:
        gcs.make_bucket("models")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        store = open_store("gs://models")
        for key in ("m/model.safetensors", "m/onnx/model.safetensors", "m-other/model.safetensors"):
            store.put(key, b"12345678")
        store.put("m/config.json", b'{"dtype": "float32"}')

        assert measure_weights("gs://models/m/") == (8, {"dtype": "float32"})


def test_a_model_that_is_not_known_here_excludes_nothing():
    """It may be in the image; a hub that does not answer is no reason to refuse either."""
    assert load_workload("generate", {"model": "org/never-heard-of"}).gpu_memory_gib() == 0


@pytest.mark.parametrize(
    ("num_gpus", "gib", "found"),
    [(1, 0, [CPU, L4, TWO_L4, H100]), (1, 24, [CPU, L4, TWO_L4, H100]), (1, 25, [CPU, H100]), (2, 48, [TWO_L4])],
)
def test_offers_must_hold_the_model(num_gpus, gib, found):
    """On as many of their GPUs as it spans, however many they have. What has no GPU has the machine's memory."""
    assert big_enough([CPU, L4, TWO_L4, H100], num_gpus, gib) == found


def test_a_model_that_no_offer_holds_is_refused_with_both_sizes():
    with pytest.raises(RefusedError, match=r"needs 100 GiB on 1 GPUs, .* offer has 80 GiB;.*gpus_per_model"):
        big_enough([L4, H100], 1, 100)
    with pytest.raises(RefusedError, match="no platform offers GPU workers with the 4 GPUs"):
        big_enough([L4, H100], 4, 0)


def test_a_campaign_orders_the_dearer_gpu_that_holds_its_model(model, tmp_path):
    """The cheap one would do for 4 bits; in 16 the model needs 35 GiB."""
    table = tmp_path / "texts.parquet"
    pl.DataFrame({"id": ["a"], "text": ["b"]}).write_parquet(table)
    for precision, gpu in (("bf16", "h100"), ("auto", "l4")):
        platform = FakePlatform(offers=[L4, H100])
        params = {"model": model, "precision": precision}
        spec = CampaignSpec(
            store_root=str(tmp_path / "store"), dataset=str(table), workload="generate", params=params, name=precision
        )
        campaign = open_campaign(spec, Policy(platforms=("local",)))

        next(campaign.run(a_policy(max_workers=1), [platform]))

        assert [job.order.offer.gpu for job in platform.jobs] == [gpu]
