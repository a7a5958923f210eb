"""Whole campaigns of text workloads, on real GPU worker processes: the same rows whatever happens on the way."""

import json
import signal
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.dataset.sources import read_sources
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Committed
from gpu_jobs.report import write_report
from gpu_jobs.workloads import load_workload
from tests.chaos.havoc import finish, gpu_workers, rows_of, wait_for
from tests.gpu_jobs.workloads.tiny_models import write_llama

SLOW = "tests.gpu_jobs.workloads.text.slow_texts"
PLATFORMS = ["local"]
"""A cloud's emulator is one more name here, with its store and surroundings in `place`."""
NUM_TEXTS = 100
TEXTS = [f"text {number}: {'so it goes on and on ' * (number * 7 % 5)}"[:100] for number in range(NUM_TEXTS)]


@pytest.fixture(params=PLATFORMS)
def place(request, tmp_path):
    """Platform and store root."""
    return request.param, str(tmp_path / "store")


@pytest.fixture
def opened(place, tmp_path):
    """Open a campaign over the texts; the same name resumes it."""
    platform, store_root = place
    table = tmp_path / "texts.parquet"
    pl.DataFrame({"id": [f"item-{n:03}" for n in range(NUM_TEXTS)], "text": TEXTS}).write_parquet(table)
    policy = Policy(platforms=(platform,), max_workers=2, heartbeat_s=0.3, lease_timeout_s=3, part_s=0.2)

    def open_it(workload, name, num_chunks, **params):
        items = load_workload(workload, params).items(read_sources(str(table)))
        spec = CampaignSpec(
            store_root=store_root,
            dataset=str(table),
            workload=workload,
            params=params,
            name=name,
            chunk_weight=sum(item["weight"] for item in items) / num_chunks,
        )
        return open_campaign(spec, policy), policy

    return open_it


def kill_after(campaign, policy, num_parts, signum):
    """Run a campaign until it has so many parts, then signal every GPU worker and walk away."""
    kill_when(lambda: len(list(campaign.store.list("parts/"))) >= num_parts, campaign, policy, signum)


def kill_when(is_time, campaign, policy, signum):
    turns = campaign.run(policy, tick_s=0.1)
    for _ in turns:
        if is_time():
            break
    workers = gpu_workers(campaign)
    for process in workers:
        process.send_signal(signum)
    wait_for(lambda: not gpu_workers(campaign))
    turns.close()


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0, 1])
def test_answers_are_the_same_in_one_chunk_in_fifty_and_after_kills(opened, llama, temperature):
    """Greedy and drawn: each item's text is its own, whatever it was computed with and however often."""
    asked = {"model": llama, "max_new_tokens": 8, "temperature": temperature}
    one, policy = opened("generate", "one", 1, **asked)
    fifty, _ = opened("generate", "fifty", 50, **asked)
    killed, _ = opened(f"{SLOW}:SlowGenerate", "killed", 25, **asked)
    kill_after(killed, policy, 2, signal.SIGKILL)
    assert killed.status().items_left > 0

    expected, *others = (rows_of(each, finish(each, policy)) for each in (one, fifty, killed))

    assert expected.height == NUM_TEXTS
    assert len(one.plan.chunk_boundaries) == 2
    assert len(fifty.plan.chunk_boundaries) > 40
    assert expected["text"].n_unique() > 1
    for found in others:
        assert found.rows() == expected.rows()


@pytest.mark.slow
def test_vectors_are_the_same_in_one_chunk_and_in_fifty(opened, bert):
    """To the fifth digit: what else is in a batch moves the last bits."""
    one, policy = opened("embed", "one", 1, model=bert)
    fifty, _ = opened("embed", "fifty", 50, model=bert)

    first, second = (rows_of(each, finish(each, policy)) for each in (one, fifty))

    assert first["item"].to_list() == second["item"].to_list() == [f"item-{n:03}" for n in range(NUM_TEXTS)]
    vectors = [np.array(frame["embedding"].to_list()) for frame in (first, second)]
    np.testing.assert_allclose(*vectors, atol=1e-5)


