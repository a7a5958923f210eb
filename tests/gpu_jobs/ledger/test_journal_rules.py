"""Rule 7: the journal orders decisions. Whoever decides on old news decides again."""

from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu_jobs.dispatch import CampaignView, JobView, StartJob, decide
from gpu_jobs.errors import CampaignClosedError, CampaignError, StoreUnavailableError, SupersededError
from gpu_jobs.jobs.costs import worst_case_usd
from gpu_jobs.ledger.journal import Closed, Ended, Journal, JournalState, Opened, Ordered
from gpu_jobs.testing import MemoryStore, a_policy, an_offer, an_order

AT = datetime(2026, 11, 24, tzinfo=UTC)
OFFER = an_offer(usd_per_hour=1.0, max_workers=2)
POLICY = a_policy(max_workers=3, budget_usd=4.0, job_hours=1.0, max_idle_jobs=100)


def opened(owner="one"):
    return Opened(owner=owner, policy=POLICY, at=AT)


def ordered(owner="one", name="job-2", num_workers=1, hours=1.0):
    reserved_usd = worst_case_usd(OFFER, num_workers, hours)
    order = an_order(name=name, offer=OFFER, num_workers=num_workers, reserved_usd=reserved_usd)
    return Ordered(order=order, owner=owner, reason="work", at=AT)


def ended(name="job-2", spent_usd=0.0, items_done=1):
    return Ended(order=name, reason="succeeded", items_done=items_done, spent_usd=spent_usd, at=AT)


def closed(owner="one"):
    return Closed(reason="done", owner=owner, at=AT)


def flow_run(store, owner):
    """Open the campaign, then order whatever `decide` wants, for ever; pauses before each call to the store."""
    journal = Journal(store)
    yield
    state = journal.read()
    yield
    while not journal.append(opened(owner), upon=state):
        yield
        state = journal.read()
        yield
    while True:
        yield
        state = journal.read()
        for action in decide(view(state), [OFFER], POLICY, AT).actions:
            if isinstance(action, StartJob):
                yield
                entry = ordered(owner, f"job-{state.next_seq}", action.num_workers, action.hours)
                journal.append(entry, upon=state)


def view(state):
    return CampaignView(
        num_items=100,
        items_left=100,
        quarantined_items=0,
        chunks_left=100,
        jobs=[
            JobView(
                order=order.name, offer=order.offer, num_workers=order.num_workers, workers_alive=0, is_starting=True
            )
            for order in state.live_orders
        ],
        reserved_usd=sum(order.reserved_usd for order in state.live_orders),
        spent_usd=sum(entry.spent_usd for entry in state.ended.values()),
    )


def end_a_job(store, spent_usd):
    journal = Journal(store)
    state = journal.read()
    if state.live_orders:
        order = state.live_orders[0]
        journal.append(ended(order.name, min(spent_usd, order.reserved_usd)), upon=state)


def check_every_prefix(entries):
    """What must hold after each entry, whoever wrote it."""
    for length in range(1, len(entries) + 1):
        state = JournalState(entries[:length])
        spent_usd = sum(entry.spent_usd for entry in state.ended.values())
        reserved_usd = sum(order.reserved_usd for order in state.live_orders)
        assert sum(order.num_workers for order in state.live_orders) <= POLICY.max_workers
        assert spent_usd + reserved_usd <= POLICY.budget_usd + 1e-9
        if isinstance(state.entries[-1], Ordered):
            assert state.entries[-1].owner == state.opened.owner
    names = [entry.order.name for entry in entries if isinstance(entry, Ordered)]
    assert len(names) == len(set(names))


