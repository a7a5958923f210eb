"""Failures of GPU jobs: each has a budget and a remedy, and is found from values, never from messages."""

import json
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from gpu_jobs.errors import BalanceError, NoCapacityError, QuotaError, RejectedError
from gpu_jobs.jobs.failures import (
    TREATMENTS,
    AttemptEnd,
    Cause,
    Failure,
    Remedy,
    failure_of_exit,
    failure_of_refusal,
    gravest,
)
from gpu_jobs.jobs.orders import Observation, Phase, failure_of
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.platforms.base import is_about_quota

HOSTILE = "no image found: quota of model credits exceeded, timed out, evicted"
"""What a user's exception may say."""


def test_every_failure_has_a_treatment():
    """One table, nothing left out; what is nobody's error has no budget."""
    assert set(TREATMENTS) == set(Failure)
    for treatment in TREATMENTS.values():
        assert isinstance(treatment.remedy, Remedy)
        assert (treatment.budget is None) == (not treatment.is_error)


@pytest.mark.parametrize(
    ("phase", "code", "reported", "failure"),
    [
        (Phase.FAILED, Failure.USER_CODE, [Failure.MODEL_LOAD], Failure.MODEL_LOAD),
        (Phase.FAILED, Failure.PREEMPTED, [Failure.UNKNOWN, Failure.IMAGE], Failure.IMAGE),
        (Phase.FAILED, Failure.USER_CODE, [Failure.UNKNOWN], Failure.UNKNOWN),
        (Phase.FAILED, Failure.PREEMPTED, [], Failure.PREEMPTED),
        (Phase.FAILED, None, [], Failure.UNKNOWN),
        (Phase.GONE, None, [], Failure.LOST),
        (Phase.GONE, None, [Failure.IMAGE], Failure.IMAGE),
        (Phase.GONE, Failure.QUOTA, [], Failure.QUOTA),
        (Phase.SUCCEEDED, None, [Failure.IMAGE], None),
        (Phase.STOPPED, None, [Failure.IMAGE], None),
    ],
)
def test_who_knows_best_says_what_a_gpu_job_failed_of(phase, code, reported, failure):
    """Its GPU workers, then its platform's codes; the words beside them are a user's, and say nothing."""
    seen = Observation(phase=phase, failure=code, reason=HOSTILE, detail=HOSTILE)

    assert failure_of(seen, reported) is failure


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (1, Failure.USER_CODE),
        (3, Failure.USER_CODE),
        (137, Failure.OUT_OF_MEMORY),
        (-9, Failure.OUT_OF_MEMORY),
        (-11, Failure.UNKNOWN),
    ],
)
def test_a_gpu_worker_that_was_killed_ran_out_of_memory(code, failure):
    """Whoever counts signals, a shell or Python."""
    assert failure_of_exit(code) is failure


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (NoCapacityError, Failure.NO_CAPACITY),
        (QuotaError, Failure.QUOTA),
        (RejectedError, Failure.REJECTED),
        (BalanceError, Failure.BALANCE),
    ],
)
def test_the_failure_of_a_refusal_is_found_by_its_class(error, failure):
    """Its message does not matter."""
    assert failure_of_refusal(error(HOSTILE)) is failure


def test_of_several_gpu_workers_an_error_counts_before_what_is_nobodys():
    """And what is known before what is not."""
    assert gravest([Failure.PREEMPTED, Failure.UNKNOWN, Failure.OUT_OF_MEMORY, None]) is Failure.OUT_OF_MEMORY
    assert gravest([Failure.PREEMPTED, Failure.USER_CODE]) is Failure.USER_CODE
    assert gravest([None]) is None


@pytest.mark.parametrize(
    ("message", "is_it"),
    [
        ("Quota exceeded for total allowable count of GPUs per project per region.", True),
        ("Max workers across all endpoints must not exceed your workers quota (5)", True),
        ("Max instances must be set to 0 or fewer ... Quota violated:\nMemAllocPerProjectRegion", True),
        ("image there/quota/worker:quota was not found", False),
        ("projects/quota-team: no such image", False),
    ],
)
def test_a_quota_is_found_by_the_word_alone(message, is_it):
    """Where a platform has no code for it; names of images and projects may hold it."""
    assert is_about_quota(message) is is_it


def test_heartbeats_of_older_gpu_workers_are_read():
    """They have no failure; those of today report it as a value."""
    beat = Heartbeat(worker_id="b", order="o", slot=0, host="h", status="over", failure=Failure.IMAGE)
    adapter = TypeAdapter(Heartbeat)
    written = json.loads(adapter.dump_json(beat))
    assert written.pop("failure") == "image"

    assert adapter.validate_python(written) == replace(beat, failure=None)


def test_attempt_ends_of_older_gpu_workers_are_read():
    """Where the field was called `vouched`."""
    end = TypeAdapter(AttemptEnd).validate_python({"cause": "crashed", "vouched": True})

    assert end == AttemptEnd(cause=Cause.CRASHED, trusted=True)
