"""One campaign as its owner sees it: open it, run it to its end, stop it, look at it."""

import io
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime

import polars as pl

from gpu_jobs.campaign.chunk_size import Fleet
from gpu_jobs.campaign.collect import Manifest, newest_manifest
from gpu_jobs.campaign.loop import Loop
from gpu_jobs.campaign.plan import CampaignSpec, split
from gpu_jobs.campaign.progress import Progress, cost_frame, progress_of
from gpu_jobs.dispatch import allowed
from gpu_jobs.errors import CampaignError, RefusedError, SupersededError
from gpu_jobs.jobs.costs import by_class
from gpu_jobs.jobs.offers import OfferKey
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.journal import CloseCause, Journal
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.records import Plan
from gpu_jobs.platforms import known_offers, needs_bucket, open_platform
from gpu_jobs.platforms.base import Platform
from gpu_jobs.platforms.event_loop import Background
from gpu_jobs.store import Store, is_local, open_store
from gpu_jobs.store.scan import scan_parquet
from gpu_jobs.telemetry.samples import Evidence
from gpu_jobs.telemetry.snapshot import Moment, Snapshot, SnapshotReader
from gpu_jobs.telemetry.workers import GpuWorkers
from gpu_jobs.workloads.base import BaseWorkload


def open_campaign(
    spec: CampaignSpec, policy: Policy, pace: Callable[[BaseWorkload], float | None] = lambda _: None
) -> "Campaign":
    """Check a request, then find its campaign or create it; nothing is started yet.

    Args:
        spec: what is to be done.
        policy: what may be used for it.
        pace: weight a second that a GPU worker of speed 1 did in earlier campaigns, if that is known.

    Raises:
        RefusedError: what is wrong with which field.
    """
    check(spec, policy, datetime.now(UTC))
    offers = allowed(known_offers(policy.platforms), policy)
    store, plan = split(spec, Fleet(max_workers=policy.max_workers, offers=offers, pace=pace))
    return Campaign(store, plan)


def check(spec: CampaignSpec, policy: Policy, now: datetime) -> None:
    """Refuse what cannot work, before anything is read or written."""
    if policy.budget_usd is not None and policy.budget_usd < 0:
        raise RefusedError("budget_usd", f"it is {policy.budget_usd}; it cannot be negative")
    if policy.deadline is not None and policy.deadline <= now:
        raise RefusedError("deadline", f"{policy.deadline:%Y-%m-%d %H:%M %Z} has passed")
    if policy.max_workers < 1:
        raise RefusedError("max_workers", f"it is {policy.max_workers}; at least one GPU worker is needed")
    if spec.chunk_weight is not None and spec.chunk_weight <= 0:
        raise RefusedError("chunk_weight", f"it is {spec.chunk_weight}; it must be positive")
    if not policy.platforms:
        raise RefusedError("platforms", "name at least one")
    remote = needs_bucket(policy.platforms)
    inputs = [spec.dataset] if isinstance(spec.dataset, str) else list(spec.dataset)
    if remote and is_local(spec.store_root):
        raise RefusedError("store_root", f"'{spec.store_root}' is a folder of this machine; {remote} cannot reach it")
    if remote and (here := [each for each in inputs if is_local(each)]):
        raise RefusedError("dataset", f"'{here[0]}' is a path of this machine; {remote} cannot reach it")


