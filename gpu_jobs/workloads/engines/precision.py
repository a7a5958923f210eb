"""Chooses in how many bits a model's weights are held: as requested, or the most that fit the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "int4"]

BITS: dict[str, int] = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 4}
_STORED = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_MAX_WEIGHT_SHARE = 0.8
"""Share of the memory that weights may use; the rest is for activations and the key-value cache."""
_BF16_CAPABILITY = 8
"""Lowest major CUDA compute capability with bf16 (Ampere)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The properties of a device on which the choice of precision depends."""

    name: str
    """Name for people: "cpu", or the GPU's name."""
    kind: Literal["cpu", "cuda"]
    free_bytes: int
    """Free memory, summed over all GPUs that the model may span."""
    has_bf16: bool


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """A precision, and the reason for people."""

    precision: str
    reason: str


def choose_precision(asked: Precision, num_params: int, device: Device) -> PrecisionChoice:
    """Choose the precision for a model with `num_params` parameters. Pure."""
    if asked != "auto":
        return PrecisionChoice(asked, "asked for")
    plain = "fp32" if device.kind == "cpu" else "bf16" if device.has_bf16 else "fp16"
    for precision in (plain, "int8", "int4"):
        size = num_params * BITS[precision] // 8
        if size <= _MAX_WEIGHT_SHARE * device.free_bytes:
            why = "the fastest here" if precision == plain else f"{plain} does not fit"
            return PrecisionChoice(precision, f"{why}: {_gib(size)} of {_gib(device.free_bytes)} free on {device.name}")
    return PrecisionChoice(
        "int4", f"the smallest there is: {_gib(size)}, though only {_gib(device.free_bytes)} are free"
    )


def memory_gib(precision: Precision, size_bytes: int, config: Mapping[str, Any]) -> float:
    """GPU memory in GiB needed for weights of `size_bytes`, stored as `config` says; "auto" counts as 4 bits."""
    stored = BITS[_STORED.get(config.get("dtype") or config.get("torch_dtype") or "", "bf16")]
    wanted = BITS["int4" if precision == "auto" else precision]
    if "quantization_config" not in config:  # quantized files are loaded as they are
        size_bytes = size_bytes * wanted // stored
    return size_bytes / _MAX_WEIGHT_SHARE / 2**30


def next_lower(precision: str) -> str:
    """The next lower precision to try when memory runs out for a single request; "" if there is none."""
    return {"fp32": "int8", "bf16": "int8", "fp16": "int8", "int8": "int4"}.get(precision, "")


def describe_device(device: str, num_gpus: int) -> Device:
    """Read the device's name, kind, free memory and bf16 support."""
    import psutil
    import torch

    if device == "cpu":
        return Device(name="cpu", kind="cpu", free_bytes=psutil.virtual_memory().available, has_bf16=False)
    free_bytes = sum(torch.cuda.mem_get_info(index)[0] for index in range(num_gpus))
    has_bf16 = torch.cuda.get_device_capability(device)[0] >= _BF16_CAPABILITY
    return Device(name=torch.cuda.get_device_name(device), kind="cuda", free_bytes=free_bytes, has_bf16=has_bf16)


def count_params(folder: Path) -> int:
    """Count the parameters in a folder's safetensors files, from their headers only; 0 without such files."""
    from safetensors import safe_open

    total = 0
    opened: Any = safe_open
    for path in folder.glob("*.safetensors"):
        with opened(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                size = 1
                for length in file.get_slice(key).get_shape():
                    size *= length
                total += size
    return total


def load_arguments(precision: str, device: str, num_gpus: int) -> dict[str, Any]:
    """Arguments for transformers' `from_pretrained`; int8 and int4 (nf4) are computed by bitsandbytes."""
    import torch
    from transformers import BitsAndBytesConfig

    arguments: dict[str, Any] = {"device_map": "auto" if num_gpus > 1 else {"": device}}
    if BITS[precision] > BITS["int8"]:
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return arguments | {"dtype": kinds[precision]}
    config: Any = BitsAndBytesConfig
    compute = torch.float32 if device == "cpu" else torch.float16
    if precision == "int8":
        quantization = config(load_in_8bit=True)
    else:
        quantization = config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
    return arguments | {"quantization_config": quantization, "dtype": compute}


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
