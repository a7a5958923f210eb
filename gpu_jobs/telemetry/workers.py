"""What GPU workers' heartbeats tell of a GPU job: what it did, what it cost, how fast it started and worked. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest
from typing import NamedTuple

from gpu_jobs.jobs.costs import BilledSeconds, WorkerSeconds, billed_s, classes_of, usd_for
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import OfferKey
from gpu_jobs.ledger.journal import Ordered
from gpu_jobs.ledger.ledger import Heartbeat
from gpu_jobs.telemetry.samples import Evidence


class _BilledLife(NamedTuple):
    beat: Heartbeat | None
    """None: it never gave a sign of life."""
    before_s: float
    """Of what it lived, before its first sign of life."""
    lived_s: float


class Lives:
    """All GPU workers of a campaign, each with the store's stamp of its last sign of life."""

    def __init__(self, beats: Iterable[tuple[Heartbeat, float]]) -> None:
        self._by_order: dict[str, list[Heartbeat]] = {}
        self._seen_at: dict[str, float] = {}
        for beat, at in beats:
            self._by_order.setdefault(beat.order, []).append(beat)
            self._seen_at[beat.boot] = at

    @property
    def all(self) -> list[Heartbeat]:
        return [beat for beats in self._by_order.values() for beat in beats]

    def of(self, order: str) -> list[Heartbeat]:
        return self._by_order.get(order, [])

    def items_done_by(self, order: str) -> int:
        return sum(beat.items_done for beat in self.of(order))

    def checkpoints_by(self, order: str) -> int:
        """Of long items."""
        return sum(beat.checkpoints for beat in self.of(order))

    def marks(self, order: str) -> tuple[tuple[int, int, int], ...]:
        """What changes while its GPU workers get on, within long items too."""
        return tuple((beat.items_done, beat.checkpoints, beat.progress_marks) for beat in self.of(order))

    def why_over(self, order: str) -> str:
        """What its GPU workers say of their ends."""
        return "; ".join(sorted({beat.reason for beat in self.of(order) if beat.reason}))

    def failures(self, order: str) -> list[Failure]:
        """What its GPU workers say that they failed of."""
        return [beat.failure for beat in self.of(order) if beat.failure]

    def seen_at(self, beat: Heartbeat) -> float:
        """The store's stamp of its last sign of life."""
        return self._seen_at[beat.boot]

    def began_at(self, beat: Heartbeat) -> float:
        """By the store's clock."""
        return self._seen_at[beat.boot] - beat.seconds.lived_s

    def ready_at(self, beat: Heartbeat) -> float:
        """When it could work, by the store's clock."""
        return self.began_at(beat) + beat.seconds.starting + beat.seconds.model_load

    def start_s(self, ordered: Ordered, beat: Heartbeat) -> float:
        """Until it was ready to work: from the order, or of a restarted one from the end of its life before."""
        began_at = self.began_at(beat)
        lives = (each for each in self.of(beat.order) if each.slot == beat.slot)
        before = [self.seen_at(each) for each in lives if self.began_at(each) < began_at]
        return max(0.0, self.ready_at(beat) - max([ordered.at.timestamp(), *before]))

    def usd(self, ordered: Ordered, until: datetime) -> float:
        """What a GPU job has cost up to `until`, by its offer's rules; never more than is reserved for it."""
        offer = ordered.order.offer
        billed = sum(billed_s(offer, life.lived_s) for life in self._lives(ordered, until))
        return min(ordered.order.reserved_usd, usd_for(offer, billed))

    def classes(self, ordered: Ordered, until: datetime, *, is_over: bool) -> BilledSeconds:
        """Every second that is billed for a GPU job, by class of the waste ledger."""
        total = BilledSeconds()
        for life in self._lives(ordered, until):
            beat, billed = life.beat, billed_s(ordered.order.offer, life.lived_s)
            is_well = beat is not None and (beat.status == "over" or not is_over)
            total += classes_of(billed, _account(beat), life.before_s, is_over=is_well)
        return total

    def evidence(self, orders: Mapping[str, Ordered], earlier: Mapping[OfferKey, Evidence]) -> dict[OfferKey, Evidence]:
        """What was measured on each offer, here and earlier; a GPU worker counts from its first item on.

        Warm starts count as well: where containers stay, the next GPU worker may find one too.
        """
        found = dict(earlier)
        for name, ordered in orders.items():
            for beat in self.of(name):
                if not beat.items_done:
                    continue
                known = found.get(ordered.order.offer.key, Evidence())
                found[ordered.order.offer.key] = Evidence(
                    items=known.items + beat.items_done,
                    working_s=known.working_s + beat.seconds.working,
                    starts=known.starts + 1,
                    start_s=known.start_s + self.start_s(ordered, beat),
                )
        return found

    def hedged_usd(self, orders: Mapping[str, Ordered]) -> float:
        """What went into work that another GPU worker had settled first."""
        return sum(
            usd_for(ordered.order.offer, beat.seconds.hedged)
            for name, ordered in orders.items()
            for beat in self.of(name)
        )

    def _lives(self, ordered: Ordered, until: datetime) -> list[_BilledLife]:
        """Of each GPU worker of a GPU job; a container that was restarted has several."""
        lives: list[_BilledLife] = []
        is_start_billed = ordered.order.offer.is_start_billed
        for slot in range(ordered.order.num_workers):
            beats = sorted((beat for beat in self.of(ordered.order.name) if beat.slot == slot), key=self.began_at)
            since = ordered.at.timestamp()
            for beat, follower in zip_longest(beats, beats[1:]):
                ended = until.timestamp()
                if beat.status == "over":
                    ended = min(ended, self._seen_at[beat.boot])
                elif follower is not None:
                    ended = min(ended, self.began_at(follower))
                before_s = max(0.0, self.began_at(beat) - since)
                if not is_start_billed:
                    since, before_s = since + before_s, 0.0
                lives.append(_BilledLife(beat, before_s, max(0.0, ended - since)))
                since = max(since, ended)
            if not beats and is_start_billed:
                lives.append(_BilledLife(None, 0.0, max(0.0, until.timestamp() - since)))
        return lives


def _account(beat: Heartbeat | None) -> WorkerSeconds | None:
    """A GPU worker's own account; the share of error rows is of no use to anybody."""
    if beat is None:
        return None
    if not (beat.items_failed and beat.items_done):
        return beat.seconds
    failed_s = beat.seconds.working * beat.items_failed / beat.items_done
    return replace(beat.seconds, quarantined=beat.seconds.quarantined + failed_s)
