"""A campaign as its owner sees it: open it, run it to its end, stop it, read its status."""

import io
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime

import polars as pl

from gpu_jobs.campaign.chunk_size import ChunkingLimits
from gpu_jobs.campaign.loop import Loop
from gpu_jobs.campaign.manifest import Manifest, newest_manifest
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
    """Check a request, then find its campaign or create it. Nothing is started yet.

    Args:
        spec: what is to be done.
        policy: the limits: platforms, GPU workers, dollars, time.
        pace: weight per second that a GPU worker of speed 1 reached in earlier campaigns, or None if it is unknown.

    Raises:
        RefusedError: a field of the request is wrong; the error names it and says why.
    """
    check(spec, policy, datetime.now(UTC))
    offers = allowed(known_offers(policy.platforms), policy)
    store, plan = split(spec, ChunkingLimits(max_workers=policy.max_workers, offers=offers, pace=pace))
    return Campaign(store, plan)


def check(spec: CampaignSpec, policy: Policy, now: datetime) -> None:
    """Refuse a request that cannot work, before anything is read or written."""
    if policy.budget_usd is not None and policy.budget_usd < 0:
        raise RefusedError("budget_usd", f"it is {policy.budget_usd}; it cannot be negative")
    if policy.deadline is not None and policy.deadline <= now:
        raise RefusedError("deadline", f"{policy.deadline:%Y-%m-%d %H:%M %Z} has passed")
    if policy.max_workers < 1:
        raise RefusedError("max_workers", f"it is {policy.max_workers}; at least one GPU worker is needed")
    if spec.chunk_weight is not None and spec.chunk_weight <= 0:
        raise RefusedError("chunk_weight", f"it is {spec.chunk_weight}; it must be positive")
    if not policy.platforms:
        raise RefusedError("platforms", "name at least one platform")
    remote = needs_bucket(policy.platforms)
    inputs = [spec.dataset] if isinstance(spec.dataset, str) else list(spec.dataset)
    if remote and is_local(spec.store_root):
        raise RefusedError("store_root", f"'{spec.store_root}' is a folder of this machine; {remote} cannot reach it")
    if remote and (here := [each for each in inputs if is_local(each)]):
        raise RefusedError("dataset", f"'{here[0]}' is a path of this machine; {remote} cannot reach it")


class Campaign:
    """A planned campaign and its store."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.store = store
        self.plan = plan
        self.ledger = Ledger(store)
        self.journal = Journal(store)

    @classmethod
    def open(cls, uri: str) -> "Campaign":
        """Open an existing campaign for reading. Raises `CampaignError` if there is none."""
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
        """Open the campaign under `policy` and run its loop until it is closed; yield the progress after every turn.

        If the iterator is closed or an exception is thrown into it, all GPU jobs are stopped, what they have finished
        is committed, and the campaign is closed so that it can be resumed.

        Args:
            policy: the limits of this run; written into the journal.
            platforms: the adapters to use; empty: the policy's platforms are opened by name.
            tick_s: seconds between two turns.
            owner: id of this flow run, to be passed to `stop`; empty: a new one is made.
            earlier: what earlier campaigns of the same workload measured, by offer.

        Raises:
            SupersededError: (while iterating) a newer flow run has opened the campaign; the GPU jobs continue there.
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
        """Close the campaign and stop its GPU jobs from outside its loop. What they have finished is committed.

        Does nothing if another flow run than `owner` has opened the campaign since then. It may be called again.

        Returns:
            the GPU jobs that were not confirmed to have ended within 20 s.
        """
        opened = self.journal.read().opened
        if opened is None or opened.owner != owner:
            return []
        with Background() as background:
            loop = Loop(self.ledger, self.plan, opened.policy, platforms, owner=owner, background=background)
            loop.stop(reason, CloseCause.STOPPED)
        return [order.name for order in self.journal.read().live_orders]

    def snapshot(self) -> Snapshot:
        """Read what the store says now. Everything that is shown of a campaign is computed from this."""
        return SnapshotReader(self.ledger, self.plan, self.journal).read(Moment.now())

    def workers(self) -> GpuWorkers:
        """Read the newest heartbeats of all GPU workers that the campaign ever had."""
        return SnapshotReader(self.ledger, self.plan, self.journal).workers()

    def status(self) -> Progress:
        """Compute the progress from the store alone: GPU jobs are judged by heartbeats, platforms are not asked."""
        return progress_of(self.snapshot())

    def outputs(self) -> pl.LazyFrame:
        """Return the published rows, in item order. Raises `CampaignError` if nothing was published yet."""
        return scan_parquet(self.store, [file.key for file in self._manifest().outputs])

    def preview(self) -> pl.DataFrame | None:
        """Return a draft model's answers to the first items, or None if there are none. Never part of `outputs`."""
        body = self.store.get(keys.PREVIEW)
        return None if body is None else pl.read_parquet(io.BytesIO(body))

    def quarantine(self) -> pl.LazyFrame:
        """Return the items without rows: `item_index`, `item`, `cause`, `detail`, `attempts`. Raises as `outputs`."""
        return scan_parquet(self.store, [self._manifest().quarantine.key])

    def cost(self) -> pl.DataFrame:
        """Return one row per GPU job ever: dollars, billed GPU worker seconds, and these seconds by class.

        Dollars are estimated from the offer's hourly price; for a GPU job that still runs, up to now.
        """
        return cost_frame(self.journal.read(), self.workers(), datetime.now(UTC))

    def cost_by_class(self) -> pl.DataFrame:
        """Return the total cost by what GPU workers spent their time on: `class`, `seconds`, `share`, `usd`."""
        return by_class(self.cost())

    def _manifest(self) -> Manifest:
        manifest = newest_manifest(self.store)
        if manifest is None:
            raise CampaignError(f"nothing was published yet at {self.store.uri}")
        return manifest


def new_owner() -> str:
    """Return a new id, for a flow run that has none."""
    return uuid.uuid4().hex[:12]
