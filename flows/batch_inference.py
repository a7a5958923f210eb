"""Generate answers, embeddings or classes for any number of texts.

python -m flows.batch_inference --dataset questions.parquet --params.text 'Answer briefly: {question}'
python -m flows.batch_inference --dataset texts.csv --params.task embed
python -m flows.batch_inference --dataset requests.jsonl --params.task openai-batch
"""

import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag
from pydantic.config import JsonDict

from flows.campaign import CampaignParameters, CampaignSummary, run_campaign
from flows.command_line import main
from flows.stopping import campaign_flow
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.errors import RefusedError, WorkloadImportError
from gpu_jobs.platforms import needs_bucket
from gpu_jobs.workloads.text.demo import DOCSTRINGS, QUESTIONS, REQUESTS, make_demo_texts
from gpu_jobs.workloads.text.encode import ClassifyParams, EmbedParams
from gpu_jobs.workloads.text.generate import GenerateParams
from gpu_jobs.workloads.text.openai_batch import OpenAIBatchParams
from gpu_jobs.workloads.weights import check_weights

DEMO = "demo"
"""The dataset of the demo: real texts that every Python installation contains, written where the flow runs."""
_DEMO_TEXTS = Path("demo/texts")


def _task(params: Any) -> str:
    """Return the name of the requested task; generate if none is named."""
    return str(params.get("task", "generate") if isinstance(params, dict) else params.task)


TaskParams = Annotated[
    Annotated[GenerateParams, Tag("generate")]
    | Annotated[EmbedParams, Tag("embed")]
    | Annotated[ClassifyParams, Tag("classify")]
    | Annotated[OpenAIBatchParams, Tag("openai-batch")],
    Discriminator(
        _task,
        custom_error_type="task",
        custom_error_message="the task is one of generate, embed, classify, openai-batch",
    ),
]


def _as_choice(schema: JsonDict) -> None:
    """Replace `oneOf` by `anyOf`, since Prefect's form shows only `anyOf` as a choice."""
    schema["anyOf"] = schema.pop("oneOf")


class BatchInference(CampaignParameters):
    """Run a language model on texts: one row per text."""

    workload = "generate"
    params: TaskParams = Field(default=GenerateParams(), title="What to do", json_schema_extra=_as_choice)

    def spec(self, scheduled_for: datetime) -> CampaignSpec:
        """Describe the campaign; the task determines the workload. Writes the demo's texts if they are requested."""
        spec = replace(super().spec(scheduled_for), workload=self.params.task)
        if not needs_bucket(self.where.platforms):
            self._refuse_unknown_models()
        if self.dataset != DEMO:
            return spec
        make_demo_texts(_DEMO_TEXTS)
        name = {"generate": QUESTIONS, "openai-batch": REQUESTS}.get(self.params.task, DOCSTRINGS)
        return replace(spec, dataset=str((_DEMO_TEXTS / name).absolute()))

    def _refuse_unknown_models(self) -> None:
        """Refuse unknown models before the campaign starts, if GPU workers will look for them on this machine."""
        for name in ("model", "draft_model"):
            try:
                if model := getattr(self.params, name, ""):
                    check_weights(model)
            except WorkloadImportError as error:
                raise RefusedError(f"params.{name}", str(error)) from error


@campaign_flow("batch-inference")
def batch_inference(campaign: BatchInference) -> CampaignSummary:
    """Run a model on texts on GPU workers. Start it again with the same parameters to resume."""
    return run_campaign(campaign)


if __name__ == "__main__":
    sys.exit(main(batch_inference, BatchInference))
