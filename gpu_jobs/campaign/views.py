"""What `decide` is given about GPU jobs that have ended and about chunks in work. Pure."""

from collections.abc import Container

from gpu_jobs.dispatch import LeaseView, OrderEnd
from gpu_jobs.jobs.orders import JobOutcome
from gpu_jobs.ledger.journal import Ended, Ordered
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.telemetry.snapshot import Snapshot
from gpu_jobs.telemetry.workers import GpuWorkers


def order_end(workers: GpuWorkers, ordered: Ordered, end: Ended) -> OrderEnd:
    """Describe one GPU job that has ended."""
    return OrderEnd(
        offer=ordered.order.offer,
        num_workers=ordered.order.num_workers,
        at=end.at,
        items_done=end.items_done + end.checkpoints,
        failure=end.failure,
        is_stopped=end.outcome is JobOutcome.STOPPED and end.failure is None,
        message=f"{end.reason} {workers.reasons(end.order)}".strip(),
    )


def lease_views(snapshot: Snapshot, hedged: Container[tuple[str, int]]) -> list[LeaseView]:
    """Describe the chunks in work; what is left of each is estimated from its GPU worker's pace.

    Args:
        snapshot: must have been read with attempts.
        hedged: attempts beside which a second one is allowed.
    """
    now = max((worker.seen_at for worker in snapshot.workers), default=0.0)
    views = []
    for worker in snapshot.workers:
        beat = worker.heartbeat
        ordered = snapshot.journal.orders.get(beat.order)
        if (
            ordered is None or beat.status != "working" or beat.is_at_long_item
        ):  # a long item is never given to two GPU workers
            continue
        for chunk in map(Chunk.parse, beat.leases):
            lease = snapshot.chunks.leases.get(chunk)
            if lease is None or lease.ended:
                continue
            age_s = max(0.0, now - lease.began_at)
            views.append(
                LeaseView(
                    chunk=chunk.id,
                    offer=ordered.order.offer,
                    items_left=max(1, round(chunk.num_items - beat.items_per_s * age_s)),
                    items_per_s=beat.items_per_s,
                    age_s=age_s,
                    is_hedged=(chunk.id, lease.number) in hedged,
                )
            )
    return views
