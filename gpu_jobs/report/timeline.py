"""A timeline of all GPU workers, one lane of bars for each, as SVG that is as wide as the page. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from markupsafe import Markup

from gpu_jobs.durations import duration
from gpu_jobs.jobs.costs import LIFE_PHASES
from gpu_jobs.report import formats
from gpu_jobs.report.facts import Attempted
from gpu_jobs.telemetry.workers import GpuWorker

MAX_LANES = 40
_LANE_PX, _BAR_PX, _LABEL_PX, _AXIS_PX = 40, 14, 16, 24
_MIN_BAR = 0.15
"""The least width of a bar that can still be seen, in percent of the timeline."""
_PAUSE = 3.0
"""The width of a pause of any length, in percent of the timeline."""
_MIN_PAUSE_S = 60.0
_PAUSE_SHARE = 0.25
"""A gap that is shorter than this share of the busy time is drawn to scale."""
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400)
_MAX_TICKS = 6

_GOOD_ENDS = ("settled", "")

Interval = tuple[float, float]
Bar = tuple[str, float, float, str]
"""A bar's kind, begin, end, and the text under the mouse pointer."""

KINDS = {
    "committed": "chunk, settled",
    "ended": "attempt that ended without settling its chunk",
    "starting": "starting",
    "model_load": "loading the model",
    "idle": "idle: no chunk in progress",
}


