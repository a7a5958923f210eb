"""How a batch is shared out, and what happens when memory runs out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_jobs.errors import DivergedError, DoesNotFitError, ItemError, WorkDiedError
from gpu_jobs.testing import MemoryStore
from gpu_jobs.workloads.batch_size import BatchSize
from gpu_jobs.workloads.training.gang_files import BEST, GangOutcome, write_outcome
from gpu_jobs.workloads.training.gang_supervisor import GangSupervisor, TrainingSetup
from gpu_jobs.workloads.training.settings import TrainingParams, split_batch

FINISHED = GangOutcome(kind="finished", step=10, eval_loss=1.0)
OUT_OF_MEMORY = GangOutcome(kind="out of memory", detail="OutOfMemoryError: CUDA out of memory")


@given(batch=st.integers(1, 512), processes=st.integers(1, 16), most=st.integers(1, 600))
def test_the_batch_never_changes(batch, processes, most):
    """Whatever the GPUs and whatever fits on one of them."""
    shares = split_batch(batch, processes, most)

    assert shares.processes * shares.micro_batch * shares.accumulation == batch
    assert 1 <= shares.processes <= processes
    assert 1 <= shares.micro_batch <= most


class FakeSession:
    is_stopping = False
    index = 0

    def __init__(self):
        self.store = MemoryStore()
        self.reported = []

    def report(self, doing, *, checkpoint=False):
        self.reported.append(doing)


class FakeGangs:
    """Gangs that end at once, each as scripted; None dies without a word."""

    def __init__(self, *outcomes):
        self._outcomes = list(outcomes)
        self.jobs = []
        self.processes = []

    def __call__(self, job, processes):
        self.jobs.append(job)
        self.processes.append(processes)
        if (outcome := self._outcomes.pop(0)) is not None:
            write_outcome(job.out, outcome)
        return self

    is_running = False

    def end(self):
        return 1


@pytest.fixture
def attempt(tmp_path):
    def begin(gangs, *, size=16, processes=2, **params):
        place = TrainingSetup(
            device="cpu", processes=processes, precision="fp32", model_folder=tmp_path, data_folder=tmp_path
        )
        batch_size = BatchSize(size)
        folder = tmp_path / "files"
        folder.mkdir()
        params = TrainingParams(batch=16, **params)
        return GangSupervisor(params, place, FakeSession(), batch_size, folder, start=gangs), batch_size

    return begin


def test_out_of_memory_halves_the_micro_batch_and_doubles_the_accumulation(attempt):
    """The batch stays, other items begin with what was learned, and the row tells."""
    gangs = FakeGangs(OUT_OF_MEMORY, OUT_OF_MEMORY, FINISHED)
    found, size = attempt(gangs)

    assert found.run() == FINISHED

    assert [(job.micro_batch, job.accumulation) for job in gangs.jobs] == [(8, 1), (4, 2), (2, 4)]
    assert size.value == 2
    assert found.notes == ["memory ran out with 8 blocks at once", "memory ran out with 4 blocks at once"]


def test_what_does_not_fit_even_so_says_what_to_do(attempt):
    """One block at once, then checkpointed gradients, then its own error."""
    gangs = FakeGangs(*[OUT_OF_MEMORY] * 2)
    found, _ = attempt(gangs, size=1)

    with pytest.raises(DoesNotFitError, match=r"does not fit: .* use a smaller model .*CUDA out of memory"):
        found.run()

    assert [job.gradient_checkpointing for job in gangs.jobs] == [False, True]


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (GangOutcome(kind="diverged", detail="diverged: the loss is nan"), DivergedError),
        (GangOutcome(kind="error", detail="ValueError: no such layer"), ItemError),
        (None, WorkDiedError),
    ],
)
def test_each_end_has_an_error_of_its_own(attempt, outcome, error):
    found, _ = attempt(FakeGangs(outcome))

    with pytest.raises(error, match=outcome.detail if outcome else "died without reporting"):
        found.run()


def test_the_best_weights_of_before_are_there_when_a_gang_goes_on(attempt, tmp_path):
    """Out of the way of the Trainer, which would take their folder for another adapter."""
    gangs = FakeGangs(FINISHED)
    found, _ = attempt(gangs)
    (tmp_path / "saved" / BEST).mkdir(parents=True)
    (tmp_path / "saved" / BEST / "adapter_model.safetensors").write_text("best")
    found._checkpoints.save(tmp_path / "saved", 3)
    found.run()

    (job,) = gangs.jobs
    assert Path(job.out, BEST, "adapter_model.safetensors").read_text() == "best"
    assert not Path(job.resume_from, BEST).exists()


def test_a_gang_has_as_many_processes_as_can_share_the_batch(attempt):
    """Five GPUs and a batch of sixteen, which five cannot share: four of them train."""
    gangs = FakeGangs(FINISHED)
    found, _ = attempt(gangs, processes=5)
    found.run()

    assert gangs.processes == [4]
