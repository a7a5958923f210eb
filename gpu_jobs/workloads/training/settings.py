"""Hyperparameters of one fine-tuning, and how its batch is split over processes."""

from typing import Literal, NamedTuple

from pydantic import Field

from gpu_jobs.workloads.base import Params
from gpu_jobs.workloads.text.base import MODEL, ModelName


class TrainingParams(Params):
    """Hyperparameters of one fine-tuning."""

    model: ModelName = Field(default="smollm2-135m-instruct", title="Base model", description=MODEL)
    method: Literal["lora", "full"] = Field(
        default="lora",
        title="Method",
        description="lora: train small adapters and keep the weights fixed; full: train all weights",
    )
    lora_rank: int = Field(default=8, ge=1, title="LoRA rank", description="Size of the adapters")
    lora_alpha: int = Field(
        default=16, ge=1, title="LoRA alpha", description="The adapters' output is scaled by alpha / rank"
    )
    lora_dropout: float = Field(
        default=0.0, ge=0, lt=1, title="LoRA dropout", description="Share of the adapters' inputs dropped at random"
    )
    learning_rate: float = Field(default=2e-4, gt=0, title="Learning rate", description="Learning rate at its peak")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear", title="Schedule", description="How the learning rate falls"
    )
    warmup_steps: int = Field(
        default=0, ge=0, title="Warm-up, steps", description="Steps until the learning rate reaches its peak"
    )
    weight_decay: float = Field(default=0.0, ge=0, title="Weight decay", description="Weight decay of AdamW")
    epochs: float = Field(default=1.0, gt=0, title="Epochs", description="Passes over the training blocks")
    steps: int = Field(default=0, ge=0, title="Steps", description="Number of steps; replaces epochs. 0: use epochs")
    gpus: int = Field(
        default=1,
        ge=1,
        le=16,
        title="GPUs",
        description="Minimum GPUs of each GPU worker; a training uses all GPUs of its worker. One value per sweep",
    )
    batch: int = Field(
        default=16, ge=1, title="Batch", description="Blocks of tokens per step, summed over all GPUs; it never changes"
    )
    micro_batch: int = Field(
        default=0,
        ge=0,
        title="Micro-batch",
        description="Largest number of blocks on one GPU at once; 0: its share of the batch. Halved if memory runs out",
    )
    seed: int = Field(
        default=0, ge=0, title="Seed", description="Seed for the order of blocks, new adapters and dropout"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", title="Precision", description="auto: bf16 where the GPU supports it, else fp16; fp32 on a CPU"
    )
    sharding: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        title="Sharding",
        description="ddp: each GPU holds the whole model; fsdp: each holds a part, for models too big for one",
    )
    gradient_checkpointing: bool = Field(
        default=False, title="Gradient checkpointing", description="Needs less memory; about a third slower"
    )
    eval_steps: int = Field(
        default=50, ge=1, title="Evaluate, steps", description="Steps between two measurements of the validation loss"
    )
    save_steps: int = Field(
        default=50,
        ge=1,
        title="Checkpoint, steps",
        description="Steps between two checkpoints: the most that a killed GPU worker loses",
    )
    patience: int = Field(
        default=0,
        ge=0,
        title="Patience",
        description="Stop after this many evaluations in a row without a new best; 0: never stop early",
    )
    prompt: str = Field(default="", title="Prompt", description="Answered before and after training, to compare by eye")


class BatchSplit(NamedTuple):
    """How a batch is computed: batch = processes x micro-batch x accumulation."""

    processes: int
    micro_batch: int
    accumulation: int


def split_batch(batch: int, processes: int, max_blocks: int) -> BatchSplit:
    """Split a batch exactly over at most `processes` processes, each with at most `max_blocks` at once. Pure."""
    used = _largest_divisor(batch, processes)
    micro_batch = _largest_divisor(batch // used, max_blocks)
    return BatchSplit(used, micro_batch, batch // used // micro_batch)


def _largest_divisor(number: int, largest: int) -> int:
    return next(size for size in range(min(number, largest), 0, -1) if number % size == 0)
