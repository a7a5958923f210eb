"""Whether other machines would have cost less, judged by what GPU workers measured. Pure."""

from collections.abc import Iterable

from gpu_jobs.jobs.offers import Offer
from gpu_jobs.ledger.journal import JournalState
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.telemetry.workers import GpuWorkers

_LITTLE = 0.5
"""If the model, or the GPU, is busy for less than this share of the time, it counts as little used."""
_LEAST_WORK_S = 60.0
"""With fewer seconds of work by GPU workers than this, there is no advice."""


def advice_by_offer(journal: JournalState, workers: GpuWorkers) -> list[str]:
    """What would have cost less: at most one line for each offer whose machines cost money."""
    beats: dict[Offer, list[Heartbeat]] = {}
    for name, ordered in journal.orders.items():
        beats.setdefault(ordered.order.offer, []).extend(worker.heartbeat for worker in workers.of(name))
    lines = {
        f"{offer.platform}, {offer.machine}: {sentence}"
        for offer, found in beats.items()
        if offer.usd_per_hour and (sentence := advice(found, offer.gpu_memory_gib))
    }
    return sorted(lines)


def advice(beats: Iterable[Heartbeat], gpu_memory_gib: float) -> str:
    """One sentence of advice with the measured use; "" if too little was measured or nothing better is known.

    Args:
        beats: the last heartbeats of GPU workers on one offer.
        gpu_memory_gib: memory of one of its GPUs; 0: unknown.
    """
    known = [beat for beat in beats if beat.seconds.working > 0]
    working_s = sum(beat.seconds.working for beat in known)
    if working_s < _LEAST_WORK_S:
        return ""
    in_model = sum(beat.seconds.infer for beat in known) / working_s
    if in_model < _LITTLE:
        return f"More CPU would have cost less: the model waited for its input {1 - in_model:.0%} of the working time."
    uses = [beat.gpu_use for beat in known if beat.gpu_use is not None]
    busy = [use.busy_share for use in uses if use.busy_share is not None]
    if not busy or sum(busy) / len(busy) >= _LITTLE:
        return ""
    used = max((use.memory_gib or 0.0 for use in uses), default=0.0)
    use_words = f"the GPU was busy {sum(busy) / len(busy):.0%} of the time"
    if gpu_memory_gib and used and 2 * used <= gpu_memory_gib:
        return (
            f"A smaller GPU, or more processes for each, would have cost less: {use_words}, with {used:.1f} GiB in use."
        )
    return f"A smaller GPU would have cost less: {use_words}."
