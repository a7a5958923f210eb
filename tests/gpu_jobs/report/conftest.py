"""A campaign made up by hand, and what a browser would make of its report."""

import io
import os
import re
from datetime import UTC, date, datetime
from html.parser import HTMLParser

import polars as pl
import pytest
from PIL import Image

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.manifest import Manifest, OutputFile
from gpu_jobs.jobs.costs import WorkerSeconds
from gpu_jobs.jobs.failures import AttemptEnd
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Order, Policy
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.gpu_use import GpuUse
from gpu_jobs.ledger.journal import Closed, Ended, Journal, Opened, Ordered
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.records import Attempt, Committed, Heartbeat, Plan, Settlement
from gpu_jobs.report import write_report
from gpu_jobs.store import open_store

T = 1_790_000_000.0
OFFER = Offer(
    platform="cloud_run",
    gpu="nvidia-l4",
    num_gpus=1,
    region="europe-west4",
    mode="spot",
    usd_per_hour=0.5,
    priced_on=date(2026, 11, 1),
    price_source="a price list",
    max_workers=4,
)
SECONDS = WorkerSeconds(starting=10.0, model_load=20.0, working=60.0, idle=10.0, infer=45.0)
SHOT = {"analysis": "shot", "end_s": 0.0, "labels": None, "embedding": None, "thumbnail": None}
VIDEO_SCHEMA = {
    "item_index": pl.Int64,
    "item": pl.String,
    "analysis": pl.String,
    "video": pl.String,
    "frame": pl.Int64,
    "start_s": pl.Float64,
    "end_s": pl.Float64,
    "labels": pl.List(pl.Struct({"label": pl.String, "score": pl.Float32})),
    "embedding": pl.List(pl.Float32),
    "thumbnail": pl.Binary,
}


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its words, and all addresses it names."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.tags, self.addresses, self._words = [], [], []
        self.feed(text)
        self.close()
        self.words = re.sub(r"\s+", " ", " ".join(self._words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]

    def handle_data(self, data):
        self._words.append(data)

    def count(self, tag, **attributes):
        return sum(name == tag and attributes.items() <= found.items() for name, found in self.tags)


class MadeUp:
    """A campaign written by hand into a local store, with stamps of our choice."""

    def __init__(self, folder, *, num_items=100, num_chunks=5, dataset="clips/"):
        self._folder = folder / "made-up"
        self.store = open_store(str(self._folder))
        self.ledger = Ledger(self.store)
        cuts = tuple(round(number * num_items / num_chunks) for number in range(num_chunks + 1))
        plan = Plan(
            workload="my_package.summaries:Summarise",
            params={"prompt": "Say it shorter"},
            dataset=dataset,
            dataset_digest="ab" * 32,
            sources="items/x/sources.parquet",
            items=(),
            num_items=num_items,
            total_weight=1.0,
            chunk_boundaries=cuts,
            chunk_reason=f"{num_chunks} chunks, as asked",
            versions={"polars": "1.2.3"},
            created_at=datetime.fromtimestamp(T, UTC),
        )
        self.ledger.create_plan(plan)
        self.plan = plan
        self._num_files = 0

    @property
    def campaign(self):
        return Campaign.open(self.store.uri)

    def stamp(self, key, at):
        os.utime(self._folder / key, (at, at))

    def note(self, entry, at):
        journal = Journal(self.store)
        state = journal.read()
        assert journal.append(entry, upon=state)
        self.stamp(keys.journal(state.next_seq), at)

    def opened(self, at):
        self.note(Opened(owner="me", policy=Policy(), at=_instant(at)), at)

    def closed(self, at, reason="every item is settled"):
        self.note(Closed(reason=reason, owner="me", at=_instant(at)), at)

    def ordered(self, at, name="ff-1234-5678-0002", reason="5 chunks are open"):
        order = Order(
            name=name,
            campaign_uri=self.store.uri,
            offer=OFFER,
            num_workers=2,
            expires_at=_instant(at + 9999),
            reserved_usd=12.0,
        )
        self.note(Ordered(order=order, owner="me", reason=reason, at=_instant(at)), at)

    def ended(self, at, name="ff-1234-5678-0002", **changes):
        values = {"reason": "succeeded", "items_done": 90, "spent_usd": 1.25, **changes}
        self.note(Ended(order=name, at=_instant(at), **values), at)

    def beat(self, worker_id, at, order="ff-1234-5678-0002", **changes):
        values = {
            "status": "over",
            "reason": "nothing is left",
            "items_done": 30,
            "gpu_use": GpuUse(busy_share=0.88),
            **changes,
        }
        self.ledger.beat(
            Heartbeat(worker_id=worker_id, order=order, slot=0, host="h", **{"seconds": SECONDS, **values})
        )
        self.stamp(keys.worker(worker_id), at)

    def attempt(self, chunk, number, worker_id, at):
        self.ledger.begin(Attempt(chunk=chunk, number=number, worker_id=worker_id, follows=""))
        self.stamp(keys.attempt(chunk.id, number), at)

    def attempt_ended(self, chunk, number, at, cause):
        self.ledger.end(chunk, number, AttemptEnd(cause=cause))
        self.stamp(keys.attempt_end(chunk.id, number), at)

    def settled(self, chunk, at):
        tiles = (Committed(range=chunk, part="part", sha256="0"),)
        self.ledger.settle(Settlement(chunk=chunk, attempt=1, worker_id="b", tiles=tiles))
        self.stamp(keys.settled(chunk.id), at)

    def manifest(self, rows, quarantine=(), *, num_open=0, num_quarantined=None):
        aside = pl.DataFrame(
            quarantine,
            schema={"item": pl.String, "cause": pl.String, "detail": pl.String, "attempts": pl.Int64},
            orient="row",
        )
        num_quarantined = aside.height if num_quarantined is None else num_quarantined
        return Manifest(
            digest="cd" * 32,
            is_complete=not num_open,
            num_items=self.plan.num_items,
            num_committed=self.plan.num_items - num_open - num_quarantined,
            num_quarantined=num_quarantined,
            num_open=num_open,
            outputs=(self._file(rows),),
            quarantine=self._file(aside),
            workload=self.plan.workload,
            params={},
            dataset=self.plan.dataset,
            dataset_digest="",
            versions={},
            created_at=_instant(T + 999),
        )

    def _file(self, frame):
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        self._num_files += 1
        key = f"outputs/made-up/{self._num_files}.parquet"
        self.store.create(key, buffer.getvalue())
        return OutputFile(key=key, num_rows=frame.height, num_bytes=len(buffer.getvalue()), sha256="0")

    def page(self, manifest):
        return read_page(self.campaign, manifest)


def _instant(at):
    return datetime.fromtimestamp(at, UTC)


def read_page(campaign, manifest):
    uri = write_report(campaign, manifest).uri
    assert uri == f"{campaign.store.uri}/report.html"
    return Page(campaign.store.get("report.html").decode())


def jpeg(brightness=128, noise=0):
    buffer = io.BytesIO()
    image = Image.effect_noise((160, 90), noise) if noise else Image.new("L", (160, 90), brightness)
    image.save(buffer, "JPEG", quality=95 if noise else 80)
    return buffer.getvalue()


def video_rows(num_videos=1, num_shots=3, thumbnail=b""):
    """Shots of four seconds each, with a frame in the middle; shots 0 and 2 of a video look alike."""
    found = []
    for video in range(num_videos):
        for shot in range(num_shots):
            seen = [{"label": f"label {shot}", "score": 0.5}, {"label": "thing", "score": 0.004}]
            place = {"item_index": video, "item": f"clips/{video}.mp4#0-9", "video": f"clips/{video}.mp4"}
            times = {"frame": 100 * shot, "start_s": 4.0 * shot, "end_s": 4.0 * shot + 4}
            found.append({**place, **SHOT, **times, "labels": seen, "thumbnail": thumbnail or jpeg()})
            vector = [0.0] * 8
            vector[shot % 2 if num_videos == 1 else (video * num_shots + shot) % 8] = 1.0
            frame = {"frame": 100 * shot + 50, "start_s": 4.0 * shot + 2, "labels": seen, "embedding": vector}
            found.append({**place, "analysis": "frame", **frame})
    return pl.DataFrame(found, schema=VIDEO_SCHEMA)


@pytest.fixture
def make_up(tmp_path):
    return lambda **changes: MadeUp(tmp_path, **changes)


@pytest.fixture
def made(make_up):
    return make_up()


@pytest.fixture(scope="session", name="read_page")
def _read_page():
    """The report of a campaign, written, read back and parsed."""
    return read_page


@pytest.fixture(scope="session", name="video_rows")
def _video_rows():
    return video_rows


@pytest.fixture(scope="session", name="jpeg")
def _jpeg():
    return jpeg
