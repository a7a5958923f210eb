"""How much of plain torchrun's speed is left when a GPU worker does the same training.

Run as `OMP_WAIT_POLICY=PASSIVE python -m tests.bench.fine_tuning [rounds]`. Two processes on the CPU, a small random
Llama, checkpoints every 50 steps; plain torchrun writes them to the disk, the GPU worker also stores them.
"""

import hashlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.workloads.training.gang import Gang
from gpu_jobs.workloads.training.gang_files import GangSpec, read_outcome
from gpu_jobs.workloads.training.prepared import fetch
from gpu_jobs.workloads.training.settings import TrainingParams, split_batch
from tests.bench.rows import report

PROCESSES, BLOCK, STEPS = 2, 128, 150
TARGET_RATIO = 0.97
SETTINGS: dict[str, Any] = {"method": "full", "batch": 8, "steps": STEPS, "save_steps": 50, "eval_steps": STEPS}


def write_model(folder: Path) -> str:
    """About 3 million parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=BLOCK, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def write_data(folder: Path) -> str:
    """Random tokens: speed does not depend on what they say."""
    chance = random.Random(0)
    splits = ["train"] * 400 + ["validation"] * 8
    tokens = pl.Series("tokens", [[chance.randrange(2, 512) for _ in range(BLOCK)] for _ in splits])
    (folder / "outputs").mkdir(parents=True)
    (folder / "manifests").mkdir()
    part = folder / "outputs" / "part.parquet"
    pl.DataFrame({"split": splits}).with_columns(tokens.cast(pl.List(pl.Int32))).write_parquet(part)
    sha256 = hashlib.sha256(part.read_bytes()).hexdigest()
    manifest = folder / "manifests" / f"{sha256}.json"
    manifest.write_text(json.dumps({"outputs": [{"key": "outputs/part.parquet", "sha256": sha256}]}))
    return str(manifest)


def plain_torchrun(model: str, data: str, out: Path) -> float:
    """Steps per second of the same script, started by hand."""
    out.mkdir()
    params = TrainingParams(model=model, **SETTINGS)
    shares = split_batch(params.batch, PROCESSES, params.batch)
    job = GangSpec(
        params=params, model_folder=model, data_folder=str(fetch(data).folder), out=str(out), resume_from="",
        device="cpu", precision="fp32", micro_batch=shares.micro_batch, accumulation=shares.accumulation,
        gradient_checkpointing=False, watched_pid=os.getpid(),
    )  # fmt: skip
    gang = Gang(job, PROCESSES)
    gang.wait()
    outcome = read_outcome(out)
    assert outcome is not None
    return steps_per_s(outcome.log)


def gpu_worker(model: str, data: str, folder: Path) -> float:
    """Steps per second of the same training as an item of a campaign."""
    folder.mkdir()
    table = folder / "trainings.jsonl"
    table.write_text('{"id": "training"}\n')
    spec = CampaignSpec(
        store_root=str(folder / "store"),
        dataset=str(table),
        workload="fine_tune",
        params={"model": model, "data": data, **SETTINGS},
    )
    policy = Policy(max_workers=1)
    campaign = open_campaign(spec, policy)
    for _ in campaign.run(policy):
        pass
    assert collect(campaign.store, campaign.plan).num_committed == 1
    return steps_per_s(campaign.outputs().collect()["curve"][0].to_list())


def steps_per_s(curve: Sequence[dict[str, Any]]) -> float:
    """Without the first step, which warms up."""
    rates = [row["tokens_per_s"] for row in curve if row.get("tokens_per_s")][1:]
    seconds = sum(1 / rate for rate in rates) * SETTINGS["batch"] * BLOCK
    return len(rates) / seconds


def main(rounds: int) -> None:
    """Both in turns, so that they see the same machine; the medians are compared."""
    plain, ours = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FANFOLD_MODEL_CACHE"], os.environ["FANFOLD_GANG_SIZE"] = str(folder / "cache"), str(PROCESSES)
        model, data = write_model(folder / "model"), write_data(folder / "data")
        for number in range(rounds):
            plain.append(plain_torchrun(model, data, folder / f"plain-{number}"))
            ours.append(gpu_worker(model, data, folder / f"ours-{number}"))
    anchor, ratio = f"plain torchrun, {PROCESSES} processes", median(ours) / median(plain)
    report("fine_tuning", f"{anchor}, median of {rounds}", median(plain), "steps/s")
    report("fine_tuning", "one GPU worker", median(ours), "steps/s", anchor=anchor, ratio=ratio)
    report(
        "fine_tuning", f"one GPU worker, median of {rounds}", ratio, "ratio", anchor=anchor, ratio=ratio,
        target=TARGET_RATIO,
    )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
