"""One process of a gang, run in this one: what the Trainer is told, left with, and goes on from."""

import os
from pathlib import Path

import pytest
import transformers
from safetensors import safe_open

from gpu_jobs.workloads.training.gang_files import BEST, MODEL, STOP, GangSpec
from gpu_jobs.workloads.training.prepared import fetch
from gpu_jobs.workloads.training.settings import TrainingParams
from tests.gpu_jobs.workloads.training.sweeps import write_prepared

SETTINGS = {"method": "full", "batch": 4, "steps": 6, "save_steps": 3, "eval_steps": 3, "learning_rate": 1e-3}

pytestmark = pytest.mark.filterwarnings("default")  # of the Trainer's own deprecations


@pytest.fixture
def train(tmp_path, llama, monkeypatch):
    """Train in a folder of this name; return the outcome and the folder."""
    from gpu_jobs.workloads.training import rank

    transformers.logging.disable_progress_bar()
    data = fetch(write_prepared(tmp_path))

    def trained(name, *, resume_from="", is_stopping=False, **changes):
        out = tmp_path / name
        out.mkdir()
        if resume_from and (resume_from / BEST).exists():  # as `GangSupervisor` does
            (resume_from / BEST).rename(out / BEST)
        if is_stopping:
            (out / STOP).touch()
        params = TrainingParams(model=llama, **(SETTINGS | changes))
        job = GangSpec(
            params=params,
            model_folder=llama,
            data_folder=str(data.folder),
            out=str(out),
            resume_from=str(resume_from),
            device="cpu",
            precision="fp32",
            micro_batch=2,
            accumulation=2,
            gradient_checkpointing=False,
            watched_pid=os.getpid(),
        )
        return rank.train(job), out

    return trained


def weights_of(out: Path, name="model.safetensors"):
    with safe_open(out / MODEL / name, "pt") as file:
        return {key: file.get_tensor(key).tolist() for key in file.keys()}  # noqa: SIM118


def test_left_at_the_next_step_and_gone_on_with_it_ends_as_if_undisturbed(train):
    """To the bit: weights, losses, the evaluation of the base model."""
    whole, out = train("whole")
    left, left_out = train("left", is_stopping=True)
    (left_out / STOP).unlink()
    resumed, resumed_out = train("resumed", resume_from=left_out / "checkpoint-2")

    assert (left.kind, left.step) == ("stopped", 2)
    assert (whole.kind, resumed.kind) == ("finished", "finished")
    assert weights_of(out) == weights_of(resumed_out)
    assert [row.get("loss") for row in whole.log] == [row.get("loss") for row in resumed.log]
    assert whole.log[0]["eval_loss"] == resumed.log[0]["eval_loss"]
    assert whole.eval_loss == resumed.eval_loss < whole.log[0]["eval_loss"]


def test_it_stops_early_when_validation_gets_no_better(train):
    """Here because nothing is learned at such a learning rate."""
    outcome, _ = train("early", patience=1, learning_rate=1e-30, eval_steps=1, schedule="constant")

    assert (outcome.kind, outcome.stopped_early) == ("finished", True)
    assert outcome.step < SETTINGS["steps"]


@pytest.mark.parametrize(("method", "steps"), [("full", 6), ("lora", 3)])
def test_the_weights_that_are_kept_are_those_of_the_best_evaluation(train, method, steps):
    """Also if that was before a checkpoint, from which the training went on elsewhere."""
    worse = {"method": method, "steps": steps, "learning_rate": 0.2, "schedule": "constant", "eval_steps": 1}
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    outcome, out = train("whole", patience=10, **worse)
    losses = {row["step"]: row["eval_loss"] for row in outcome.log if "eval_loss" in row}
    del losses[0]
    at = min(losses, key=losses.get)
    assert at < outcome.step, "it only got better: nothing is tested"

    assert (outcome.kept_step, outcome.eval_loss) == (at, losses[at])
    until, until_out = train("until", **{**worse, "steps": at})
    assert until.kept_step == at
    assert weights_of(out, name) == weights_of(until_out, name)

    _, left_out = train("left", is_stopping=True, patience=10, **worse)
    resumed, resumed_out = train("resumed", resume_from=left_out / "checkpoint-2", patience=10, **worse)
    assert (resumed.kept_step, weights_of(resumed_out, name)) == (at, weights_of(out, name))


def test_a_loss_that_is_no_number_ends_it_at_once(train):
    from gpu_jobs.errors import DivergedError

    with pytest.raises(
        DivergedError, match=r"diverged: the .* is (nan|inf) at step \d, with a learning rate of 1e\+38"
    ):
        train("diverged", learning_rate=1e38)


def test_lora_trains_only_adapters(train):
    outcome, out = train("lora", method="lora", prompt="ab")

    assert all("lora_" in key for key in weights_of(out, "adapter_model.safetensors"))
    assert isinstance(outcome.log[0]["sample"], str)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (MemoryError(), "out of memory"),
        (ValueError("Target modules not found"), "error"),
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), None),
    ],
)
def test_what_a_process_reports_of_an_exception(error, kind):
    """A process reports nothing if its exception only follows from the death of another process."""
    from gpu_jobs.workloads.training.rank import _failure_outcome

    found = _failure_outcome(error)

    assert (found and found.kind) == kind
