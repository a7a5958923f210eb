"""Whether a GPU worker may run: one rule, by the journal."""

from datetime import UTC, datetime, timedelta

import pytest

from gpu_jobs.ledger.journal import Closed, Ended, JournalState, Opened, Ordered
from gpu_jobs.ledger.validity import EndCause, reason_to_end
from gpu_jobs.testing import a_policy, an_order

AT = datetime(2026, 11, 24, tzinfo=UTC)
ORDER = an_order(expires_at=AT + timedelta(hours=1))
OPENED = Opened(owner="me", policy=a_policy(), at=AT)
ORDERED = Ordered(order=ORDER, owner="me", reason="", at=AT)
ENDED = Ended(order=ORDER.name, reason="killed", items_done=0, spent_usd=0.0, at=AT)
CLOSED = Closed(reason="enough", owner="me", at=AT)


@pytest.mark.parametrize(
    ("entries", "order", "late_s", "grace_s", "expected"),
    [
        ((), ORDER.name, 0, 0, EndCause.NOT_ORDERED),
        ((), None, 0, 0, EndCause.NOT_OPENED),
        ((OPENED,), ORDER.name, 0, 0, EndCause.NOT_ORDERED),
        ((OPENED,), None, 0, 0, None),
        ((OPENED, ORDERED), ORDER.name, 3599, 0, None),
        ((OPENED, ORDERED), ORDER.name, 3600, 0, EndCause.EXPIRED),
        ((OPENED, ORDERED), ORDER.name, 3659, 60, None),
        ((OPENED, ORDERED), ORDER.name, 3661, 60, EndCause.EXPIRED),
        ((OPENED, ORDERED, ENDED), ORDER.name, 0, 60, EndCause.ENDED),
        ((OPENED, CLOSED), None, 0, 0, EndCause.CLOSED),
        ((OPENED, ORDERED, CLOSED), ORDER.name, -9, 0, EndCause.CLOSED),
        ((OPENED, ORDERED, CLOSED), ORDER.name, 59, 60, None),
        ((OPENED, ORDERED, CLOSED), ORDER.name, 61, 60, EndCause.CLOSED),
        ((OPENED, ORDERED, CLOSED, OPENED), ORDER.name, 61, 60, None),
    ],
)
def test_a_gpu_worker_may_run_while_its_order_is_open_and_its_campaign_too(entries, order, late_s, grace_s, expected):
    """A GPU worker has no grace, and a close counts at once, whatever its clock says; the reaper leaves a minute."""
    found = reason_to_end(JournalState(entries), order, AT + timedelta(seconds=late_s), grace_s=grace_s)

    assert (found and found.cause) == expected
