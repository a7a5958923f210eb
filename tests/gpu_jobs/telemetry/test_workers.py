"""What GPU jobs are billed, by their GPU workers' heartbeats: seconds by class add up to it, start billed or not."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_jobs.jobs.costs import LIFE_PHASES, WorkerSeconds, usd_for
from gpu_jobs.ledger.journal import Ordered
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.telemetry.workers import GpuWorkers
from gpu_jobs.testing import an_offer, an_order

AT = datetime(2026, 11, 24, tzinfo=UTC)


def ordered(*, num_workers=1, reserved_usd=1e9, **rules):
    order = an_order(offer=an_offer(**rules), num_workers=num_workers, reserved_usd=reserved_usd)
    return Ordered(order=order, owner="test", reason="", at=AT)


def life(worker_id="b", *, began_s, seconds, status="over", slot=0):
    """A GPU worker's last heartbeat, and the store's stamp of it."""
    order = an_order().name
    beat = Heartbeat(
        worker_id=worker_id, order=order, slot=slot, host="h", status=status, items_done=9, seconds=seconds
    )
    return beat, AT.timestamp() + began_s + seconds.lived_s


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.floats(0, 1e4),
            st.builds(WorkerSeconds, **{name: st.floats(0, 1e4) for name in LIFE_PHASES}),
            st.sampled_from(["over", "working"]),
        ),
        max_size=6,
    ),
    st.builds(
        ordered,
        num_workers=st.just(3),
        is_start_billed=st.booleans(),
        granularity_s=st.sampled_from([0.1, 60.0]),
        idle_s=st.sampled_from([0.0, 60.0]),
    ),
    st.floats(0, 1e5),
    st.booleans(),
)
def test_seconds_by_class_add_up_to_the_bill(lives, job, until_s, is_over):
    """Restarts, GPU workers that never lived, and unbilled starts included."""
    beats = [
        life(f"b{number}", began_s=began_s, seconds=seconds, status=status, slot=slot)
        for number, (slot, began_s, seconds, status) in enumerate(lives)
    ]
    until = AT + timedelta(seconds=until_s)

    classes = GpuWorkers(beats).billed(job, until, is_over=is_over)

    assert usd_for(job.order.offer, classes.total_s) == pytest.approx(GpuWorkers(beats).usd(job, until), abs=1e-6)
    assert min(classes.by_class().values()) >= 0


SECONDS = WorkerSeconds(starting=5.0, model_load=15.0, working=60.0, idle=10.0)


@pytest.mark.parametrize(("is_start_billed", "billed_s", "starting_s"), [(True, 130.0, 45.0), (False, 90.0, 5.0)])
def test_an_unbilled_start_is_billed_from_the_first_sign_of_life(is_start_billed, billed_s, starting_s):
    """What it needs from then on is billed either way, and the rest is in no class."""
    job = ordered(is_start_billed=is_start_billed)

    found = GpuWorkers([life(began_s=40.0, seconds=SECONDS)])

    classes = found.billed(job, AT + timedelta(hours=1), is_over=True)
    assert found.usd(job, AT + timedelta(hours=1)) == pytest.approx(usd_for(job.order.offer, billed_s))
    assert classes.starting == pytest.approx(starting_s)
    assert (classes.model_load, classes.useful) == pytest.approx((15.0, 60.0))


@pytest.mark.parametrize(("is_start_billed", "billed_s"), [(True, 100.0), (False, 0.0)])
def test_a_gpu_worker_that_never_lived_is_all_start(is_start_billed, billed_s):
    """Billed or not as a whole."""
    job = ordered(is_start_billed=is_start_billed)

    classes = GpuWorkers([]).billed(job, AT + timedelta(seconds=100), is_over=True)

    assert (classes.starting, classes.total_s) == pytest.approx((billed_s, billed_s))


def test_a_restarted_gpu_workers_start_counts_from_the_end_of_its_life_before():
    """And not once more from the order."""
    again = life("again", began_s=150.0, seconds=WorkerSeconds(starting=5.0, model_load=5.0, working=40.0))

    found = GpuWorkers([life(began_s=40.0, seconds=SECONDS, status="working"), again])

    classes = found.billed(ordered(), AT + timedelta(hours=1), is_over=True)
    assert (classes.starting, classes.useful) == pytest.approx((40.0 + 5.0 + 5.0, 100.0))
