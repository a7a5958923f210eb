"""Small sweeps on real GPU worker processes: prepared data, a campaign, its outcome."""

import hashlib
import json
import random
from pathlib import Path

import polars as pl

from gpu_jobs.campaign import Campaign, open_campaign
from gpu_jobs.split import CampaignSpec

BLOCK = 32
SHORT = {"method": "lora", "lora_dropout": 0.1, "batch": 8, "steps": 12, "save_steps": 4, "eval_steps": 6}


def write_prepared(folder: Path, *, num_train: int = 200, num_validation: int = 16) -> str:
    """Blocks that follow a rule, so that there is something to learn; the address of their manifest."""
    chance = random.Random(0)

    def block() -> list[int]:
        start, step = chance.randrange(2, 100), chance.randrange(1, 4)
        return [2 + (start + step * place) % 250 for place in range(BLOCK)]

    splits = ["train"] * num_train + ["validation"] * num_validation
    path = folder / "prepared" / "outputs" / "part-0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    tokens = pl.Series("tokens", [block() for _ in splits], dtype=pl.List(pl.Int32))
    pl.DataFrame({"split": splits}).with_columns(tokens).write_parquet(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    body = json.dumps({"outputs": [{"key": "outputs/part-0.parquet", "sha256": sha256}]})
    name = hashlib.sha256(body.encode()).hexdigest()
    manifest = folder / "prepared" / "manifests" / f"{name}.json"
    manifest.parent.mkdir(exist_ok=True)
    manifest.write_text(body)
    return str(manifest)


def open_sweep(folder: Path, policy, runs, *, name: str = "sweep", **params) -> Campaign:
    """`runs`: one row per training, its id and in which hyperparameters it differs."""
    table = folder / f"{name}.jsonl"
    pl.DataFrame(runs).write_ndjson(table)
    spec = CampaignSpec(
        store_root=str(folder / "store"), dataset=str(table), workload="fine_tune", params=params, name=name
    )
    return open_campaign(spec, policy)


def steps_told(campaign: Campaign) -> int:
    """The step that a GPU worker was at, by its heartbeat; 0 if it does not train."""
    told = [beat.doing for beat, _ in campaign.ledger.heartbeats() if beat.doing.startswith("step ")]
    return max((int(words.split()[1]) for words in told), default=0)
