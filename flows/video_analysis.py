"""Shots, labels and embeddings of any number of videos.

python -m flows.video_analysis --dataset videos/ --max-workers 4
"""

import sys

from prefect import flow
from pydantic import Field

from flows.campaign import CampaignParameters, CampaignSummary, follow_jobs, run_campaign
from flows.command_line import main
from gpu_jobs.workloads.video import VideoParams


class VideoAnalysis(CampaignParameters):
    """Find shots in videos, and label and embed sampled frames: one row per shot and per frame."""

    workload = "video"
    params: VideoParams = Field(default=VideoParams(), title="Analyses")


@flow(name="video-analysis", task_runner=follow_jobs())
def video_analysis(campaign: VideoAnalysis) -> CampaignSummary:
    """Analyse videos on GPU workers. Started again with the same dataset and parameters, it goes on where it was."""
    return run_campaign(campaign)


if __name__ == "__main__":
    sys.exit(main(video_analysis, VideoAnalysis))
