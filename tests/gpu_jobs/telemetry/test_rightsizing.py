"""What would have cost less, by measured use."""

import pytest

from gpu_jobs.jobs.costs import WorkerSeconds
from gpu_jobs.ledger.gpu_use import GpuUse
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.telemetry.rightsizing import advice


def a_beat(gpu, working=100.0, infer=90.0):
    seconds = WorkerSeconds(working=working, infer=infer)
    return Heartbeat(worker_id="b", order="o", slot=0, host="h", status="over", seconds=seconds, gpu_use=gpu)


@pytest.mark.parametrize(
    ("gpu", "infer", "words"),
    [
        (GpuUse(busy_share=0.95, memory_gib=20.0), 90.0, ""),
        (GpuUse(busy_share=0.95, memory_gib=20.0), 20.0, "More CPU would have cost less: the model waited"),
        (GpuUse(busy_share=0.3, memory_gib=20.0), 90.0, "A smaller GPU would have cost less: the GPU was busy 30%"),
        (GpuUse(busy_share=0.3, memory_gib=6.0), 90.0, "A smaller GPU, or more processes for each, would have"),
        (GpuUse(memory_gib=6.0), 90.0, ""),
        (None, 90.0, ""),
    ],
)
def test_the_advice_names_what_was_little_used(gpu, infer, words):
    """CPU first: a model that waits keeps its GPU idle, too."""
    said = advice([a_beat(gpu, infer=infer)], 24.0)

    assert said.startswith(words)
    assert bool(said) == bool(words)


def test_nothing_is_said_of_a_minute():
    """Too little to tell."""
    assert advice([a_beat(GpuUse(busy_share=0.01), working=10.0, infer=1.0)], 24.0) == ""