@pytest.mark.slow
def test_a_stopped_gpu_worker_keeps_all_windows_but_the_one_at_work(opened, bert, tmp_path):
    """SIGTERM in the middle: what is committed is whole windows, and at most one that was computed is missing."""
    diary = tmp_path / "diary"
    diary.mkdir()
    campaign, policy = opened(f"{SLOW}:SlowEmbed", "stopped", 1, model=bert, window=4, diary=str(diary))
    kill_after(campaign, policy, 3, signal.SIGTERM)

    settled = [campaign.ledger.settlement(chunk) for chunk in [Chunk(0, NUM_TEXTS)]]
    committed = [tile.range for tile in settled[0].tiles if isinstance(tile, Committed)]
    kept = sum(each.num_items for each in committed)
    assert all(each.start % 4 == 0 and each.num_items % 4 == 0 for each in committed)
    computed = sum(int(line.split()[1]) for line in diary_lines(diary) if line.startswith("window"))
    assert computed - 4 <= kept <= computed
    assert kept > 0

    rows = rows_of(campaign, finish(campaign, policy))
    assert rows["item"].to_list() == [f"item-{n:03}" for n in range(NUM_TEXTS)]


def diary_lines(diary):
    return [path.read_text() for path in sorted(diary.iterdir())]


@pytest.mark.slow
def test_out_of_memory_makes_batches_smaller_and_others_and_later_ones_know_it(opened, bert, tmp_path):
    """Memory holds 120 padded tokens. The first GPU workers find out and are killed; those after them know it from
    their heartbeats, and the next campaign from what the last ones have kept."""
    diary = tmp_path / "diary"
    diary.mkdir()
    asked = {"model": bert, "window": 25, "window_s": 0.5, "diary": str(diary), "fits": 120, "first_size": 512}
    campaign, policy = opened(f"{SLOW}:SlowEmbed", "memory", 10, **asked)
    has_learned = lambda: any(beat.batch_size for beat, _ in campaign.ledger.heartbeats())  # noqa: E731
    kill_when(has_learned, campaign, policy, signal.SIGKILL)
    assert not list((tmp_path / "store" / "_learned").glob("*"))
    assert any(line.startswith("out of memory at 512") for line in diary_lines(diary))
    before = len(diary_lines(diary))

    manifest = finish(campaign, policy)

    later = diary_lines(diary)[before:]
    sizes = {line for line in later if line.startswith("size")}
    assert sizes
    assert not any(line.startswith("out of memory") for line in later), later
    assert manifest.num_quarantined == 0
    assert rows_of(campaign, manifest).height == NUM_TEXTS

    next_one, _ = opened(f"{SLOW}:SlowEmbed", "next", 2, **asked)
    before = len(diary_lines(diary))
    finish(next_one, policy)
    assert not any(line.startswith("out of memory") for line in diary_lines(diary)[before:])


def test_the_manifest_tells_what_the_rows_depend_on(opened, bert):
    campaign, policy = opened("embed", "facts", 1, model=bert)

    manifest = finish(campaign, replace(policy, max_workers=1))

    facts = manifest.facts
    assert facts["device"] == ["cpu"]
    assert facts["pooling"] == ["mean"]
    assert json.dumps(facts["precision"]).count("fp32: the fastest here") >= 1
    write_report(campaign, manifest)
    assert "fp32: the fastest here" in campaign.store.get("report.html").decode()


@pytest.mark.slow
def test_a_draft_model_answers_the_first_items_and_none_of_it_is_in_the_outputs(opened, llama, tmp_path):
    """Its answers are in preview/ and in the report; the rows are those of a campaign without it."""
    draft = write_llama(tmp_path / "draft", seed=1)
    asked = {"model": llama, "max_new_tokens": 8}
    plain, policy = opened("generate", "plain", 2, **asked)
    asked |= {"draft_model": draft, "loads_until": str(tmp_path / "store" / "drafted" / keys.PREVIEW)}
    drafted, _ = opened(f"{SLOW}:SlowGenerate", "drafted", 25, **asked)

    expected, found = (rows_of(each, finish(each, policy)) for each in (plain, drafted))

    assert found.rows() == expected.rows()
    preview = drafted.preview()
    assert preview["item"].to_list() == [f"item-{n:03}" for n in range(16)]
    assert preview["text"].to_list() != expected["text"].to_list()[:16]
    assert plain.preview() is None
    write_report(drafted, collect(drafted.store, drafted.plan))
    page = drafted.store.get("report.html").decode()
    assert "not in the outputs" in page


def test_a_draft_model_that_cannot_be_loaded_costs_nothing(opened, llama, tmp_path):
    """No preview, all rows, and one line in the log instead of a traceback."""
    campaign, policy = opened("generate", "undrafted", 1, model=llama, max_new_tokens=2, draft_model="org/nothing")

    rows = rows_of(campaign, finish(campaign, policy))

    assert rows.height == NUM_TEXTS
    assert campaign.preview() is None
    told = "".join(path.read_text() for path in (tmp_path / "logs").rglob("*.log"))
    assert "no preview: WorkloadImportError: model 'org/nothing' is no folder here" in told
    assert "Traceback" not in told
