"""Whether the forecast's ranges hold: 500 campaigns in worlds of families that the forecaster does not know.

`python -m tests.bench.forecast [campaigns]`. For each world the forecaster gets what an earlier campaign measured
there; then the campaign happens. One who knows the world, but not its chance, gives the width to compare with.
"""

import random
import sys
from dataclasses import replace
from functools import partial
from multiprocessing import Pool
from statistics import median

from gpu_jobs.forecast.forecast import MIX, Range, chunk_weights, forecast, quantile_range
from gpu_jobs.forecast.simulator import Truth, Work, simulate
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Policy
from tests.bench.families import FAMILIES, Family, measured
from tests.bench.routing import offer_of
from tests.bench.rows import report
from tests.bench.scenarios import THREE_CLOUDS

SEED = 50_000
"""Not used in tuning."""
NUM_SIMULATED = 30
COVERAGE, MOST_WIDTH = (0.85, 0.95), 2.0
WORK = Work(num_chunks=240, items_per_chunk=20, item_s=1.0, weight=chunk_weights())
POLICY = Policy(platforms=(), max_workers=16, objective="balanced", is_canary_first=False, job_hours=6.0)


def offers() -> list[Offer]:
    """Two platforms: enough to choose from, few enough to simulate often."""
    return [offer_of(cloud, THREE_CLOUDS) for cloud in THREE_CLOUDS.clouds if cloud.platform != "cloud_run"]


def one(family: Family, seed: int) -> tuple[tuple[Range, float, Range], tuple[Range, float, Range]]:
    """Of dollars and of seconds: the forecast, the outcome, and the range of one who knows the world."""
    rng = random.Random(seed)
    scale = 1 / 9.0  # items of nine seconds
    rented = offers()
    truths = [_slowed(truth, scale) for truth in family.make(rented, rng)]
    samples = measured(truths, rng)
    told = forecast(WORK, rented, POLICY, samples, num_campaigns=NUM_SIMULATED, seed=seed * 1000, ways=[MIX]).way(MIX)
    evidence = {key: each.evidence for key, each in samples.items()}
    really = [
        simulate(WORK, truths, POLICY, seed * 1000 + number, offers=rented, evidence=evidence, tick_s=30.0)
        for number in range(NUM_SIMULATED)
    ]
    happened = simulate(WORK, truths, POLICY, seed * 7 + 3, offers=rented, evidence=evidence, tick_s=30.0)
    usd = told.usd, happened.usd, quantile_range([each.usd for each in really])
    time = told.finish_s, happened.finish_s, quantile_range([each.finish_s for each in really])
    return usd, time


def _slowed(truth: Truth, scale: float) -> Truth:
    return replace(truth, speed=lambda rng: scale * truth.speed(rng))


def main(num_campaigns: int) -> None:
    count = -(-num_campaigns // len(FAMILIES))
    for family in FAMILIES:
        with Pool() as processes:
            found = processes.map(partial(one, family), range(SEED, SEED + count), chunksize=4)
        for what, at in (("dollars", 0), ("time", 1)):
            rows = [each[at] for each in found]
            held = sum(told.holds(value) for told, value, _ in rows) / count
            wider = median((told.high - told.low) / max(1e-9, true.high - true.low) for told, _, true in rows)
            report("forecast", f"{family.name}: {what}, outcomes within the 90 % range", held, "share")
            report(
                "forecast", f"{family.name}: {what}, median width against one who knows the world", wider, "ratio",
                anchor="a forecaster that knows the truth", ratio=wider,
            )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
