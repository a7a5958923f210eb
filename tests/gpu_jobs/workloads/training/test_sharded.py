"""Sharded training, by torch's `fully_shard` over gloo: the same way through Trainer and accelerate as on GPUs."""

import os
import shutil

import pytest

from gpu_jobs.testing import MemoryStore
from gpu_jobs.workloads.training.checkpoints import Checkpoints
from gpu_jobs.workloads.training.gang import Gang
from gpu_jobs.workloads.training.gang_files import MODEL, GangSpec, read_outcome
from gpu_jobs.workloads.training.prepared import fetch
from gpu_jobs.workloads.training.settings import TrainingParams, split_batch
from tests.gpu_jobs.workloads.training.sweeps import write_prepared

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SETTINGS = {"batch": 4, "steps": 6, "save_steps": 3, "eval_steps": 3, "learning_rate": 1e-3}


@pytest.fixture
def train(tmp_path, llama):
    """Train with a gang in a folder of this name; return the outcome and the folder."""
    data = fetch(write_prepared(tmp_path))

    def trained(name, *, processes, resume_from="", **changes):
        out = tmp_path / name
        out.mkdir()
        params = TrainingParams(model=llama, **(SETTINGS | changes))
        _, micro_batch, accumulation = split_batch(params.batch, processes, 2)
        job = GangSpec(
            params=params, model_folder=llama, data_folder=str(data.folder), out=str(out), resume_from=str(resume_from),
            device="cpu", precision="fp32", micro_batch=micro_batch, accumulation=accumulation,
            gradient_checkpointing=False, watched_pid=os.getpid(),
        )  # fmt: skip
        gang = Gang(job, processes)
        gang.wait()
        return read_outcome(out), out

    return trained


@pytest.mark.parametrize(("method", "name"), [("full", "model"), ("lora", "adapter_model")])
def test_shards_of_two_processes_are_gone_on_with_by_one(train, tmp_path, method, name):
    """Through the store; and sharded or not, the losses and the weights are the same but for rounding."""
    ddp, ddp_out = train("ddp", processes=2, method=method)
    whole, out = train("whole", processes=2, method=method, sharding="fsdp")
    store = MemoryStore()
    Checkpoints(store, 0).save(out / "checkpoint-3", 3)
    shutil.rmtree(out / "checkpoint-3")
    assert Checkpoints(store, 0).restore(tmp_path / "restored") == 3
    again, again_out = train("again", processes=1, method=method, sharding="fsdp", resume_from=tmp_path / "restored")

    sizes = [path.stat().st_size for path in (tmp_path / "restored" / "optimizer_0").glob("*.distcp")]
    assert len(sizes) == 2, "one for each process: not sharded"
    assert max(sizes) < 2 * min(sizes)
    assert [each.kind for each in (ddp, whole, again)] == ["finished"] * 3
    losses = [[row["loss"] for row in each.log if "loss" in row] for each in (ddp, whole, again)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[1], rel=1e-4)
    assert whole.eval_loss < whole.log[0]["eval_loss"]
    from safetensors.torch import load_file
    from torch.testing import assert_close

    weights = [load_file(each / MODEL / f"{name}.safetensors") for each in (ddp_out, out, again_out)]
    assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-5)
    assert_close(weights[2], weights[1], rtol=1e-3, atol=1e-5)
