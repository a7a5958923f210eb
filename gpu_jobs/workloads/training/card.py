"""The model card of a fine-tuned model: its base model, data and hyperparameters."""

import json

from gpu_jobs.workloads.training.gang_files import GangOutcome
from gpu_jobs.workloads.training.gang_supervisor import TrainingSetup
from gpu_jobs.workloads.training.settings import BatchSplit, TrainingParams

_LIBRARY = {"lora": "peft", "full": "transformers"}
_CARD = """---
base_model: {model}
library_name: {library}
pipeline_tag: text-generation
tags: [{method}, fanfold]
---

# {item}

{what} of `{model}`, made by Fanfold.

| | before | after |
|---|---|---|
| validation loss | {before:.4f} | {after:.4f} |

{steps} steps of {batch} blocks of {block} tokens (processes x blocks at once x accumulated: {processes} x {micro_batch}
x {accumulation}), in {precision}.{early}{kept}

- base weights: `{model}`, digest `{weights}`
- data: `{data}`, its settings and source are in that campaign's plan
- hyperparameters: `{params}`
{samples}"""
_SAMPLES = """
The prompt {prompt}, continued greedily:

- before: {before}
- after: {after}
"""


def model_card(
    item: str,
    params: TrainingParams,
    setup: TrainingSetup,
    outcome: GangOutcome,
    batch_split: BatchSplit,
    *,
    weights: str,
    data: str,
    block: int,
) -> str:
    """Return the card as Markdown with the Hugging Face hub's front matter; `block` is in tokens."""
    samples = _SAMPLES.format(
        prompt=json.dumps(params.prompt), before=json.dumps(outcome.log[0]["sample"]), after=json.dumps(outcome.sample)
    )
    return _CARD.format(
        item=item,
        model=params.model,
        library=_LIBRARY[params.method],
        method=params.method,
        what="LoRA adapter" if params.method == "lora" else "Full fine-tuning",
        before=outcome.log[0]["eval_loss"],
        after=outcome.eval_loss,
        steps=outcome.step,
        batch=params.batch,
        block=block,
        **batch_split._asdict(),
        precision=setup.precision,
        early=" It stopped early: the validation loss fell no more." if outcome.stopped_early else "",
        kept=f" These are the weights of step {outcome.kept_step}." if outcome.kept_step < outcome.step else "",
        weights=weights,
        data=data,
        params=params.model_dump_json(exclude={"model", "prompt"}),
        samples=samples if params.prompt else "",
    )
