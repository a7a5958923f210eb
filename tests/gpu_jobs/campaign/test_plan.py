"""What a campaign is called, and what it takes in."""

from datetime import UTC, datetime
from typing import ClassVar

import polars as pl
import pytest

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.chunk_size import ChunkingLimits, first_chunk_boundaries
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.manifest import read_output
from gpu_jobs.campaign.plan import CampaignSpec, split
from gpu_jobs.dataset.sources import Source
from gpu_jobs.errors import NothingNewError, RefusedError
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger.items import ItemsReader
from gpu_jobs.ledger.records import Attempt, Settlement
from gpu_jobs.ledger.rows import ERROR, encode, failed_items, item_rows, schema
from gpu_jobs.testing import an_offer
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.noop import Noop, value_of

POLICY = Policy()


def spec_of(tmp_path, ids, **changes) -> CampaignSpec:
    table = tmp_path / "items.parquet"
    pl.DataFrame({"id": ids}).write_parquet(table)
    return CampaignSpec(store_root=str(tmp_path / "store"), dataset=str(table), workload="noop", **changes)


def settle_all(campaign, *, failed=()):
    """Do every chunk by hand; items of `failed` become error rows."""
    reader = ItemsReader(campaign.store, campaign.plan)
    for start, stop in zip(campaign.plan.chunk_boundaries, campaign.plan.chunk_boundaries[1:], strict=False):
        chunk = type(campaign.plan.items[0].range)(start, stop)
        attempt = Attempt(chunk=chunk, number=1, worker_id="by-hand", follows="")
        found = []
        for index, item in zip(range(start, stop), reader.read(chunk), strict=True):
            name = item["item"]
            rows = item_rows(index, name, [{"value": value_of(name)}])
            if name in failed:
                rows = [{"item_index": index, "item": name, "outcome": ERROR, "error": "no"}]
            found += rows
        frame = pl.DataFrame(found, schema=schema({"value": pl.Int64}))
        campaign.ledger.begin(attempt)
        body = encode(frame)
        tile = campaign.ledger.write_part(attempt, chunk, body, len(failed_items(body)))
        campaign.ledger.settle(Settlement(chunk=chunk, attempt=1, worker_id="by-hand", tiles=(tile,)))
    return collect(campaign.store, campaign.plan)


def items_of(campaign) -> list[str]:
    manifest = settle_all(campaign)
    return pl.concat([read_output(campaign.store, file) for file in manifest.outputs])["item"].to_list()


def night(number: int) -> datetime:
    return datetime(2026, 11, number, 2, tzinfo=UTC)


def test_the_default_name_comes_from_parameters_and_listing(tmp_path):
    """The same request finds the same campaign; another parameter or dataset makes another."""
    first = open_campaign(spec_of(tmp_path, ["a", "b"]), POLICY)
    again = open_campaign(spec_of(tmp_path, ["a", "b"]), POLICY)
    other = open_campaign(spec_of(tmp_path, ["a", "b"], params={"rows_per_item": 2}), POLICY)
    longer = open_campaign(spec_of(tmp_path, ["a", "b", "c"]), POLICY)

    assert first.store.uri == again.store.uri
    assert len({first.store.uri, other.store.uri, longer.store.uri}) == 3


def test_a_nightly_campaign_takes_only_what_no_earlier_night_committed(tmp_path):
    """Over three nights of a growing table; an item that failed is tried again."""
    nightly = {"name": "nightly-{date}", "only_new": True}
    first = open_campaign(spec_of(tmp_path, ["a", "b"], scheduled_for=night(1), **nightly), POLICY)
    settle_all(first)
    second = open_campaign(spec_of(tmp_path, ["a", "b", "c"], scheduled_for=night(2), **nightly), POLICY)
    assert items_of(second) == ["c"]
    third = open_campaign(spec_of(tmp_path, ["a", "b", "c", "d", "e"], scheduled_for=night(3), **nightly), POLICY)

    assert first.store.uri.endswith("/nightly-2026-11-01")
    assert items_of(third) == ["d", "e"]
    with pytest.raises(NothingNewError):
        open_campaign(spec_of(tmp_path, ["a", "b", "c", "d", "e"], scheduled_for=night(4), **nightly), POLICY)


def test_an_item_with_an_error_row_is_new_again_the_next_night(tmp_path):
    """It was not committed with a result."""
    nightly = {"name": "nightly-{date}", "only_new": True}
    first = open_campaign(spec_of(tmp_path, ["a", "b"], scheduled_for=night(1), **nightly), POLICY)
    settle_all(first, failed={"b"})

    second = open_campaign(spec_of(tmp_path, ["a", "b"], scheduled_for=night(2), **nightly), POLICY)

    assert items_of(second) == ["b"]


class Halves(Noop):
    """Two items of each source, which it notes as read."""

    source_column = "source"
    read: ClassVar[list[str]] = []

    def items(self, sources):
        for source in sources:
            self.read.append(source.id)
            for half in "12":
                yield {"item": source.id + half, "weight": 1.0, "fingerprint": "x", "source": source.id}


