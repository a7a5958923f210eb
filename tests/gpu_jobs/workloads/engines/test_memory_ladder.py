"""What happens when memory runs out: fewer at a time, then fewer bits, then a larger GPU or the item's own error."""

import pytest
import transformers

from gpu_jobs.errors import ModelTooLargeError, WorkloadImportError
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.engines.continuous import ContinuousBatching
from gpu_jobs.workloads.engines.transformers import TransformersEngine

ITEMS = [{"item": f"item-{place}", "text": f"text {place}"} for place in range(4)]


@pytest.fixture
def small_memory(monkeypatch):
    """Memory holds a model of so many bits, and so many requests at a time."""
    calls = []

    def limit(*, precisions, at_once=1):
        def check(precision, count):
            calls.append((precision, count))
            if precision not in precisions or count > at_once:
                import torch

                raise torch.OutOfMemoryError("CUDA out of memory")

        def static(engine, requests, real=TransformersEngine._run_static):
            check(engine.facts["precision"].partition(":")[0], len(requests))
            return real(engine, requests)

        def flow(batching, requests, slots, real=ContinuousBatching.run):
            check("fp32", slots)
            return real(batching, requests, slots)

        monkeypatch.setattr(TransformersEngine, "_run_static", static)
        monkeypatch.setattr(ContinuousBatching, "run", flow)
        return calls

    return limit


def ready(llama, **params):
    workload = load_workload("generate", {"model": llama, "max_new_tokens": 4, **params})
    workload.setup("cpu")
    return workload


@pytest.mark.parametrize(
    ("is_continuous", "at_once", "counts"), [(False, 2, [4, 2, 2, 2, 2]), (True, 4, [64, 32, 16, 8, 4, 4])]
)
def test_first_fewer_at_a_time(llama, small_memory, is_continuous, at_once, counts):
    """Halved until it fits, for good: the next window begins there."""
    calls = small_memory(precisions={"fp32"}, at_once=at_once)
    workload = ready(llama)
    workload._engine.is_continuous = is_continuous
    inputs = [workload.load(item) for item in ITEMS]

    assert len(workload.infer(inputs)) == len(workload.infer(inputs)) == 4

    assert calls == [("fp32", count) for count in counts]
    assert workload.facts["precision"].startswith("fp32")
    workload.teardown()


@pytest.mark.parametrize(("fits", "found"), [({"int8"}, "int8"), ({"int4"}, "int4")])
def test_then_fewer_bits(llama, small_memory, fits, found):
    """One at a time is too much: the model is loaded again in 8 bits, then in 4; the manifest will say why."""
    small_memory(precisions=fits, at_once=64)
    workload = ready(llama)

    rows = workload.infer([workload.load(item) for item in ITEMS])

    assert [len(row["text"]) > 0 for (row,) in rows] == [True] * 4
    before = {"int8": "fp32", "int4": "int8"}[found]
    assert workload.facts["precision"] == f"{found}: memory ran out in {before}, at one text at a time"


def test_a_precision_that_was_asked_for_is_kept(llama, small_memory):
    """Then an item that does not fit alone is an error of its own."""
    small_memory(precisions=set())
    workload = ready(llama, precision="fp32")

    with pytest.raises(RuntimeError, match="out of memory"):
        workload.infer([workload.load(ITEMS[0])])


def test_at_last_a_larger_gpu(llama, small_memory):
    """None of the first texts fits alone: the GPU worker ends, and its offer's memory is too small."""
    small_memory(precisions=set())
    workload = ready(llama, precision="fp32")
    single = workload.load(ITEMS[0])
    for _ in range(5):
        with pytest.raises(RuntimeError, match="CUDA out of memory"):
            workload.infer([single])

    with pytest.raises(ModelTooLargeError, match="in fp32 runs out of memory at one text at a time"):
        workload.infer([single])


def test_a_long_text_among_others_is_no_reason_for_a_larger_gpu(llama, small_memory):
    """Once a text was answered, those that do not fit alone are errors of their own."""
    fits = {"fp32"}
    small_memory(precisions=fits)
    workload = ready(llama, precision="fp32")
    single = workload.load(ITEMS[0])
    workload.infer([single])
    fits.clear()

    for _ in range(10):
        with pytest.raises(RuntimeError, match="CUDA out of memory"):
            workload.infer([single])


@pytest.mark.parametrize("precision", ["int8", "int4", "bf16"])
def test_every_precision_answers(llama, precision, caplog):
    """On a CPU too, though slower there; and without a line in the log for every layer of every token."""
    workload = ready(llama, precision=precision)

    ((row,),) = workload.infer([workload.load(ITEMS[0])])

    assert row["completion_tokens"] > 0
    assert workload.facts["precision"] == f"{precision}: asked for"
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes.autograd")]


def test_a_model_that_cannot_be_loaded_again_is_no_items_fault(llama, small_memory, monkeypatch):
    """Memory runs out and the library for fewer bits is missing: the GPU worker ends, and says which."""
    small_memory(precisions={"int8"})
    workload = ready(llama)
    inputs = [workload.load(item) for item in ITEMS]

    def missing(*_, **__):
        raise ImportError("bitsandbytes is not installed")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", missing)
    with pytest.raises(WorkloadImportError, match="bitsandbytes is not installed"):
        workload.infer(inputs)
