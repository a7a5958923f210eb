"""What `decide` gets to know of GPU jobs that are over and of chunks in hand. Pure."""

from collections.abc import Container, Mapping

from gpu_jobs.dispatch import LeaseView, OrderEnd
from gpu_jobs.ledger.journal import Ended, Ordered
from gpu_jobs.ledger.open_chunks import Lease
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.telemetry.workers import Lives


def order_end(lives: Lives, ordered: Ordered, end: Ended) -> OrderEnd:
    """One GPU job that is over, for `decide`."""
    return OrderEnd(
        offer=ordered.order.offer,
        num_workers=ordered.order.num_workers,
        at=end.at,
        items_done=end.items_done + end.checkpoints,
        failure=end.failure,
        is_stopped=end.reason.startswith("stopped") and end.failure is None,
        message=f"{end.reason} {lives.why_over(end.order)}".strip(),
    )


def lease_views(
    lives: Lives, orders: Mapping[str, Ordered], newest: Mapping[Chunk, Lease], hedged: Container[tuple[str, int]]
) -> list[LeaseView]:
    """The chunks in hand, for `decide`; what is left of each is reckoned by its GPU worker's pace.

    Args:
        lives: whose heartbeats name them.
        orders: all GPU jobs.
        newest: the newest attempt at each chunk, by the last survey.
        hedged: attempts beside which another may begin.
    """
    now = max((lives.seen_at(beat) for beat in lives.all), default=0.0)
    views = []
    for beat in lives.all:
        ordered = orders.get(beat.order)
        if ordered is None or beat.status != "working" or beat.doing:  # a long item is at one place only
            continue
        for chunk in map(Chunk.parse, beat.leases):
            lease = newest.get(chunk)
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
