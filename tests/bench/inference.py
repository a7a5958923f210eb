"""The speed of a GPU worker that generates or embeds texts, compared with a hand-written loop on the same texts.

Run as `OMP_WAIT_POLICY=PASSIVE python -m tests.bench.inference [rounds]`. Models are pretrained, texts real.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.manifest import read_output
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.workloads.text.demo import DOCSTRINGS, make_demo_texts
from gpu_jobs.workloads.text.encode import DEFAULT_MODEL as ENCODER
from gpu_jobs.workloads.text.generate import DEFAULT_MODEL as LLM
from gpu_jobs.workloads.weights import find_weights
from tests.bench.rows import report

THREADS = 2
TARGET_OF_BEST, TARGET_OF_NAIVE = 0.95, 1.5
NUM_PROMPTS, NEW_TOKENS = 64, 128
EMBED_BATCHES, GENERATE_BATCHES = (16, 32, 64), (16, 32, 64)
PROMPT = "{text}\n\nIn a few words: what is this for?"
ONE_CHUNK = 1e12
Texts = Sequence[str]


def embed_loop(texts: Texts, *, batch: int, is_sorted: bool) -> float:
    """Return texts per second of a hand-written loop: tokenise, pad, mean of the last layer; the model is warm."""
    folder = find_weights(ENCODER).folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def encode(several: Texts) -> None:
        inputs = tokenizer(list(several), padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(2)
        torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).tolist()

    ordered = sorted(texts, key=len, reverse=True) if is_sorted else texts
    return _per_second(encode, ordered, batch, warm_up=texts[:4])


def generate_loop(prompts: Texts, *, batch: int, is_sorted: bool) -> float:
    """Return useful tokens per second of `generate` on left-padded batches, each as long as its longest answer."""
    folder = find_weights(LLM).folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer.padding_side = "left"
    useful = 0

    def answer(several: Texts) -> None:
        nonlocal useful
        chats = [[{"role": "user", "content": text}] for text in several]
        inputs: Any = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        answers = output[:, inputs["input_ids"].shape[1] :]
        useful += int((answers != tokenizer.eos_token_id).sum())

    answer(prompts[:1])
    useful = 0
    ordered = sorted(prompts, key=len, reverse=True) if is_sorted else prompts
    per_s = _per_second(answer, ordered, batch, warm_up=())
    return useful * per_s / len(prompts)


def _per_second(work: Callable[[Texts], None], inputs: Texts, batch: int, warm_up: Texts) -> float:
    torch.set_num_threads(THREADS)
    with torch.inference_mode():
        if warm_up:
            work(warm_up)
        started_at = time.perf_counter()
        for start in range(0, len(inputs), batch):
            work(inputs[start : start + batch])
        return len(inputs) / (time.perf_counter() - started_at)


def gpu_worker(workload: str, params: dict[str, Any], rows: list[dict[str, str]], folder: Path) -> tuple[float, Any]:
    """Return one GPU worker's items per second from its first lease to its last settlement, and its rows."""
    folder.mkdir()
    table = folder / "texts.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = Policy(max_workers=1)
    spec = CampaignSpec(
        store_root=str(folder / "store"),
        dataset=str(table),
        workload=workload,
        params=params,
        chunk_weight=ONE_CHUNK,  # as in a large campaign, where a window never waits for the next lease
    )
    campaign = open_campaign(spec, policy)
    for _ in campaign.run(policy):
        pass
    began = min(entry.stored_at for entry in campaign.store.list(keys.ATTEMPTS))
    ended = max(entry.stored_at for entry in campaign.store.list(keys.SETTLED))
    manifest = collect(campaign.store, campaign.plan)
    return len(rows) / (ended - began), read_output(campaign.store, manifest.outputs[0])


def main(rounds: int) -> None:
    """Run loops and GPU worker in turns, so that all see the same machine; medians of the ratios are compared."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_demo_texts(folder / "texts")
        rows = [json.loads(line) for line in (folder / "texts" / DOCSTRINGS).read_text().splitlines()]
        texts = [row["text"] for row in rows]
        asked = rows[:: len(rows) // NUM_PROMPTS][:NUM_PROMPTS]
        prompts = [PROMPT.replace("{text}", row["text"]) for row in asked]
        embed = max(EMBED_BATCHES, key=lambda batch: embed_loop(texts[:400], batch=batch, is_sorted=True))
        generate = max(GENERATE_BATCHES, key=lambda batch: generate_loop(prompts, batch=batch, is_sorted=True))
        found: dict[str, list[tuple[float, float, float]]] = {"embeddings": [], "tokens": []}
        for number in range(rounds):
            worker, _ = gpu_worker("embed", {}, rows, folder / f"embed-{number}")
            best = embed_loop(texts, batch=embed, is_sorted=True)
            found["embeddings"].append((worker, best, embed_loop(texts, batch=embed, is_sorted=False)))
            params = {"text": PROMPT, "max_new_tokens": NEW_TOKENS}
            per_s, answers = gpu_worker("generate", params, asked, folder / f"generate-{number}")
            worker = per_s * answers["completion_tokens"].sum() / len(asked)
            best = generate_loop(prompts, batch=generate, is_sorted=True)
            found["tokens"].append((worker, best, generate_loop(prompts, batch=generate, is_sorted=False)))
    batches = {"embeddings": embed, "tokens": generate}
    for unit, measured in found.items():
        _report(unit, batches[unit], measured)


def _report(unit: str, batch: int, measured: Sequence[tuple[float, float, float]]) -> None:
    worker, best, naive = (median(column) for column in zip(*measured, strict=True))
    of_best, of_naive = (median(row[0] / row[other] for row in measured) for other in (1, 2))
    sorted_loop = f"hand-written loop, sorted by length, batches of {batch}, {THREADS} threads"
    report("inference", sorted_loop, best, f"{unit}/s")
    report("inference", f"the same, unsorted, median of {len(measured)}", naive, f"{unit}/s")
    report("inference", f"one GPU worker, at work, {unit}", worker, f"{unit}/s", anchor=sorted_loop, ratio=of_best)
    for anchor, ratio, target in (("sorted", of_best, TARGET_OF_BEST), ("unsorted", of_naive, TARGET_OF_NAIVE)):
        report("inference", f"one GPU worker, {unit}", ratio, "ratio", anchor=anchor, ratio=ratio, target=target)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
