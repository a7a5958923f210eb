"""Fine-tune language models on any texts, once or as a sweep of several trainings.

python -m flows.fine_tuning --dataset texts.parquet --params.steps 200 --grid.learning-rate '[1e-4, 1e-3]'
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from flows.campaign import CampaignParameters, CampaignSummary, run_campaign
from flows.command_line import main
from flows.parameters import Advanced, Section
from flows.stopping import campaign_flow
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.campaign.sweep import delete_checkpoints
from gpu_jobs.dataset.hub import HUB, store_table
from gpu_jobs.store import open_store
from gpu_jobs.workloads.text.demo import DOCSTRINGS, make_demo_texts
from gpu_jobs.workloads.training.fine_tune import FineTuneParams
from gpu_jobs.workloads.training.prepare import PrepareParams
from gpu_jobs.workloads.training.settings import TrainingParams

DEMO = "demo"
"""The dataset of the demo: real texts that every Python installation contains, written where the flow runs."""
_DEMO_TEXTS = Path("demo/texts")
_DEFAULT = PrepareParams()


class Texts(Section):
    """How texts become blocks of tokens. This is done once, and reused by all trainings with the same settings."""

    text: str = Field(
        default=_DEFAULT.text,
        title="Text",
        description="What is learned from each row of a table; {name} stands for the column of that name",
    )
    block: int = Field(
        default=_DEFAULT.block,
        ge=2,
        title="Block, tokens",
        description="Texts are joined, then divided into blocks of this length",
    )
    validation_share: float = Field(
        default=_DEFAULT.validation_share,
        gt=0,
        lt=1,
        title="Validation share",
        description="Share of the texts on which trainings are measured and from which they never learn",
    )


class Grid(Section):
    """A training for each combination of these values; without values, the setting above is used."""

    learning_rate: list[float] = Field(default=[], title="Learning rates", description="One or more")
    lora_rank: list[int] = Field(default=[], title="LoRA ranks", description="One or more")
    batch: list[int] = Field(default=[], title="Batches", description="One or more")
    seed: list[int] = Field(default=[], title="Seeds", description="One or more")
    model: list[str] = Field(default=[], title="Base models", description="One or more")


class PrepareTexts(CampaignParameters):
    """Turn texts into packed blocks of tokens."""

    workload = "prepare"
    params: PrepareParams = Field(default=_DEFAULT, title="What to do")

    def spec(self, scheduled_for: datetime) -> CampaignSpec:
        """Describe the campaign. Writes the demo's texts, or stores a dataset of the hub, if that is requested."""
        spec = super().spec(scheduled_for)
        if isinstance(self.dataset, str) and self.dataset.startswith(HUB):
            return replace(spec, dataset=store_table(self.dataset, self.where.store_root))
        if self.dataset != DEMO:
            return spec
        make_demo_texts(_DEMO_TEXTS)
        return replace(spec, dataset=str((_DEMO_TEXTS / DOCSTRINGS).absolute()))


class Sweep(CampaignParameters):
    """Run the trainings of a table on prepared data."""

    workload = "fine_tune"
    params: FineTuneParams = Field(title="What to do")


class FineTuning(CampaignParameters):
    """Fine-tune a language model on texts: one training, a grid of them, or a list."""

    params: TrainingParams = Field(default=TrainingParams(), title="What to do")
    texts: Texts = Field(default=Texts(), title="Texts")
    grid: Grid = Field(default=Grid(), title="Grid")
    trainings: list[dict[str, Any]] = Field(
        default=[],
        title="Trainings",
        description='Instead of a grid: hyperparameters that differ in each, as {"learning_rate": 0.001, "seed": 1}',
    )
    advanced: Advanced = Field(default=Advanced(is_canary_first=False), title="Advanced")
    """There is no canary, since one training takes long."""

    def spec(self, scheduled_for: datetime) -> CampaignSpec:
        """Describe the first of the two campaigns, which can be checked before anything runs."""
        return self.preparing(self.params.model).spec(scheduled_for)

    def differences(self) -> list[dict[str, Any]]:
        """Return the hyperparameters in which each training differs, in order."""
        if self.trainings:
            return list(self.trainings)
        values = {name: found for name, found in self.grid.model_dump().items() if found}
        return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]

    def preparing(self, model: str) -> PrepareTexts:
        """Return the campaign that prepares the texts for a model. Other sweeps with the same texts reuse it."""
        params = PrepareParams(model=model, **self.texts.model_dump())
        return PrepareTexts(
            dataset=self.dataset, params=params, where=self.where, limits=self.limits, advanced=self.advanced
        )

    def sweep(self, prepared: Mapping[str, str]) -> Sweep:
        """Return the campaign that trains. `prepared` holds the manifest of the prepared texts by base model."""
        rows = [{"id": _name(each), **each} for each in self.differences()]
        for row in rows:
            if "model" in row:
                row["data"] = prepared[row["model"]]
        data = prepared.get(self.params.model) or next(iter(prepared.values()))
        return Sweep(
            dataset=_write_table(self.where.store_root, rows),
            params=FineTuneParams(data=data, **self.params.model_dump()),
            where=self.where,
            limits=self.limits,
            name=self.name,
            advanced=self.advanced.model_copy(update={"id_column": "id"}),
        )


def _name(differences: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in differences.items()) or "training"


def _write_table(store_root: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Store the table of trainings under a name that is made from its content; return its address."""
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    key = f"sweeps/{hashlib.sha256(body).hexdigest()[:16]}.jsonl"
    store = open_store(store_root)
    store.create(key, body)
    return f"{store.uri}/{key}"


@campaign_flow("prepare-texts")
def prepare_texts(campaign: PrepareTexts) -> CampaignSummary:
    """Turn texts into blocks of tokens on GPU workers. Started again with the same texts, it does nothing."""
    return run_campaign(campaign)


@campaign_flow("fine-tuning")
def fine_tuning(campaign: FineTuning) -> CampaignSummary:
    """Prepare the texts once, then train on GPU workers. Start it again with the same parameters to resume."""
    models = {str(each.get("model", campaign.params.model)) for each in campaign.differences()}
    prepared = {}
    for model in sorted(models):
        made = prepare_texts(campaign.preparing(model))
        prepared[model] = f"{made.campaign}/{made.manifest}"
    return run_campaign(campaign.sweep(prepared), tidy=delete_checkpoints)


if __name__ == "__main__":
    sys.exit(main(fine_tuning, FineTuning))
