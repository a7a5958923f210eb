"""What GPU jobs fail of: each has a budget and a remedy, and is told from others by a platform's words."""

import pytest

from gpu_jobs.failures import TREATMENTS, Failure, Remedy, classify


def test_every_failure_has_a_treatment():
    """One table, nothing left out; what is nobody's error has no budget."""
    assert set(TREATMENTS) == set(Failure)
    for treatment in TREATMENTS.values():
        assert isinstance(treatment.remedy, Remedy)
        assert (treatment.budget is None) == (not treatment.is_error)


@pytest.mark.parametrize(
    ("words", "failure"),
    [
        ("no l4 is free", Failure.NO_CAPACITY),
        ("There are no longer any instances available with the requested specifications", Failure.NO_CAPACITY),
        ("RESOURCE_EXHAUSTED: capacity", Failure.NO_CAPACITY),
        ("Quota exceeded for nvidia_l4_gpu_allocation_no_zonal_redundancy", Failure.QUOTA),
        ("429 too many requests", Failure.QUOTA),
        ("your balance is too low", Failure.BALANCE),
        ("preempted", Failure.PREEMPTED),
        ("the spot instance was reclaimed", Failure.PREEMPTED),
        ("image: no module named my_package", Failure.IMAGE),
        ("model: weights not found at gs://bucket/model", Failure.MODEL_LOAD),
        ("CUDA error: out of memory", Failure.OUT_OF_MEMORY),
        ("killed: exit code 137", Failure.OUT_OF_MEMORY),
        ("failed 3 times without a commit; the last: signal 11", Failure.USER_CODE),
        ("exit code 1", Failure.USER_CODE),
        ("task timed out", Failure.TIMEOUT),
        ("not to be found on its platform", Failure.LOST),
        ("", Failure.UNKNOWN),
    ],
)
def test_failures_are_told_by_words(words, failure):
    """Of platforms, of GPU workers, of users' code."""
    assert classify(words) is failure