class Axis:
    """Maps times to percent of the width; long pauses without any GPU worker are cut out."""

    def __init__(self, intervals: Iterable[Interval]) -> None:
        found = sorted(intervals)
        self._stretches = _merge(found, _MIN_PAUSE_S)
        busy_s = sum(end - begin for begin, end in self._stretches)
        self._stretches = _merge(found, max(_MIN_PAUSE_S, _PAUSE_SHARE * busy_s))
        self._busy_s = max(1e-3, sum(end - begin for begin, end in self._stretches))
        self._scale = (100 - _PAUSE * (len(self._stretches) - 1)) / self._busy_s

    def place(self, at: float) -> float:
        left = 0.0
        for begin, end in self._stretches:
            if at <= end:
                return left + max(0.0, at - begin) * self._scale
            left += (end - begin) * self._scale + _PAUSE
        return 100.0

    def ticks(self) -> Iterator[tuple[float, str]]:
        """The marks of the axis: their position in percent, and the time since the beginning as text."""
        origin = self._stretches[0][0]
        longest = _STEPS_S[-1] * (1 + self._busy_s // (_MAX_TICKS * _STEPS_S[-1]))
        step = next((step for step in _STEPS_S if self._busy_s / step <= _MAX_TICKS), longest)
        for begin, end in self._stretches:
            first = -(-(begin - origin) // step)
            for number in range(int(first), int((end - origin) // step) + 1):
                yield self.place(origin + number * step), _elapsed(number * step)

    def pauses(self) -> Iterator[tuple[float, float]]:
        """The pauses: where each begins, in percent, and how many seconds it lasts."""
        for (_, end), (begin, _) in zip(self._stretches, self._stretches[1:], strict=False):
            yield self.place(end), begin - end


def draw(workers: Sequence[GpuWorker], attempts: Sequence[Attempted] | None) -> Markup:
    """Draw the lanes in the order in which the GPU workers started; without `attempts` each lane shows sums."""
    shown = workers[:MAX_LANES]
    axis = Axis((worker.began_at, max(worker.seen_at, worker.began_at + 0.1)) for worker in shown)
    by_worker: dict[str, list[Attempted]] = {}
    for attempt in attempts or ():
        by_worker.setdefault(attempt.worker_id, []).append(attempt)
    lanes = []
    for number, worker in enumerate(shown):
        top = _AXIS_PX + number * _LANE_PX
        bars = _sums(worker) if attempts is None else _bars(worker, by_worker.get(worker.heartbeat.worker_id, ()))
        lanes.append(_lane(worker, top, Markup("\n").join(_rect(axis, top + _LABEL_PX, bar) for bar in bars)))
    return Markup(
        '<svg class="timeline" width="100%" height="{height}" role="img" aria-label="Timeline of GPU workers">\n'
        "{axis}\n{lanes}\n</svg>"
    ).format(
        height=height(len(workers)),
        axis=_axis(axis, height(len(workers))),
        lanes=Markup("\n").join(lanes),
    )


def height(num_workers: int) -> int:
    """The height of the drawing in pixels."""
    return _AXIS_PX + min(num_workers, MAX_LANES) * _LANE_PX


def names(workers: Sequence[GpuWorker], attempts: Sequence[Attempted] | None) -> dict[str, str]:
    """The kinds of bars that occur, with their meaning."""
    found = dict(KINDS) if attempts is not None else {**KINDS, "committed": "working"}
    for name in ("starting", "model_load"):
        if not any(getattr(worker.heartbeat.seconds, name) for worker in workers):
            del found[name]
    if all(one.end in _GOOD_ENDS for one in attempts or ()):
        del found["ended"]
    return found


def _bars(worker: GpuWorker, attempts: Sequence[Attempted]) -> Iterator[Bar]:
    """The bars of one GPU worker. Chunks are leased ahead, so a bar begins where the bar before it ends."""
    yield "idle", worker.began_at, worker.seen_at, "alive"
    at = worker.began_at
    for name in ("starting", "model_load"):
        end = at + getattr(worker.heartbeat.seconds, name)
        yield name, at, end, f"{KINDS[name]}, {duration(end - at)}"
        at = end
    ends = ((one.ended_at or worker.seen_at, one) for one in attempts)
    for end, one in sorted(ends, key=lambda pair: (pair[0], pair[1].chunk)):
        begin = max(at, one.began_at)
        kind = "committed" if one.end in _GOOD_ENDS else "ended"
        how = one.end or "in progress"
        items = f"items {one.chunk.start:,} to {one.chunk.stop - 1:,}"
        yield kind, begin, end, f"{items}, attempt {one.number}: {how}, {duration(max(0.0, end - begin))}"
        at = max(at, end)


def _sums(worker: GpuWorker) -> Iterator[Bar]:
    at = worker.began_at
    for name in LIFE_PHASES:
        end = at + getattr(worker.heartbeat.seconds, name)
        kind = "committed" if name == "working" else name
        yield kind, at, end, f"{name.replace('_', ' ')}, {duration(end - at)}"
        at = end


def _lane(worker: GpuWorker, top: int, bars: Markup) -> Markup:
    heartbeat = worker.heartbeat
    items = formats.count(heartbeat.items_done, "item")
    return Markup('<text x="0" y="{y}">{worker_id} · {items}</text>\n{bars}').format(
        y=top + _LABEL_PX - 4,
        worker_id=heartbeat.worker_id,
        items=items,
        bars=bars,
    )


def _rect(axis: Axis, y: int, bar: Bar) -> Markup:
    kind, begin, end, what = bar
    left, right = axis.place(begin), axis.place(end)
    return Markup(
        '<rect class="{kind}" x="{x}%" y="{y}" width="{width}%" height="{height}"><title>{what}</title></rect>'
    ).format(
        kind=kind,
        x=f"{left:.3f}",
        y=y if kind != "idle" else y + _BAR_PX // 2 - 1,
        width=f"{max(_MIN_BAR if kind in ('committed', 'ended') else 0, right - left):.3f}",
        height=_BAR_PX if kind != "idle" else 2,
        what=what,
    )


def _axis(axis: Axis, height: int) -> Markup:
    lines = [
        Markup('<line class="tick" x1="{x}%" x2="{x}%" y1="16" y2="{height}"/>').format(x=f"{x:.3f}", height=height)
        for x, _ in axis.ticks()
    ]
    lines += [
        Markup('<text class="tick" x="{x}%" y="11" text-anchor="{anchor}">{words}</text>').format(
            x=f"{x:.3f}",
            anchor="start" if x < 2 else "end" if x > 96 else "middle",  # noqa: PLR2004 - stay inside
            words=words,
        )
        for x, words in axis.ticks()
    ]
    lines += [
        Markup(
            '<line class="pause" x1="{x}%" x2="{x}%" y1="16" y2="{height}"><title>{words} without a GPU worker</title>'
            "</line>"
        ).format(
            x=f"{x + _PAUSE / 2:.3f}",
            height=height,
            words=duration(pause_s),
        )
        for x, pause_s in axis.pauses()
    ]
    return Markup("\n").join(lines)


def _merge(intervals: Sequence[Interval], gap_s: float) -> list[Interval]:
    """Join sorted intervals where less than `gap_s` seconds lie between them."""
    merged: list[Interval] = []
    for begin, end in intervals:
        if merged and begin - merged[-1][1] < gap_s:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _elapsed(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{second:02d}" if hours else f"{minutes}:{second:02d}"
