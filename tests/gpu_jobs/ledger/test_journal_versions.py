"""Entries of a journal of before are read: what they did not say as a value has a default."""

import json
from datetime import UTC, datetime

import pytest

from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import JobOutcome
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.journal import CloseCause, Ended, Journal
from gpu_jobs.testing import MemoryStore

AT = "2026-11-24T00:00:00Z"
ENDED = {"kind": "ended", "version": 1, "order": "o", "items_done": 0, "spent_usd": 0.0, "at": AT}
CLOSED = {"kind": "closed", "version": 1, "opener": "me", "at": AT}


def read(entry):
    store = MemoryStore()
    store.create(keys.journal(1), json.dumps(entry).encode())
    (found,) = Journal(store).read().entries
    return found


@pytest.mark.parametrize(("failure", "outcome"), [(None, JobOutcome.SUCCEEDED), ("lost", JobOutcome.FAILED)])
def test_an_end_without_an_outcome_failed_if_it_carries_a_failure(failure, outcome):
    """Its words decide nothing."""
    assert read({**ENDED, "reason": "stopped: enough", "failure": failure}).outcome is outcome


def test_a_close_without_a_cause_is_of_an_unknown_one():
    """Even if its words are those of an interruption."""
    assert read({**CLOSED, "reason": "interrupted by KeyboardInterrupt"}).cause is CloseCause.UNKNOWN


def test_a_gpu_job_that_was_given_up_was_stopped_and_keeps_its_failure():
    """What has a failure has not succeeded; it may have been stopped for it."""
    values = {"order": "o", "reason": "", "items_done": 0, "spent_usd": 0.0, "at": datetime.now(UTC)}

    given_up = Ended(**values, outcome=JobOutcome.STOPPED, failure=Failure.TIMEOUT)

    assert given_up.outcome is JobOutcome.STOPPED
    assert Ended(**values, failure=Failure.TIMEOUT).outcome is JobOutcome.FAILED