def test_source_that_is_done_is_not_read_again(tmp_path, monkeypatch):
    """One with a failed item is, and one that other parameters were used for."""
    monkeypatch.setattr(
        "gpu_jobs.campaign.plan.read_sources",
        lambda dataset, **_: [Source(id=one, uri="", fingerprint="x", columns={}) for one in dataset],
    )

    def open_night(number, dataset, **params):
        Halves.read.clear()
        spec = CampaignSpec(
            store_root=str(tmp_path),
            dataset=dataset,
            workload=f"{__name__}:Halves",
            params=params,
            name="nightly-{date}",
            scheduled_for=night(number),
            only_new=True,
        )
        return open_campaign(spec, POLICY)

    settle_all(open_night(1, ["a", "b"]), failed={"b2"})
    second = open_night(2, ["a", "b", "c"])
    assert Halves.read == ["b", "c"]
    assert items_of(second) == ["b2", "c1", "c2"]
    with pytest.raises(NothingNewError):
        open_night(3, ["a", "b", "c"])
    assert Halves.read == []
    with pytest.raises(NothingNewError):
        open_night(3, ["a", "b", "c"], rows_per_item=2)
    assert Halves.read == ["a", "b", "c"]


def test_only_new_needs_a_date_in_the_name(tmp_path):
    """By which else would earlier campaigns be found?"""
    with pytest.raises(RefusedError, match=r"^only_new: it needs a name with \{date\}"):
        open_campaign(spec_of(tmp_path, ["a"], name="fixed", only_new=True), POLICY)


@pytest.mark.parametrize("name", ["Upper", "sp ace", "-dash", "a/b", ""])
def test_a_name_that_no_folder_should_have_is_refused(tmp_path, name):
    """Names are folders of the store root, and travel in GPU jobs' names; an empty one is chosen for you."""
    if not name:
        assert open_campaign(spec_of(tmp_path, ["a"]), POLICY).store.uri
        return
    with pytest.raises(RefusedError, match=r"^name: "):
        open_campaign(spec_of(tmp_path, ["a"], name=name), POLICY)


def test_the_chunk_size_is_explained(tmp_path):
    """In words, with the number of chunks and why there are so many."""
    asked = open_campaign(spec_of(tmp_path, list("abcdef"), chunk_weight=2), POLICY).plan
    chosen = open_campaign(spec_of(tmp_path, [f"i{n}" for n in range(64)]), POLICY).plan
    few = open_campaign(spec_of(tmp_path, list("abc")), POLICY).plan

    assert asked.chunk_reason == "3 chunks of about 2 weight each: 2 was requested"
    assert chosen.chunk_reason.startswith("16 chunks of about 4 weight each: 8 for each of 2 GPU workers")
    assert "fewer than 8 for each of 2 GPU workers" in few.chunk_reason


SOON = an_offer(platform="soon", cold_start_p50_s=20.0)
CAPPED = an_offer(platform="capped", cold_start_p50_s=120.0, cold_start_p90_s=300.0, max_hours=1.0, speed=0.5)


@pytest.mark.parametrize(
    ("pace", "num_chunks", "why"),
    [
        (None, 80, "8 for each of 10 GPU workers, so that all finish at about the same time"),
        (1.0, 160, "16 for each of 10 GPU workers, so that all finish at about the same time"),
        (50.0, 16, "20 s of work, so that each is worth the shortest cold start"),
        (0.02, 970, "13 min 45 s of work, a quarter of a GPU worker's longest lifetime"),
    ],
)
def test_chunks_are_worth_a_cold_start_and_end_before_their_gpu_worker_has_to(tmp_path, pace, num_chunks, why):
    """By the pace of earlier campaigns, on the slowest GPU workers that are available."""
    limits = ChunkingLimits(max_workers=10, offers=[SOON, CAPPED], pace=lambda _: pace)

    _, plan = split(spec_of(tmp_path, list(map(str, range(8000)))), limits)

    assert plan.chunk_reason.endswith(f" weight each: {why}")
    assert len(plan.chunk_boundaries) - 1 == pytest.approx(num_chunks, rel=0.01)


def test_chunks_are_no_smaller_than_what_the_workload_takes_together(tmp_path):
    """But there is one for each GPU worker that is allowed."""

    def chunks(num_items, workers):
        weights = [1.0] * num_items
        limits = ChunkingLimits(max_workers=workers)
        boundaries, why = first_chunk_boundaries(weights, load_workload("prepare", {}), limits)
        return len(boundaries) - 1, why.partition(": ")[2]

    assert chunks(2560, 2) == (10, "a batch of 256 items, or one for each of 2 GPU workers")
    assert chunks(256, 4) == (4, "a batch of 256 items, or one for each of 4 GPU workers")
    assert chunks(256_000, 2) == (16, "8 for each of 2 GPU workers, so that all finish at about the same time")
