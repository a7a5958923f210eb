"""The reaper ends what nobody owns, and nothing else."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gpu_jobs.campaign.reaper import owners_of, reap
from gpu_jobs.errors import StoreError
from gpu_jobs.jobs.names import order_prefix, root_prefix
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.journal import Closed, Ended, Journal, Opened, Ordered
from gpu_jobs.store import open_store
from gpu_jobs.testing import FakePlatform, a_policy, an_offer, an_order

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
OPENER = "flow-run-1"


class Account:
    """Store roots in folders, all with GPU jobs on one account of one platform."""

    def __init__(self, folder):
        self.folder = folder
        self.platform = FakePlatform(offers=[an_offer(usd_per_hour=3.6)])

    def uri(self, root="store"):
        return str(self.folder / root)

    def journal(self, root="store", name="night"):
        return Journal(open_store(f"{self.uri(root)}/{name}"))

    def start(self, root="store", name="night", *, is_in_journal=True, expires_at=NOW + timedelta(hours=12)):
        """One GPU job at work, whose orchestrator is gone without a word."""
        order = an_order(
            name=f"{order_prefix(f'{self.uri(root)}/{name}')}-0002",
            offer=self.platform.offers()[0],
            num_workers=2,
            expires_at=expires_at,
        )
        self.write(Opened(owner=OPENER, policy=a_policy(), at=NOW), root, name)
        if is_in_journal:
            self.write(Ordered(order=order, owner=OPENER, reason="work is open", at=NOW), root, name)
        asyncio.run(self.platform.start(order))
        self.platform.run(order.name)
        return order.name

    def write(self, entry, root="store", name="night"):
        journal = self.journal(root, name)
        assert journal.append(entry, upon=journal.read())

    def reap(self, root="store", now=LATER, **options):
        return reap(self.uri(root), [self.platform], now, wait_s=0.5, **options)

    @property
    def alive(self):
        return [job.order.name for job in self.platform.jobs if not job.phase.is_over]


@pytest.fixture
def account(tmp_path):
    return Account(tmp_path)


def test_an_open_order_of_an_open_campaign_is_nobodys_orphan(account):
    """Whether or not its orchestrator lives: its GPU workers go on alone."""
    order = account.start()

    assert account.reap() == []
    assert account.alive == [order]


def test_a_gpu_job_past_its_expiry_is_ended_after_a_grace(account):
    """Its GPU workers should have ended by themselves: they get a minute for it."""
    expires_at = NOW + timedelta(hours=1)
    order = account.start(expires_at=expires_at)

    assert account.reap(now=expires_at + timedelta(seconds=59)) == []
    (orphan,) = account.reap(now=expires_at + timedelta(seconds=61))

    assert account.alive == []
    assert (orphan.order, orphan.has_ended) == (order, True)
    assert orphan.why == "its order expired at 2026-11-24 13:00 UTC"
    assert orphan.campaign == f"{account.uri()}/night"
    assert orphan.usd == pytest.approx(2 * 3.6 * (3661 / 3600))


def test_a_gpu_job_whose_order_has_ended_is_ended(account):
    """A container that its platform restarted by itself, say."""
    order = account.start()
    account.write(Ended(order=order, reason="killed", items_done=0, spent_usd=0.1, at=NOW))

    (orphan,) = account.reap()

    assert account.alive == []
    assert orphan.why == "its order has ended: killed"


def test_a_gpu_job_of_a_closed_campaign_is_ended_after_a_grace(account):
    """Who closes a campaign stops its GPU jobs; if that came to nothing, the reaper does."""
    account.start()
    account.write(Closed(reason="the budget is used up", owner=OPENER, at=NOW))

    assert account.reap(now=NOW + timedelta(seconds=59)) == []
    (orphan,) = account.reap(now=NOW + timedelta(seconds=61))

    assert account.alive == []
    assert orphan.why == "its campaign is closed: the budget is used up"


def test_a_gpu_job_that_nobody_has_ordered_is_ended(account):
    """Of a campaign without such an order, and of none at all; what it has cost is not known then."""
    account.start(is_in_journal=False)
    stray = an_order(name=f"{root_prefix(account.uri())}-00000000-0007")
    asyncio.run(account.platform.start(stray))

    orphans = account.reap()

    assert account.alive == []
    assert [orphan.why for orphan in orphans] == ["no campaign under this root has ordered it"] * 2
    assert [orphan.campaign for orphan in orphans] == [f"{account.uri()}/night", ""]
    assert [orphan.usd for orphan in orphans] == [None, None]


def test_two_roots_in_one_account_touch_only_their_own(account):
    """Each has an orphan of the same campaign's name; reaping one root leaves the other's alone."""
    account.start("mine", is_in_journal=False)
    theirs = account.start("mine-too", is_in_journal=False)

    assert len(account.reap("mine")) == 1
    assert account.alive == [theirs]
    assert len(account.reap("mine-too")) == 1
    assert account.alive == []


def test_a_dry_run_only_tells(account):
    """The same orphan is found, again and again; nothing is stopped."""
    order = account.start(is_in_journal=False)

    for _ in range(2):
        (orphan,) = account.reap(is_dry_run=True)
        assert (orphan.order, orphan.has_ended) == (order, False)

    assert account.alive == [order]
    assert account.platform.job(order).num_stops == 0


def test_a_gpu_job_that_does_not_stop_is_told_as_such(account, monkeypatch):
    """It was asked to stop, was not seen to end, and is found again the next time."""
    account.start(is_in_journal=False)

    async def deaf(_handle):
        return None

    monkeypatch.setattr(account.platform, "stop", deaf)

    assert [orphan.has_ended for orphan in account.reap()] == [False]
    assert [orphan.has_ended for orphan in account.reap()] == [False]


def test_an_unreadable_store_is_an_alarm_and_nothing_is_ended(account):
    """One damaged journal, of a campaign with a GPU job alive, stops the whole sweep of the root."""
    account.start(name="a-fine-one", is_in_journal=False)
    account.start(name="broken")
    (account.folder / "store" / "broken" / keys.journal(2)).write_text("{")

    with pytest.raises(StoreError):
        account.reap()

    assert len(account.alive) == 2


def test_a_root_without_campaigns_but_with_gpu_jobs_is_an_alarm(account):
    """A folder that is not mounted looks empty; its GPU jobs are not orphans for that."""
    order = account.start()
    (account.folder / "store").rename(account.folder / "elsewhere")

    with pytest.raises(StoreError, match="holds no campaign, but 1 GPU jobs carry its name"):
        account.reap()

    assert account.alive == [order]


def test_an_empty_root_without_gpu_jobs_is_fine(account):
    """Nothing was ever started here."""
    assert account.reap() == []


def test_openers_are_those_of_open_campaigns_with_living_gpu_jobs(account):
    """Neither a closed campaign nor one whose GPU jobs are over is asked about."""
    account.start(name="at-work")
    account.start(name="closed")
    account.write(Closed(reason="done", owner=OPENER, at=NOW), name="closed")
    account.platform.finish(account.start(name="over"))

    assert owners_of(account.uri(), [account.platform]) == {f"{account.uri()}/at-work": OPENER}
