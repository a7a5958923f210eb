"""What one fine-tuning is told: hyperparameters, and how its batch is shared out."""

from typing import Literal, NamedTuple

from pydantic import Field

from gpu_jobs.workloads.base import Params
from gpu_jobs.workloads.text.base import MODEL, ModelName


class TrainingParams(Params):
    """Hyperparameters of one fine-tuning."""

    model: ModelName = Field(default="smollm2-135m-instruct", title="Base model", description=MODEL)
    method: Literal["lora", "full"] = Field(
        default="lora", title="Method", description="lora: train small adapters beside the weights; full: all weights"
    )
    lora_rank: int = Field(default=8, ge=1, title="LoRA rank", description="Size of the adapters")
    lora_alpha: int = Field(default=16, ge=1, title="LoRA alpha", description="Weight of the adapters, times the rank")
    lora_dropout: float = Field(
        default=0.0, ge=0, lt=1, title="LoRA dropout", description="Share of the adapters' inputs left out"
    )
    learning_rate: float = Field(default=2e-4, gt=0, title="Learning rate", description="At its peak")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear", title="Schedule", description="How the learning rate falls"
    )
    warmup_steps: int = Field(
        default=0, ge=0, title="Warm-up, steps", description="Until the learning rate is at its peak"
    )
    weight_decay: float = Field(default=0.0, ge=0, title="Weight decay", description="As AdamW understands it")
    epochs: float = Field(default=1.0, gt=0, title="Epochs", description="Passes over the training blocks")
    steps: int = Field(default=0, ge=0, title="Steps", description="Instead of epochs; 0: as the epochs say")
    gpus: int = Field(
        default=1,
        ge=1,
        le=16,
        title="GPUs",
        description="Of each GPU worker, at least; a training takes all that its GPU worker has. The same for a sweep",
    )
    batch: int = Field(
        default=16, ge=1, title="Batch", description="Blocks of tokens per step, over all GPUs; it never changes"
    )
    micro_batch: int = Field(
        default=0,
        ge=0,
        title="Micro-batch",
        description="Blocks that one GPU takes at once, at most; 0: its share of the batch. Fewer if memory runs out",
    )
    seed: int = Field(
        default=0, ge=0, title="Seed", description="Of the order of the blocks, of new adapters, of dropout"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", title="Precision", description="auto: bf16 where the GPU has it, else fp16; fp32 on a CPU"
    )
    sharding: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        title="Sharding",
        description="ddp: each GPU holds the whole model; fsdp: each holds a part, for models too big for one",
    )
    gradient_checkpointing: bool = Field(
        default=False, title="Gradient checkpointing", description="Less memory, about a third slower"
    )
    eval_steps: int = Field(
        default=50, ge=1, title="Evaluate, steps", description="Validation loss is measured each so many steps"
    )
    save_steps: int = Field(
        default=50, ge=1, title="Checkpoint, steps", description="What a death of the GPU worker costs at most"
    )
    patience: int = Field(
        default=0,
        ge=0,
        title="Patience",
        description="Stop after so many evaluations in a row that were no better than the best; 0: never",
    )
    prompt: str = Field(default="", title="Prompt", description="Continued before and after, for people to compare")


class BatchSplit(NamedTuple):
    """A batch is processes x micro-batch x accumulation."""

    processes: int
    micro_batch: int
    accumulation: int


def split_batch(batch: int, processes: int, most: int) -> BatchSplit:
    """Share a batch out exactly among at most so many processes, each taking at most `most` blocks at once. Pure."""
    used = _largest_divisor(batch, processes)
    micro_batch = _largest_divisor(batch // used, most)
    return BatchSplit(used, micro_batch, batch // used // micro_batch)


def _largest_divisor(number: int, most: int) -> int:
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)
