"""Small sweeps on real GPU worker processes: prepared data, a campaign, its outcome."""

import hashlib
import io
import json
import random
from pathlib import Path

import polars as pl

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.store import open_store

BLOCK = 32
SHORT = {"method": "lora", "lora_dropout": 0.1, "batch": 8, "steps": 12, "save_steps": 4, "eval_steps": 6}


def write_prepared(root: Path | str, *, num_train: int = 200, num_validation: int = 16) -> str:
    """Blocks that follow a rule, so that there is something to learn; the address of their manifest.

    `root`: a folder or `gs://bucket/prefix`.
    """
    chance = random.Random(0)

    def block() -> list[int]:
        start, step = chance.randrange(2, 100), chance.randrange(1, 4)
        return [2 + (start + step * place) % 250 for place in range(BLOCK)]

    splits = ["train"] * num_train + ["validation"] * num_validation
    tokens = pl.Series("tokens", [block() for _ in splits], dtype=pl.List(pl.Int32))
    buffer = io.BytesIO()
    pl.DataFrame({"split": splits}).with_columns(tokens).write_parquet(buffer)
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    body = json.dumps({"outputs": [{"key": "outputs/part-0.parquet", "sha256": sha256}]}).encode()
    manifest = f"manifests/{hashlib.sha256(body).hexdigest()}.json"
    store = open_store(f"{root}/prepared")
    store.create("outputs/part-0.parquet", buffer.getvalue())
    store.create(manifest, body)
    return f"{store.uri}/{manifest}"


def open_sweep(root: Path | str, policy, runs, *, name: str = "sweep", **params) -> Campaign:
    """`runs`: one row per training, its id and in which hyperparameters it differs. `root`: as above."""
    open_store(str(root)).create(f"{name}.jsonl", pl.DataFrame(runs).write_ndjson().encode())
    spec = CampaignSpec(
        store_root=f"{root}/store", dataset=f"{root}/{name}.jsonl", workload="fine_tune", params=params, name=name
    )
    return open_campaign(spec, policy)


def steps_told(campaign: Campaign) -> int:
    """The step that a GPU worker was at, by its heartbeat; 0 if it does not train."""
    told = [beat.doing for beat, _ in campaign.ledger.heartbeats() if beat.doing.startswith("step ")]
    return max((int(words.split()[1]) for words in told), default=0)
