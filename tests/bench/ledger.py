"""How fast the ledger is: 10,000 no-op chunks of one item, done by 2 local GPU workers, durable, in a local folder.

`python -m tests.bench.ledger [chunks]`. The anchor is `ProcessPoolExecutor.submit` with two processes, in memory, in
the same run. "at work" is the time from the first lease to the last settlement, by the store's timestamps; "in all" is
the time of the call to `run`, including the start of the processes.
"""

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import polars as pl

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.workloads.noop import value_of
from tests.bench.rows import report

TARGET_CHUNKS_PER_S = 2000


def pool_chunks_per_s(num_chunks: int) -> float:
    """Return the chunks per second of the same no-op as tasks of a process pool."""
    with ProcessPoolExecutor(2) as pool:
        pool.submit(value_of, "warm").result()
        began = time.perf_counter()
        for future in [pool.submit(value_of, f"item-{index}") for index in range(num_chunks)]:
            future.result()
        return num_chunks / (time.perf_counter() - began)


def prepared(folder: Path, num_chunks: int, policy: Policy) -> Campaign:
    """Return a campaign with one chunk per item."""
    table = folder / "items.parquet"
    pl.DataFrame({"id": [f"item-{index}" for index in range(num_chunks)]}).write_parquet(table)
    spec = CampaignSpec(store_root=str(folder), dataset=str(table), workload="noop", chunk_weight=1)
    return open_campaign(spec, policy)


def main(num_chunks: int) -> None:
    policy = Policy(max_workers=2)
    anchor = pool_chunks_per_s(num_chunks)
    report("ledger", "ProcessPoolExecutor.submit, 2 processes, in memory", anchor, "chunks/s")
    with tempfile.TemporaryDirectory() as folder:
        campaign = prepared(Path(folder), num_chunks, policy)
        began = time.perf_counter()
        for _ in campaign.run(policy, tick_s=0.5):
            pass
        whole_s = time.perf_counter() - began
        leased = min(entry.stored_at for entry in campaign.store.list(keys.ATTEMPTS))
        settled = max(entry.stored_at for entry in campaign.store.list(keys.SETTLED))
        began = time.perf_counter()
        manifest = collect(campaign.store, campaign.plan)
        collect_s = time.perf_counter() - began
        assert manifest.num_committed == num_chunks, manifest
    at_work = num_chunks / (settled - leased)
    pool = "ProcessPoolExecutor.submit"
    report(
        "ledger", "2 GPU workers, at work", at_work, "chunks/s", anchor=pool, ratio=at_work / anchor,
        target=TARGET_CHUNKS_PER_S,
    )  # fmt: skip
    in_all = num_chunks / whole_s
    report("ledger", "2 GPU workers, in all", in_all, "chunks/s", anchor=pool, ratio=in_all / anchor)
    report("ledger", "collect: audit and publish", num_chunks / collect_s, "chunks/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