class Campaign:
    """A planned campaign in its store."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.store = store
        self.plan = plan
        self.ledger = Ledger(store)
        self.journal = Journal(store)

    @classmethod
    def open(cls, uri: str) -> "Campaign":
        """Look at an existing campaign."""
        store = open_store(uri)
        plan = Ledger(store).plan()
        if plan is None:
            raise CampaignError(f"there is no campaign at {store.uri}")
        return cls(store, plan)

    def run(
        self,
        policy: Policy,
        platforms: Sequence[Platform] = (),
        *,
        tick_s: float = 1.0,
        owner: str = "",
        earlier: Mapping[OfferKey, Evidence] | None = None,
    ) -> Generator[Progress, None, None]:
        """Open the campaign under `policy` and work until it is closed; yield after every look.

        Close the iterator, or let an exception into it, and all GPU jobs are stopped, what they have finished is
        committed, and the campaign is closed so that it can be resumed.

        Args:
            policy: what may be used; written into the journal.
            platforms: adapters; empty: the policy's platforms are opened by name.
            tick_s: seconds between two looks.
            owner: id of this flow run, by which `stop` knows it; empty: a new one.
            earlier: what earlier campaigns of the same workload measured of offers.

        Raises:
            SupersededError: (while iterating) a newer flow run opened the campaign; its GPU jobs go on under that.
        """
        adapters = platforms or [open_platform(name) for name in policy.platforms]
        with Background() as background:
            owner = owner or new_owner()
            loop = Loop(self.ledger, self.plan, policy, adapters, owner=owner, background=background, earlier=earlier)
            loop.open()
            try:
                while True:
                    progress = loop.turn()
                    yield progress
                    if loop.is_over:
                        return
                    time.sleep(tick_s)
            except SupersededError:
                raise
            except BaseException as error:
                loop.stop(f"interrupted by {type(error).__name__}", CloseCause.INTERRUPTED)
                raise

    def stop(self, reason: str, *, owner: str, platforms: Sequence[Platform] = ()) -> list[str]:
        """Close the campaign and stop its GPU jobs, from outside of its loop; what they have finished is committed.

        Does nothing if another flow run than `owner` has opened the campaign since. May be repeated.

        Returns:
            the GPU jobs that could not be seen to end within 20 s.
        """
        opened = self.journal.read().opened
        if opened is None or opened.owner != owner:
            return []
        with Background() as background:
            loop = Loop(self.ledger, self.plan, opened.policy, platforms, owner=owner, background=background)
            loop.stop(reason, CloseCause.STOPPED)
        return [order.name for order in self.journal.read().live_orders]

    def snapshot(self) -> Snapshot:
        """What its store says now; everything that is shown of a campaign is computed from it."""
        return SnapshotReader(self.ledger, self.plan, self.journal).read(Moment.now())

    def workers(self) -> GpuWorkers:
        """All GPU workers that it ever had, by their newest heartbeats."""
        return SnapshotReader(self.ledger, self.plan, self.journal).workers()

    def status(self) -> Progress:
        """Where the campaign is now, from its store alone: GPU jobs are shown by their heartbeats."""
        return progress_of(self.snapshot())

    def outputs(self) -> pl.LazyFrame:
        """The published rows, in item order. Raises `CampaignError` if nothing was published yet."""
        return scan_parquet(self.store, [file.key for file in self._manifest().outputs])

    def preview(self) -> pl.DataFrame | None:
        """What a draft model said of the first items, if it was asked and has answered; never part of `outputs`."""
        body = self.store.get(keys.PREVIEW)
        return None if body is None else pl.read_parquet(io.BytesIO(body))

    def quarantine(self) -> pl.LazyFrame:
        """Items without rows: `item_index`, `item`, `cause`, `detail`, `attempts`. Raises as `outputs`."""
        return scan_parquet(self.store, [self._manifest().quarantine.key])

    def cost(self) -> pl.DataFrame:
        """One row per GPU job of all openings: dollars, GPU worker seconds billed, and the same by class.

        Dollars are estimates by the offer's hourly price; of a GPU job that still runs, so far.
        """
        return cost_frame(self.journal.read(), self.workers(), datetime.now(UTC))

    def cost_by_class(self) -> pl.DataFrame:
        """The same, added up by what GPU workers spent it on: `class`, `seconds`, `share`, `usd`."""
        return by_class(self.cost())

    def _manifest(self) -> Manifest:
        manifest = newest_manifest(self.store)
        if manifest is None:
            raise CampaignError(f"nothing was published yet at {self.store.uri}")
        return manifest


def new_owner() -> str:
    """An id for a flow run that has none."""
    return uuid.uuid4().hex[:12]