@settings(max_examples=300, deadline=None)
@example(schedule=[*[("a", 0.0)] * 5, ("end", 1.625), *[("a", 0.0)] * 2, ("end", 1.5), *[("a", 0.0)] * 2])
@given(schedule=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "end"]), st.floats(0, 2)), max_size=70))
def test_flow_runs_in_any_interleaving_keep_to_the_workers_and_the_budget(schedule):
    """Three flow runs on one campaign never order a GPU worker or spend a dollar twice."""
    store = MemoryStore()
    runs = {name: flow_run(store, name) for name in "abc"}

    for name, spent_usd in schedule:
        if name == "end":
            end_a_job(store, spent_usd)
            continue
        try:
            next(runs[name], None)
        except SupersededError:
            assert Journal(store).read().opened.owner != name

    check_every_prefix(Journal(store).read().entries)


def test_two_openers_at_every_step():
    """Wherever the second opens, one of the two rules, and the other learns it when it wants to order."""
    for steps_of_a, steps_of_b in product(range(12), repeat=2):
        store = MemoryStore()
        runs = {name: flow_run(store, name) for name in "ab"}
        superseded = set()

        for name in ["a"] * steps_of_a + ["b"] * steps_of_b + ["a", "b"] * 12:
            try:
                next(runs[name], None)
            except SupersededError:
                superseded.add(name)

        journal = Journal(store)
        state = journal.read()
        check_every_prefix(state.entries)
        loser = "ab".replace(state.opened.owner, "")
        assert superseded <= {loser}
        with pytest.raises(SupersededError, match=state.opened.owner):
            journal.append(ordered(loser, "more"), upon=state)


def test_the_second_to_decide_on_the_same_news_is_told_so():
    """Two owners_of read the same journal; one appends, the other gets False and nothing is stored."""
    store = MemoryStore()
    first, second = Journal(store), Journal(store)
    first.append(opened(), upon=first.read())
    news = second.read()

    assert first.append(ordered(name="job-a"), upon=first.read())
    assert not second.append(ordered(name="job-b"), upon=news)
    assert list(first.read().orders) == ["job-a"]


def test_a_lost_reply_is_no_loss():
    """Appending the same entry again after a lost reply is true."""
    store = MemoryStore(reply_lost=lambda number, _key: number == 1)
    journal = Journal(store)
    news = journal.read()
    with pytest.raises(StoreUnavailableError):
        journal.append(opened(), upon=news)

    assert journal.append(opened(), upon=news)
    assert journal.read().entries == (opened(),)


@pytest.mark.parametrize(
    ("entries", "entry", "error"),
    [
        ([], ordered(), SupersededError),
        ([opened("two")], ordered("one"), SupersededError),
        ([opened("one"), opened("two")], closed("one"), SupersededError),
        ([opened(), closed()], ordered(), CampaignClosedError),
        ([opened(), closed()], closed(), CampaignClosedError),
        ([opened()], ended(), CampaignError),
        ([opened(), ordered(), ended()], ended(), CampaignError),
        ([opened(), closed(), opened("two")], ordered("one"), SupersededError),
        ([opened()], ordered(), None),
        ([opened(), closed(), opened("two")], ordered("two"), None),
        ([opened("one"), ordered("one"), opened("two")], ended(), None),
        ([opened(), ordered(), closed()], ended(), None),
        ([opened(), closed()], opened("two"), None),
    ],
)
def test_what_may_come_next(entries, entry, error):
    """Ordering and closing are for the last owner of an open campaign; ends of GPU jobs are noted by anybody."""
    refusal = JournalState(tuple(entries)).refusal(entry)

    assert type(refusal) is (error or type(None))


def test_the_last_opened_or_closed_rules():
    """A resume is a new opening, with the jobs that it found alive, and it begins with patience anew."""
    before = [opened("one"), ordered(name="job-a"), ordered(name="job-b"), ended("job-a", items_done=0), closed("one")]
    state = JournalState((*before, opened("two")))

    assert JournalState(tuple(before)).closed == closed("one")
    assert state.closed is None
    assert [order.name for order in state.live_orders] == ["job-b"]
    assert [entry.order.name for entry in state.orders_of_opening] == ["job-b"]
    assert (len(JournalState(tuple(before)).ends_of_opening), len(state.ends_of_opening)) == (1, 0)
