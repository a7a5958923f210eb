"""When what happened, as the store's stamps tell, and how it is drawn."""

import re

import pytest

from gpu_jobs.jobs.costs import WorkerSeconds
from gpu_jobs.jobs.failures import Cause
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.report.facts import Attempted, gather
from gpu_jobs.report.timeline import Axis, draw
from gpu_jobs.telemetry.workers import GpuWorker

T = 1_790_000_000.0
SECONDS = WorkerSeconds(starting=10.0, model_load=20.0, working=60.0, idle=10.0)


def a_life(worker_id="boot-1", began_at=T, ended_at=T + 100):
    beat = Heartbeat(worker_id=worker_id, order="", slot=0, host="h", status="over", seconds=SECONDS)
    assert ended_at - began_at == pytest.approx(beat.seconds.lived_s)
    return GpuWorker(beat, ended_at)


def an_attempt(start, began_at, ended_at):
    chunk = Chunk(start, start + 1)
    return Attempted(chunk=chunk, number=1, worker_id="boot-1", began_at=began_at, ended_at=ended_at, end="settled")


def test_wall_time_is_summed_over_openings(made, video_rows):
    """The days between a close and the next opening do not count."""
    made.opened(T)
    made.closed(T + 100)
    made.opened(T + 300_000)
    made.settled(Chunk(0, 20), T + 300_050)
    facts = gather(made.campaign, made.campaign.snapshot(), made.manifest(video_rows(), num_open=80))
    assert facts.wall_s == pytest.approx(150)
    assert facts.items_per_s == pytest.approx(20 / 150)


def test_attempts_end_as_the_ledger_tells(made, video_rows):
    """Settled, told, followed by another, or still going on."""
    first, second, third = Chunk(0, 20), Chunk(20, 40), Chunk(40, 60)
    made.attempt(first, 1, "a", T)
    made.attempt_ended(first, 1, T + 10, Cause.CRASHED)
    made.attempt(first, 2, "b", T + 20)
    made.settled(first, T + 30)
    made.attempt(second, 1, "a", T + 40)
    made.attempt(second, 2, "b", T + 50)
    made.attempt(third, 1, "b", T + 60)
    found = gather(made.campaign, made.campaign.snapshot(), made.manifest(video_rows())).attempts
    assert [(one.chunk, one.number, one.worker_id, one.ended_at, one.end) for one in found] == [
        (first, 1, "a", T + 10, "crashed"),
        (first, 2, "b", T + 30, "settled"),
        (second, 1, "a", T + 50, "lost"),
        (second, 2, "b", None, ""),
        (third, 1, "b", None, ""),
    ]


def test_bars_of_a_lane_do_not_overlap():
    """Chunks are leased ahead; a bar begins where the one before it ends."""
    attempts = [an_attempt(0, T + 30, T + 50), an_attempt(1, T + 30, T + 80), an_attempt(2, T + 31, T + 65)]
    drawn = draw([a_life()], attempts)
    bars = re.findall(r'class="committed" x="([\d.]+)%" y="\d+" width="([\d.]+)%"', drawn)
    assert [float(value) for bar in bars for value in bar] == pytest.approx([30, 20, 50, 15, 65, 15])


def test_a_long_pause_takes_little_room():
    """Between two openings a week apart the axis is cut; times stay in order and inside."""
    axis = Axis([(T, T + 100), (T + 600_000, T + 600_100)])
    places = [axis.place(at) for at in (T, T + 50, T + 100, T + 600_000, T + 600_100)]
    assert places == pytest.approx([0, 24.25, 48.5, 51.5, 100])
    assert [pause_s for _, pause_s in axis.pauses()] == [599_900]
    assert all(0 <= x <= 100 for x, _ in axis.ticks())
    assert len(list(axis.ticks())) <= 9


def test_a_gap_that_is_no_pause_is_drawn_to_scale():
    """Half a minute without a GPU worker is not cut out."""
    axis = Axis([(T, T + 100), (T + 130, T + 200)])
    assert axis.place(T + 115) == pytest.approx(57.5)
    assert not list(axis.pauses())
