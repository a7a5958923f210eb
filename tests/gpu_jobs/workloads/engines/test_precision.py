"""How many bits a model's weights get."""

from pathlib import Path

import pytest
import transformers

from gpu_jobs.workloads.engines.precision import Device, PrecisionChoice, choose_precision, count_params, next_lower

GIB = 2**30


def a_gpu(free_gib, *, has_bf16=True):
    return Device(name="L4", kind="cuda", free_bytes=round(free_gib * GIB), has_bf16=has_bf16)


CPU = Device(name="cpu", kind="cpu", free_bytes=16 * GIB, has_bf16=False)
BILLION = 10**9


@pytest.mark.parametrize(
    ("billions", "device", "chosen", "why"),
    [
        (7, a_gpu(24), "bf16", "the fastest here: 13.0 GiB of 24.0 GiB free on L4"),
        (7, a_gpu(24, has_bf16=False), "fp16", "the fastest here"),
        (13, a_gpu(24), "int8", "bf16 does not fit: 12.1 GiB of 24.0 GiB free on L4"),
        (32, a_gpu(24), "int4", "bf16 does not fit"),
        (32, a_gpu(80), "bf16", "the fastest here"),
        (70, a_gpu(24), "int4", "the smallest there is"),
        (1, CPU, "fp32", "the fastest here"),
        (7, CPU, "int8", "fp32 does not fit"),
    ],
)
def test_auto_takes_the_fastest_that_fits(billions, device, chosen, why):
    choice = choose_precision("auto", billions * BILLION, device)

    assert choice.precision == chosen
    assert why in choice.reason


def test_what_was_asked_for_is_taken():
    assert choose_precision("int4", BILLION, CPU) == PrecisionChoice("int4", "asked for")


def test_the_ladder_ends_at_four_bits():
    ladder, step = [], "bf16"
    while step:
        ladder.append(step)
        step = next_lower(step)

    assert ladder == ["bf16", "int8", "int4"]


def test_parameters_are_counted_from_headers(llama):
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    assert count_params(Path(llama)) == sum(p.numel() for p in model.parameters())
