"""What would have cost less, by measured use."""

import pytest

from gpu_jobs.ledger.ledger import Heartbeat
from gpu_jobs.telemetry.rightsizing import advice


def a_beat(gpu, working=100.0, infer=90.0):
    seconds = {"working": working, "infer": infer}
    return Heartbeat(boot="b", order="o", slot=0, host="h", status="over", seconds=seconds, gpu=gpu)


@pytest.mark.parametrize(
    ("gpu", "infer", "words"),
    [
        ("busy 95 % of the time, 20.0 GiB in use", 90.0, ""),
        ("busy 95 % of the time, 20.0 GiB in use", 20.0, "More CPU would have cost less: the model waited"),
        ("busy 30 % of the time, 20.0 GiB in use", 90.0, "A smaller GPU would have cost less: the GPU was busy 30%"),
        ("busy 30 % of the time, 6.0 GiB in use", 90.0, "A smaller GPU, or more processes for each, would have"),
        ("unavailable: no driver", 90.0, ""),
    ],
)
def test_the_advice_names_what_was_little_used(gpu, infer, words):
    """CPU first: a model that waits keeps its GPU idle, too."""
    said = advice([a_beat(gpu, infer=infer)], 24.0)

    assert said.startswith(words)
    assert bool(said) == bool(words)


def test_nothing_is_said_of_a_minute():
    """Too little to tell."""
    assert advice([a_beat("busy 1 % of the time", working=10.0, infer=1.0)], 24.0) == ""
