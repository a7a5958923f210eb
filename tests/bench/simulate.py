"""How fast the simulator is: 100,000 chunks on 1,000 GPU workers, driven by the real `decide`.

`python -m tests.bench.simulate [chunks]`. The anchor is a heap with the same number of events and nothing else.
"""

import heapq
import random
import sys
import time

from gpu_jobs.forecast.simulator import SimulatedWork, as_offered, lognormal, simulate
from gpu_jobs.jobs.orders import Policy
from tests.bench.routing import offer_of
from tests.bench.rows import report
from tests.bench.scenarios import THREE_CLOUDS

TARGET_S = 60.0


def bare_events(count: int) -> float:
    """Return the chunks per second of a heap that only pushes and pops."""
    rng, heap = random.Random(1), [(0.0, number) for number in range(1000)]
    began = time.perf_counter()
    for number in range(count):
        at, _ = heapq.heappop(heap)
        heapq.heappush(heap, (at + rng.random(), number))
    return count / (time.perf_counter() - began)


def main(num_chunks: int) -> None:
    anchor = bare_events(num_chunks)
    behaviours = [as_offered(offer_of(cloud, THREE_CLOUDS)) for cloud in THREE_CLOUDS.clouds]
    work = SimulatedWork(num_chunks=num_chunks, items_per_chunk=20, item_s=3.0, weight=lognormal(1.0, 1.5))
    policy = Policy(platforms=(), max_workers=1000, objective="fastest", job_hours=24.0)
    began = time.perf_counter()
    outcome = simulate(work, behaviours, policy, 1)
    took_s = time.perf_counter() - began
    assert outcome.is_complete, outcome.closed
    report(
        "simulate",
        f"{num_chunks} chunks on 1000 GPU workers: simulations per minute",
        60 / took_s,
        "times",
        target=1.0,
    )
    pace = num_chunks / took_s
    report("simulate", "chunks a second", pace, "chunks/s", anchor="bare heap events", ratio=pace / anchor)
    report("simulate", "virtual seconds for one real one", outcome.finish_s / took_s, "times")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
