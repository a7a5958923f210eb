"""Where dollars went: every billed second is in one class, every dollar too, and caps hold."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_jobs.jobs.costs import (
    CLASSES,
    REAPER_S,
    WorkerSeconds,
    billed_s,
    by_class,
    classes_of,
    left_usd,
    spent_usd,
    to_cents,
    usd_for,
    worst_case_usd,
)
from gpu_jobs.testing import an_offer, an_order

AT = datetime(2026, 11, 24, tzinfo=UTC)
SECONDS = st.floats(min_value=0, max_value=1e6, allow_subnormal=False)
ACCOUNTS = st.none() | st.builds(WorkerSeconds, **{each.name: SECONDS for each in fields(WorkerSeconds)})
RULES = st.builds(
    lambda granularity, least, idle: an_offer(granularity_s=granularity, min_billed_s=least, idle_s=idle),
    st.sampled_from([0.1, 1.0, 60.0]),
    st.sampled_from([0.0, 60.0]),
    st.sampled_from([0.0, 60.0]),
)


@given(SECONDS, ACCOUNTS, SECONDS, st.booleans())
def test_every_billed_second_is_in_one_class(billed, seconds, before_s, is_over):
    """Whatever a GPU worker says of itself, the classes add up to what is billed, and none is negative."""
    found = classes_of(billed, seconds, before_s, is_over=is_over)

    assert found.total_s == pytest.approx(billed, abs=1e-6)
    found = found.by_class()
    assert tuple(found) == CLASSES
    assert sum(found.values()) == pytest.approx(billed, abs=1e-6)
    assert min(found.values()) >= 0


@pytest.mark.parametrize(
    ("seconds", "is_over", "expected"),
    [
        (None, False, {"starting": 100}),
        ({"starting": 5, "model_load": 10, "working": 60, "idle": 5}, True, {"starting": 15, "useful": 60, "idle": 15}),
        ({"working": 80, "retry": 10, "hedged": 5}, True, {"useful": 65, "retry": 10, "hedged": 5, "idle": 10}),
        ({"working": 80, "unsettled": 30}, False, {"useful": 50, "preempted": 30}),
        ({"working": 80, "unsettled": 30}, True, {"useful": 80}),
    ],
)
def test_what_seconds_went_into(seconds, is_over, expected):
    """Silence is starting; lost work is taken off the useful; what a dead GPU worker had not saved is preempted."""
    told = None if seconds is None else WorkerSeconds(**seconds)

    found = classes_of(100.0, told, 10.0 if seconds else 0.0, is_over=is_over).by_class()

    assert {name: value for name, value in found.items() if name in expected} == pytest.approx(expected)


@given(st.lists(st.fixed_dictionaries({"usd": st.floats(0, 1e4), **{f"{name}_s": SECONDS for name in CLASSES}})))
def test_classes_add_up_to_the_bill_to_the_cent(jobs):
    """Of all GPU jobs together."""
    schema = {"usd": pl.Float64, **{f"{name}_s": pl.Float64 for name in CLASSES}}

    found = by_class(pl.DataFrame(jobs, schema=schema))

    paid = sum(job["usd"] for job in jobs if any(job[f"{name}_s"] for name in CLASSES))
    assert found["class"].to_list() == list(CLASSES)
    assert sum(to_cents(found["usd"].to_list())) == pytest.approx(100 * paid, abs=0.5001)
    assert found["share"].sum() == pytest.approx(1 if found["seconds"].sum() else 0)


def test_dollars_follow_each_gpu_jobs_own_seconds():
    """An idle expensive GPU job and a busy cheap one are not averaged."""
    none = {f"{name}_s": 0.0 for name in CLASSES}

    found = by_class(pl.DataFrame([{**none, "usd": 9.0, "idle_s": 10.0}, {**none, "usd": 1.0, "useful_s": 10.0}]))

    usd = dict(zip(found["class"], found["usd"], strict=True))
    assert (usd["useful"], usd["idle"]) == (1.0, 9.0)


@given(st.lists(st.floats(0, 1e6), max_size=9))
def test_cents_add_up(dollars):
    """Rounding loses no cent and adds none."""
    assert sum(to_cents(dollars)) == round(sum(100 * usd for usd in dollars))


@given(RULES, SECONDS, SECONDS)
def test_billing_rules_never_bill_less_than_was_lived(offer, one, other):
    """And never less for more; a life of nothing costs nothing."""
    short, long = sorted((one, other))

    assert billed_s(offer, 0.0) == 0.0
    assert billed_s(offer, long) >= long - 1e-3
    assert billed_s(offer, short) <= billed_s(offer, long)


@pytest.mark.parametrize(
    ("lived_s", "rules", "expected"),
    [
        (10.2, {}, 11.0),
        (10.25, {"granularity_s": 0.1}, 10.3),
        (10.0, {"min_billed_s": 60.0}, 60.0),
        (10.0, {"idle_s": 60.0}, 70.0),
    ],
)
def test_billing_rules(lived_s, rules, expected):
    """Steps, minimum, idle window."""
    assert billed_s(an_offer(**rules), lived_s) == pytest.approx(expected)


@given(RULES, st.integers(1, 50), st.floats(0.01, 12), st.floats(0, 1))
def test_a_gpu_job_costs_no_more_than_is_reserved_for_it(offer, num_workers, hours, share):
    """If it ends at its expiry, or the reaper ends it a period later at the latest; billing rules included."""
    reserved = worst_case_usd(offer, num_workers, hours)
    order = an_order(offer=offer, num_workers=num_workers, reserved_usd=reserved)

    lived_s = share * (3600 * hours + REAPER_S)

    assert reserved >= num_workers * usd_for(offer, 3600 * hours + REAPER_S) - 1e-9
    assert spent_usd(order, AT, AT + timedelta(seconds=lived_s)) <= reserved + 1e-9


@pytest.mark.parametrize(
    ("budget_usd", "spent_usd", "reserved_usd", "expected"),
    [(None, 9.0, 9.0, None), (10.0, 2.0, 0.0, 8.0), (10.0, 2.0, 5.0, 3.0), (10.0, 8.0, 5.0, 0.0)],
)
def test_what_is_set_aside_is_not_left(budget_usd, spent_usd, reserved_usd, expected):
    """And a budget that is overdrawn has nothing left."""
    assert left_usd(budget_usd, spent_usd=spent_usd, reserved_usd=reserved_usd) == expected
