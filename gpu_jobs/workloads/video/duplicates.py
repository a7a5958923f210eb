"""Finds frames that look alike by their embeddings: repeated scenes, re-uploads, still pictures."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

_BLOCK_ROWS = 2048
_NONE = {
    "video": pl.String,
    "frame": pl.Int64,
    "start_s": pl.Float64,
    "other_video": pl.String,
    "other_frame": pl.Int64,
    "other_start_s": pl.Float64,
    "similarity": pl.Float32,
}


def near_duplicates(frame: pl.DataFrame, *, threshold: float = 0.9, apart_s: float = 5.0) -> pl.DataFrame:
    """Pair each frame with its most similar earlier frame, if their cosine is at least `threshold`.

    `frame` has rows of the workload `video`. A frame is never compared with frames of its own shot, nor with frames of
    its video less than `apart_s` seconds away. Time grows with the square of the number of frames: 20,000 frames take
    about ten seconds.

    Returns:
        `video, frame, start_s` and `other_video, other_frame, other_start_s` (the earlier one), `similarity`;
        most similar first.
    """
    rows = frame.filter((pl.col("analysis") == "frame") & pl.col("embedding").list.len().fill_null(0).gt(0))
    rows = _with_shots(rows.sort("video", "frame", maintain_order=True), frame)
    if rows.is_empty():
        return pl.DataFrame(schema=_NONE)
    vectors = rows["embedding"].list.to_array(len(rows["embedding"][0])).to_numpy().astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    best, similarity = _best_earlier(vectors, rows, apart_s)
    found = np.flatnonzero(similarity >= threshold)
    names = ["video", "frame", "start_s"]
    pairs = pl.concat(
        [
            rows.select(names)[found],
            rows.select(pl.col(names).name.prefix("other_"))[best[found]],
            pl.DataFrame({"similarity": similarity[found]}),
        ],
        how="horizontal",
    )
    return pairs.sort("similarity", "video", "frame", descending=[True, False, False])


def _with_shots(rows: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """Add the column `shot`: the first frame of the shot that contains the frame, or null."""
    starts = frame.filter(pl.col("analysis") == "shot").select("video", "frame", shot="frame").sort("video", "frame")
    return rows.join_asof(starts, on="frame", by="video", check_sortedness=False)


def _best_earlier(
    vectors: NDArray[np.float32], rows: pl.DataFrame, apart_s: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Position and cosine of the most similar earlier row of each row; the cosine is -1 if there is none."""
    video = rows["video"].rank("dense").to_numpy()
    start_s = rows["start_s"].to_numpy()
    shot = rows["shot"].fill_null(-1).to_numpy()
    best, similarity = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), -1, dtype=np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        mine = slice(start, start + _BLOCK_ROWS)
        for other_start in range(0, start + 1, _BLOCK_ROWS):
            other = slice(other_start, other_start + _BLOCK_ROWS)
            cosines = vectors[mine] @ vectors[other].T
            same_video = video[mine, None] == video[None, other]
            same_shot = (shot[mine, None] == shot[None, other]) & (shot[mine, None] >= 0)
            too_close = np.abs(start_s[mine, None] - start_s[None, other]) < apart_s
            cosines[same_video & (same_shot | too_close)] = -1
            if other_start == start:
                cosines[np.triu_indices_from(cosines)] = -1
            places = cosines.argmax(axis=1)
            values = cosines[np.arange(len(cosines)), places]
            better = values > similarity[mine]
            best[mine] = np.where(better, places + other_start, best[mine])
            similarity[mine] = np.maximum(values, similarity[mine])
    return best, similarity
