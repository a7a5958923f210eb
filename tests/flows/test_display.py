"""What a person sees of a running campaign."""

import io
import logging
import sys
import uuid

import pytest
from prefect.logging import disable_run_logger
from prefect.logging.handlers import PrefectConsoleHandler

from flows.display import Display, status_line
from tasks import artifacts, events
from tasks.artifacts import ProgressArtifact
from tests.tasks.looks import a_job, a_look


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FakeApi:
    """In place of Prefect's calls: artifacts and events."""

    def __init__(self) -> None:
        self.shown: list[float] = []
        self.tables: list[list[dict]] = []
        self.events: list[tuple[str, dict]] = []

    @property
    def num_calls(self) -> int:
        return len(self.shown) + len(self.tables) + len(self.events)

    def create(self, *, progress, key, description):
        self.shown.append(progress)
        return uuid.uuid4()

    def update(self, *, artifact_id, progress):
        self.shown.append(progress)

    def create_table(self, *, table, key, description):
        self.tables.append(table)
        return uuid.uuid4()

    def update_table(self, artifact_id, table, description):
        self.tables.append(table)

    def emit(self, event, *, resource, payload):
        self.events.append((event, payload))


@pytest.fixture
def api(monkeypatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(artifacts, "create_progress_artifact", fake.create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", fake.update)
    monkeypatch.setattr(artifacts, "create_table_artifact", fake.create_table)
    monkeypatch.setattr(artifacts, "update_table_artifact", fake.update_table)
    monkeypatch.setattr(events, "emit_event", fake.emit)
    return fake


class Ten:
    """Ten minutes of looks, one a second, at a campaign of so many chunks of ten items."""

    def __init__(self, num_chunks: int) -> None:
        self.now = 0.0
        self._num_items = 10 * num_chunks

    def show(self) -> None:
        with disable_run_logger(), Display("store/campaign", 1.0, clock=lambda: self.now) as display:
            for second in range(601):
                self.now = float(second)
                display.show(self._look(second / 600), is_last=second == 600)

    def _look(self, share: float):
        done = round(self._num_items * share)
        jobs = (a_job(items_done=done, items_per_s=self._num_items / 600, usd=share, status="running"),)
        return a_look(
            done,
            num_items=self._num_items,
            items_left=self._num_items - done,
            chunks_left=(self._num_items - done) // 10,
            quarantined_items=done // 10,
            jobs=jobs,
            spent_usd=share,
            closed="every item is settled" if done == self._num_items else "",
        )


def test_calls_do_not_grow_with_the_number_of_chunks(api):
    """Progress, table, quarantine and budget of 100,000 chunks cost the calls of 100 chunks: under 30 a minute."""
    Ten(100).show()
    small = api.num_calls

    Ten(100_000).show()

    assert api.num_calls - small == small
    assert small < 30 * 10
    assert [event for event, _ in api.events].count("fanfold.chunk.quarantined") <= 2 * 12


def test_the_table_says_how_each_gpu_job_does(api):
    """While it runs how many of its GPU workers live and how fast they are, then how it ended and why."""
    with disable_run_logger(), Display("store/campaign") as display:
        running = a_job(items_done=4, items_per_s=2.5, usd=0.126, gpu_use="GPU 87%", platform="modal", machine="l4")
        ended = a_job(status="failed", reason="killed by SIGKILL", items_done=4, usd=0.2, workers_alive=0)
        display.show(a_look(4, jobs=(running,)))
        display.show(a_look(4, jobs=(ended,)), is_last=True)

    ((first,), (last,)) = api.tables
    assert (first["platform"], first["offer"], first["GPU workers"]) == ("modal", "l4", "2 of 2")
    assert (first["items/s"], first["GPU use"], first["dollars"]) == ("2.5", "GPU 87%", "0.13")
    assert (last["status"], last["reason"], last["GPU workers"], last["items/s"]) == (
        "failed",
        "killed by SIGKILL",
        "2",
        "",
    )


def test_a_table_of_many_gpu_jobs_shows_those_that_run(api):
    """A hundred rows at most: what runs comes first, then the newest of those that are over."""
    jobs = tuple(
        a_job(order=f"ff-{number:03d}", status="running" if number == 5 else "failed") for number in range(300)
    )
    with disable_run_logger(), Display("store/campaign") as display:
        display.show(a_look(4, jobs=jobs))

    orders = [row["GPU job"] for row in api.tables[0]]
    assert (len(orders), orders[:3], orders[-1]) == (100, ["ff-005", "ff-299", "ff-298"], "ff-201")


def test_progress_calls_the_api_every_five_seconds_at_most(api):
    """A thousand looks in a hundred seconds are some twenty calls; the last look is always shown."""
    now = 0.0
    artifact = ProgressArtifact("c", clock=lambda: now)
    for done in range(1000):
        artifact.show(a_look(done))
        now += 0.1
    artifact.show(a_look(1000), is_last=True)

    assert len(api.shown) <= 22
    assert (api.shown[0], api.shown[-1]) == (0.0, 100.0)


def test_progress_that_stands_still_calls_nobody(api):
    """Hours without a new item cost no call."""
    now = 0.0
    artifact = ProgressArtifact("c", clock=lambda: now)
    for _ in range(1000):
        artifact.show(a_look(500))
        now += 60

    assert api.shown == [50.0]


def test_a_look_in_a_few_words():
    """Pace over all GPU jobs, time left, GPU workers, quarantine, dollars."""
    jobs = (a_job(items_per_s=2.0), a_job(items_per_s=3.0, workers_alive=1))

    said = status_line(a_look(250, jobs=jobs, quarantined_items=4, spent_usd=1.5))

    assert said == "5 items/s, 2 min 30 s left, 3 GPU workers, 4 quarantined, $1.50"


def test_a_terminal_gets_a_bar(api, monkeypatch):
    """On a terminal there is a bar of items with the same words, on the console of Prefect's log lines."""
    terminal = Terminal()
    monkeypatch.setattr(logging.getLogger(), "handlers", [PrefectConsoleHandler(terminal)])
    monkeypatch.setattr(sys.stderr, "isatty", terminal.isatty)
    monkeypatch.setenv("COLUMNS", "120")
    with disable_run_logger(), Display("campaign-1") as shown:
        shown.show(a_look(250, jobs=(a_job(),)))

    assert "250/1000" in terminal.getvalue()
    assert "2 GPU workers" in terminal.getvalue()
