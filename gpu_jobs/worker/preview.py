"""The preview: a small model computes the first items while the full model loads. It is never part of the outputs.

The first GPU worker of a campaign makes it, in a separate process, because two loads in one process would disturb each
other.
"""

import io
import multiprocessing
import os
import sys
import threading

import polars as pl

from gpu_jobs.ledger import keys
from gpu_jobs.ledger.items import ItemsReader
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Plan
from gpu_jobs.store import open_store
from gpu_jobs.worker.outcomes import describe
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.base import BaseWorkload

_SPAWN = multiprocessing.get_context("spawn")


def start_preview(workload: BaseWorkload, campaign_uri: str, plan: Plan, device: str) -> None:
    """Start the preview if the workload wants one and the campaign has none. Its errors do not affect the campaign."""
    if workload.num_previewed and open_store(campaign_uri).get(keys.PREVIEW) is None:
        _SPAWN.Process(target=run, args=(campaign_uri, plan, device), name="preview", daemon=True).start()


def run(campaign_uri: str, plan: Plan, device: str) -> None:
    """Entry point of the preview process."""
    threading.Thread(target=die_with_parent, daemon=True).start()
    try:
        _make(campaign_uri, plan, device)
    except Exception as error:  # noqa: BLE001 - the campaign goes on without a preview
        sys.stdout.write(f"no preview: {describe(error)}\n")


def _make(campaign_uri: str, plan: Plan, device: str) -> None:
    workload, store = load_workload(plan.workload, plan.params), open_store(campaign_uri)
    items = list(ItemsReader(store, plan).read(Chunk(0, min(workload.num_previewed, plan.num_items))))
    rows = workload.preview(items, device)
    buffer = io.BytesIO()
    pl.DataFrame(list(rows), schema={"item": pl.String, **workload.columns}, orient="row").write_parquet(buffer)
    store.create(keys.PREVIEW, buffer.getvalue())


def die_with_parent() -> None:
    """Wait until the parent process ends, then exit this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
