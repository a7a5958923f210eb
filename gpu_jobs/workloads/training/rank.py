"""One process of a gang: `torchrun … -m gpu_jobs.workloads.training.rank <gang_spec.json>`, with a Trainer."""

import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from typing_extensions import override

from gpu_jobs.errors import DivergedError
from gpu_jobs.workloads.batch_size import is_out_of_memory
from gpu_jobs.workloads.training.callbacks import KeepBestWeights, MarkCheckpointSaved, RecordMetrics, StopWhenRequested
from gpu_jobs.workloads.training.gang_files import BEST, MODEL, GangOutcome, GangSpec, read_spec, write_outcome
from gpu_jobs.workloads.training.prepared import TRAIN, VALIDATION

_PEER_TIMEOUT_S = 600
_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
_SAMPLE_TOKENS = 60
_WATCH_S = 0.5


def main(path: str) -> None:
    spec = read_spec(Path(path))
    threading.Thread(target=_exit_with_process, args=(spec.watched_pid,), daemon=True).start()
    try:
        outcome = train(spec)
    except Exception as error:
        if (failure := _failure_outcome(error)) is not None:
            write_outcome(spec.out, failure)
        raise
    if _rank() == 0:
        write_outcome(spec.out, outcome)


def train(spec: GangSpec) -> GangOutcome:
    """Train to the end, or to the step at which a stop is requested."""
    params = spec.params
    set_seed(params.seed)
    blocks = {
        TRAIN: Blocks(Path(spec.data_folder, TRAIN), multiple_of=params.batch),
        VALIDATION: Blocks(Path(spec.data_folder, VALIDATION)),
    }
    stop, record = StopWhenRequested(spec), RecordMetrics(spec, params.batch * blocks[TRAIN].block)
    trainer = ShardingTrainer(
        model=_model(spec),
        args=_arguments(spec),
        train_dataset=blocks[TRAIN],
        eval_dataset=blocks[VALIDATION],
        callbacks=[stop, record],
    )
    if params.patience:
        trainer.add_callback(KeepBestWeights(spec, trainer.save_weights))
        trainer.add_callback(EarlyStoppingCallback(params.patience))
    trainer.add_callback(MarkCheckpointSaved(spec, _rank()))  # last, after everything else has been written
    if not spec.resume_from:
        record.sample_before = _sample(trainer, spec)
    trainer.train(resume_from_checkpoint=spec.resume_from or None)
    state = trainer.state
    if stop.is_stop_requested and state.global_step < state.max_steps:
        return GangOutcome(kind="stopped", step=state.global_step)
    last = next((row for row in reversed(state.log_history) if "eval_loss" in row), {})
    loss = last["eval_loss"] if last.get("step") == state.global_step else trainer.evaluate()["eval_loss"]
    best_loss = state.best_metric if params.patience and state.best_metric is not None else math.inf
    if best_loss < loss:
        trainer.use_best_weights(spec)
    else:
        trainer.save_weights(str(Path(spec.out, MODEL)))
    return GangOutcome(
        kind="finished",
        step=state.global_step,
        kept_step=(best_loss < loss and state.best_global_step) or state.global_step,
        eval_loss=min(best_loss, loss),
        stopped_early=state.global_step < state.max_steps,
        log=[{**row} for row in state.log_history if {"loss", "eval_loss"} & row.keys()],
        sample=_sample(trainer, spec),
    )


class ShardingTrainer(Trainer):
    """Shards on CPUs too, where accelerate would ignore the FSDP option silently; the code path is that of GPUs."""

    @override
    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and not self.is_fsdp_enabled:
            state = self.accelerator.state
            state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    def save_weights(self, folder: str) -> None:
        """Write the complete weights, by the first process, even if sharded. All processes must call it."""
        if not self.is_fsdp_enabled:
            self.save_model(folder)
            return
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        model: Any = self.model
        found: dict[str, Any] = get_model_state_dict(model, options=options)
        if self.args.should_save:
            self._save(folder, {name: _wait_for(weights) for name, weights in found.items()})

    def use_best_weights(self, spec: GangSpec) -> None:
        """Publish the best weights as the finished model; the first process loads them, since it makes samples."""
        if not self.args.should_save:
            return
        self.state.best_model_checkpoint = str(Path(spec.out, BEST))
        if not self.is_fsdp_enabled:
            self._load_best_model()
        Path(spec.out, BEST).rename(Path(spec.out, MODEL))


