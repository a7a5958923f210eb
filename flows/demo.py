"""Video analysis on this machine: `make demo`. Real clips, real models, two GPU workers (here: CPU processes).

Run it again and it resumes; if it was finished, it does nothing.
"""

import sys
from pathlib import Path

import polars as pl

from flows.campaign import CampaignSummary
from flows.command_line import main as run_flow
from flows.video_analysis import VideoAnalysis, video_analysis
from gpu_jobs.campaign.manifest import newest_manifest, read_output
from gpu_jobs.report import sample_text
from gpu_jobs.store import open_store
from gpu_jobs.workloads.video.demo import make_demo_videos

_FOLDER = Path("demo")


def main() -> int:
    """Create the videos if they do not exist, analyse them, and show the results."""
    videos = (_FOLDER / "videos").absolute()
    known_cuts = make_demo_videos(videos)
    store_root = str((_FOLDER / "store").absolute())
    found = list[CampaignSummary]()

    def analyse(parameters: VideoAnalysis) -> CampaignSummary:
        found.append(video_analysis(parameters))
        return found[0]

    arguments = ["--dataset", str(videos), "--store-root", store_root, "--max-workers", "2"]
    if code := run_flow(analyse, VideoAnalysis, arguments):
        return code
    _show(found[0], known_cuts)
    return 0


def _show(summary: CampaignSummary, known_cuts: dict[str, list[int]]) -> None:
    store = open_store(summary.campaign)
    manifest = newest_manifest(store)
    assert manifest is not None
    say(f"\n{sample_text(store, manifest)}\n")
    rows = pl.concat([read_output(store, file) for file in manifest.outputs])
    for name, cuts in known_cuts.items():
        shots = rows.filter(pl.col("video").str.ends_with(name), pl.col("analysis") == "shot", pl.col("frame") > 0)
        hits = sum(any(abs(cut - frame) <= 1 for frame in shots["frame"]) for cut in cuts)
        say(f"{name}: {hits} of {len(cuts)} known cuts found, {shots.height - hits} others")
    say(f"\noutputs: {store.uri}/{manifest.outputs[0].key.rpartition('/')[0]}/\nreport:  {summary.report}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
