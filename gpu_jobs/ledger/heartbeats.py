"""Reading heartbeats again and again, at a cost that does not grow with the number of dead GPU workers."""

from dataclasses import dataclass

from gpu_jobs.ledger import keys
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import IN_BODY, Heartbeat
from gpu_jobs.store.base import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedWorker:
    """A GPU worker as a listing of heartbeats shows it."""

    worker_id: str
    order: str
    slot: int
    status: str
    """One of `Heartbeat.status`."""
    leases: tuple[str, ...]
    """Ids of the chunks that the GPU worker holds."""
    batch_size: int
    """The batch size that the workload has learned for `device`; 0: none yet."""
    device: str
    stored_at: float
    """The store's stamp of the last heartbeat."""


class HeartbeatReader:
    """Reads all heartbeats of a campaign. It keeps each until it changes, and for ever if its GPU worker is over.

    Threads may share one reader.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, tuple[Entry, Heartbeat]] = {}

    def read(self) -> list[tuple[Heartbeat, float]]:
        """The last heartbeat of every GPU worker, each with the store's stamp of it.

        This costs one listing, and one read for each heartbeat that is new, several at a time.
        """
        return self._up_to_date(self._listed())

    def workers(self) -> list[ListedWorker]:
        """The same GPU workers from the listing alone; a heartbeat is read only if its summary is not complete."""
        entries = self._listed()
        read = {
            beat.worker_id: beat for beat, _ in self._up_to_date([entry for entry in entries if _is_incomplete(entry)])
        }
        found = []
        for entry in entries:
            worker_id = keys.stem(entry.key)
            if not _is_incomplete(entry):
                found.append(_from_summary(worker_id, entry))
            elif worker_id in read:
                found.append(_from_body(read[worker_id], entry.stored_at))
        return found

    def learned_batch_sizes(self) -> dict[str, int]:
        """The smallest batch size that any GPU worker has learned, by its fact `device`."""
        found: dict[str, int] = {}
        for each in self.workers():
            if each.batch_size and each.device:
                found[each.device] = min(each.batch_size, found.get(each.device, each.batch_size))
        return found

    def _listed(self) -> list[Entry]:
        return list(self._ledger.store.list(keys.WORKERS))

    def _up_to_date(self, entries: list[Entry]) -> list[tuple[Heartbeat, float]]:
        new = {keys.stem(entry.key): entry for entry in entries if not self._is_known(entry)}
        for beat, _ in self._ledger.heartbeats(new.values()):
            self._known[new[beat.worker_id].key] = (new[beat.worker_id], beat)
        known = [self._known[entry.key] for entry in entries if entry.key in self._known]
        return [(beat, entry.stored_at) for entry, beat in known]

    def _is_known(self, entry: Entry) -> bool:
        known = self._known.get(entry.key)
        return known is not None and (known[0] == entry or known[1].status == "over")


def _is_incomplete(entry: Entry) -> bool:
    """True if the summary does not show everything: it did not fit, or the heartbeat is older than summaries."""
    return "status" not in entry.summary or IN_BODY in entry.summary


def _from_summary(worker_id: str, entry: Entry) -> ListedWorker:
    summary = entry.summary
    leases = (lease.split("-") for lease in summary.get("leases", "").split())
    return ListedWorker(
        worker_id=worker_id,
        order=summary["order"],
        slot=int(summary["slot"]),
        status=summary["status"],
        leases=tuple(Chunk(int(start), int(stop)).id for start, stop in leases),
        batch_size=int(summary.get("batch_size", 0)),
        device=summary.get("device", ""),
        stored_at=entry.stored_at,
    )


def _from_body(beat: Heartbeat, stored_at: float) -> ListedWorker:
    return ListedWorker(
        worker_id=beat.worker_id,
        order=beat.order,
        slot=beat.slot,
        status=beat.status,
        leases=beat.leases,
        batch_size=beat.batch_size,
        device=beat.facts.get("device", ""),
        stored_at=stored_at,
    )