def _wait_for(weights: torch.Tensor) -> torch.Tensor:
    """Wait for gathered weights to arrive: on a CPU nothing else has waited for them yet."""
    return weights.wait() if isinstance(weights, AsyncCollectiveTensor) else weights


class Blocks(Dataset[dict[str, torch.Tensor]]):
    """Packed blocks of tokens, read from a memory-mapped file on demand."""

    def __init__(self, folder: Path, *, multiple_of: int = 1) -> None:
        """Drop the blocks beyond a multiple of `multiple_of`: an incomplete batch would depend on its split."""
        tokens = np.load(folder.with_suffix(".npy"), mmap_mode="r")
        self._tokens = tokens[: len(tokens) // multiple_of * multiple_of]
        self.block = int(self._tokens.shape[1])

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.from_numpy(self._tokens[index].astype(np.int64))
        return {"input_ids": tokens, "labels": tokens}


def _model(spec: GangSpec) -> Any:
    params = spec.params
    auto: Any = AutoModelForCausalLM
    is_frozen_bf16 = params.method == "lora" and spec.precision == "bf16"  # adapters stay in 32 bits
    model = auto.from_pretrained(spec.model_folder, dtype=torch.bfloat16 if is_frozen_bf16 else torch.float32)
    model.config.use_cache = False
    if params.method == "full":
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=params.lora_rank,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    adapted: Any = get_peft_model(model, config)
    if spec.gradient_checkpointing:
        adapted.enable_input_require_grads()
    return adapted


def _arguments(spec: GangSpec) -> Any:
    params = spec.params
    arguments: Any = TrainingArguments  # the annotation of `fsdp` still has its old type, a string
    return arguments(
        output_dir=spec.out,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.schedule,
        warmup_steps=params.warmup_steps,
        weight_decay=params.weight_decay,
        num_train_epochs=params.epochs,
        max_steps=params.steps or -1,
        per_device_train_batch_size=spec.micro_batch,
        per_device_eval_batch_size=spec.micro_batch,
        gradient_accumulation_steps=spec.accumulation,
        **(
            {"gradient_checkpointing": True} if spec.gradient_checkpointing else {}
        ),  # deprecated, so only set if needed
        dataloader_drop_last=True,
        seed=params.seed,
        data_seed=params.seed,
        bf16=spec.precision == "bf16",
        fp16=spec.precision == "fp16",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would hide a divergence
        save_steps=params.save_steps,
        eval_strategy="steps",
        eval_on_start=not spec.resume_from,  # by train(): evaluate() before it would leave the model without DDP
        eval_steps=params.eval_steps,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=bool(params.patience),
        use_cpu=spec.device == "cpu",
        ddp_backend=_BACKENDS[spec.device] if "RANK" in os.environ else None,
        ddp_find_unused_parameters=False,
        ddp_timeout=_PEER_TIMEOUT_S,
        fsdp=params.sharding == "fsdp",
        fsdp_config={
            "state_dict_type": "SHARDED_STATE_DICT"
        },  # each process writes its part; any number of processes can read them
        report_to=[],
        disable_tqdm=True,
    )


def _sample(trainer: Trainer, spec: GangSpec) -> str:
    """The model's greedy answer to the prompt; "" without a prompt, with FSDP, and on other ranks."""
    if not spec.params.prompt or _rank() or spec.params.sharding == "fsdp":
        return ""
    auto: Any = AutoTokenizer
    tokenizer = auto.from_pretrained(spec.model_folder)
    model: Any = trainer.model
    given = tokenizer(spec.params.prompt, return_tensors="pt").to(model.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        made = model.generate(**given, max_new_tokens=_SAMPLE_TOKENS, do_sample=False)
    model.train(was_training)
    return str(tokenizer.decode(made[0][given["input_ids"].shape[1] :], skip_special_tokens=True))


def _failure_outcome(error: Exception) -> GangOutcome | None:
    """The outcome to report for an exception; None if it only follows from the death of another process."""
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, DivergedError):
        return GangOutcome(kind="diverged", detail=str(error))
    if is_out_of_memory(error):
        return GangOutcome(kind="out of memory", detail=detail)
    words = detail.lower()
    is_echo = isinstance(error, torch.distributed.DistError) or "gloo" in words or "nccl" in words
    return None if is_echo else GangOutcome(kind="error", detail=detail)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _exit_with_process(pid: int) -> None:
    """Exit when the GPU worker's process ends, however it ends."""
    try:
        watched = psutil.Process(pid)
        while watched.is_running() and watched.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_WATCH_S)
    except psutil.NoSuchProcess:
        pass
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
