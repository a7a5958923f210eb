"""What a person sees of a running campaign."""

import io
import logging
import sys
import uuid

import pytest
from looks import a_job, a_look
from prefect.logging import disable_run_logger
from prefect.logging.handlers import PrefectConsoleHandler

from flows.display import Display, said_of
from tasks import artifacts
from tasks.artifacts import ProgressArtifact


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FakeApi:
    """In place of Prefect's artifact calls."""

    def __init__(self) -> None:
        self.shown: list[float] = []

    def create(self, *, progress, key, description):
        self.shown.append(progress)
        return uuid.uuid4()

    def update(self, *, artifact_id, progress):
        self.shown.append(progress)


@pytest.fixture
def api(monkeypatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(artifacts, "create_progress_artifact", fake.create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", fake.update)
    return fake


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

    said = said_of(a_look(250, jobs=jobs, quarantined_items=4, spent_usd=1.5))

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
