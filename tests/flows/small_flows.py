"""Flows over workloads that cost nothing. Run as a program, this is the noop flow's command line."""

import sys
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from flows.campaign import CampaignParameters, CampaignSummary, run_campaign
from flows.command_line import main
from flows.parameters import Advanced, Limits, Where
from flows.stopping import campaign_flow
from gpu_jobs.workloads.base import Params
from gpu_jobs.workloads.noop import Noop, NoopParams


class NoopCampaign(CampaignParameters):
    """A campaign over the workload noop."""

    workload = "noop"
    params: NoopParams = Field(default=NoopParams(), title="Noop")


class GatedParams(NoopParams):
    gate: str = ""
    opens_gate: bool = False


class Gated(Noop):
    """Cannot be set up while the file `gate` is not there; with `opens_gate`, the first try makes it."""

    params_model: ClassVar[type[Params]] = GatedParams
    params: GatedParams

    def setup(self, device: str) -> None:
        gate = Path(self.params.gate)
        if not gate.exists():
            if self.params.opens_gate:
                gate.touch()
            raise RuntimeError("the gate is closed")


class GatedCampaign(CampaignParameters):
    """A campaign over the workload above."""

    workload = "tests.flows.small_flows:Gated"
    params: GatedParams = Field(default=GatedParams(), title="Gated")


class UnknownCampaign(CampaignParameters):
    """A campaign over a workload that nobody knows."""

    workload = "no-such"


def in_sections(**asked: Any) -> dict[str, Any]:
    """Parameters named without their sections, as a short test likes to name them, in their sections."""
    sections: dict[str, Any] = {}
    for name, value in asked.items():
        for section, model in (("where", Where), ("limits", Limits), ("advanced", Advanced)):
            if name in model.model_fields:
                sections.setdefault(section, {})[name] = value
                break
        else:
            sections[name] = value
    return sections


@campaign_flow("small")
def small(campaign: NoopCampaign | GatedCampaign | UnknownCampaign) -> CampaignSummary:
    return run_campaign(campaign)


@campaign_flow("noop")
def noop(campaign: NoopCampaign) -> CampaignSummary:
    return run_campaign(campaign)


if __name__ == "__main__":
    sys.exit(main(noop, NoopCampaign))
