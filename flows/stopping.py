"""How the flow run of a campaign ends when it is cancelled, crashed, timed out or interrupted.

The flow's own process stops the GPU jobs if it can. The hooks here do what it could not, in a process of their own if
necessary, and report in Prefect what became of the campaign. `reap_orphans` finds what the hooks miss.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from flows.campaign import follow_jobs
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.errors import CampaignError
from gpu_jobs.ledger.journal import CloseCause
from tasks.flow_runs import add_to_state_message, campaign_of, show_stopped

HOW_TO_RESUME = "start the flow again with the same dataset and parameters to resume"
_INTERRUPTIONS = (CloseCause.INTERRUPTED, CloseCause.STOPPED)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def campaign_flow(name: str, *, timeout_seconds: float | None = None) -> Callable[[Callable[_P, _R]], Flow[_P, _R]]:
    """Decorate a flow that runs a campaign: it follows its GPU jobs, and stops them however it ends.

    Prefect must not retry it: a campaign is resumed from its ledger.
    """
    return flow(
        name=name,
        task_runner=follow_jobs(),
        timeout_seconds=timeout_seconds,
        on_cancellation=[stop_campaign],
        on_crashed=[stop_campaign],
        on_failure=[stop_campaign],
    )


def stop_campaign(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Stop the campaign of an interrupted flow run, and report that in Prefect. May run twice, in any process."""
    with get_client(sync_client=True) as client:
        uri = campaign_of(client.read_flow_run(flow_run.id))  # `flow_run` may be older than its label
        sentence = uri and stop_if_owner(uri, str(flow_run.id), because=_cause(state))
        if not sentence:
            return
        flow_run_logger(flow_run, flow).info(sentence)
        show_stopped(client, flow_run.id, uri, sentence)
        add_to_state_message(client, flow_run.id, sentence)


def stop_if_owner(uri: str, owner: str, *, because: str) -> str:
    """Stop a campaign unless another flow run owns it; return what happened, or "" if nothing had to be done."""
    try:
        campaign = Campaign.open(uri)
    except CampaignError:
        return ""  # the campaign was deleted
    before = campaign.journal.read()
    if before.opened is None or before.opened.owner != owner:
        return ""
    was_interrupted = before.closed is None or before.closed.cause in _INTERRUPTIONS
    if not was_interrupted and not before.live_orders:
        return ""  # the campaign had ended by itself
    left = campaign.stop(f"flow run {because}", owner=owner)
    return _sentence(campaign, left)


def _sentence(campaign: Campaign, left: list[str]) -> str:
    progress = campaign.status()
    done = progress.num_items - progress.items_left
    end = f"end NOT confirmed: {', '.join(left)}; reap-orphans will try again" if left else "all GPU jobs have ended"
    return f"{end}; {done} of {progress.num_items} items are settled, and all finished work is kept; {HOW_TO_RESUME}"


def _cause(state: State[Any]) -> str:
    return "cancelled" if state.is_cancelling() else str(state.name).lower()
