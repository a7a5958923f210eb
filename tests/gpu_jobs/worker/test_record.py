"""What a GPU worker tells of itself."""

import json
from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter

from gpu_jobs.jobs.costs import WorkerSeconds
from gpu_jobs.ledger.gpu_use import GpuUse
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.telemetry.latencies import step_of
from gpu_jobs.worker.gpu import NoGpu, NvmlSampler, open_sampler
from gpu_jobs.worker.in_flight import InFlightChunks
from gpu_jobs.worker.messages import Done
from gpu_jobs.worker.record import WorkerRecord


class FakeNvml:
    """NVML as far as the sampler uses it; uses come from a script, an exception among them is raised."""

    class NVMLError(Exception):
        pass

    def __init__(self, uses):
        self._uses = iter(uses)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        use = next(self._uses)
        if isinstance(use, Exception):
            raise use
        return SimpleNamespace(gpu=use)

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(used=3 * 2**30)


@pytest.fixture
def record() -> WorkerRecord:
    return WorkerRecord("boot", None, 0, InFlightChunks(), NoGpu("this is a test"))


def test_gpu_use_is_the_mean_so_far():
    """A single reading tells little: the last one is often taken when all is over."""
    sampler = NvmlSampler(FakeNvml([100, 50]))

    assert sampler.read() == (GpuUse(busy_share=1.0, memory_gib=3.0), "")
    assert sampler.read() == (GpuUse(busy_share=0.75, memory_gib=3.0), "")


def test_what_a_gpu_does_not_tell_is_unknown():
    """Never zero: on some GPUs one reading fails and another works."""
    sampler = NvmlSampler(FakeNvml([FakeNvml.NVMLError("Not Supported")]))

    use, note = sampler.read()
    assert (use, note) == (GpuUse(busy_share=None, memory_gib=3.0), "Not Supported")
    assert use.words == "3.0 GiB in use"


def test_without_a_driver_the_gpu_worker_goes_on_and_says_so():
    """This machine may have one; if it has, it is used."""
    sampler = open_sampler()

    assert sampler.device in ("cpu", "cuda:0")
    assert (sampler.device == "cpu") == (sampler.read().use is None)
    assert (sampler.device == "cpu") <= bool(sampler.read().note)


def test_seconds_are_booked_under_the_status_that_held(record, monkeypatch):
    """Starting, of which loading the model is a part, then working, then idle."""
    now = record._ticked_at
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("gpu_jobs.worker.record.time", clock)
    now += 10
    record.note_model_loaded(4.0, "cpu")
    record.tick("working")
    now += 7
    record.tick("idle")
    now += 2
    record.end("done")
    now += 100

    assert record.heartbeat().seconds == WorkerSeconds(starting=6, model_load=4, working=7, idle=2)


def test_a_stuck_supervisor_gives_no_sign_of_life(record, monkeypatch):
    """Its heartbeat thread alone must not keep its leases alive."""
    assert record.heartbeat() is not None
    later = record._ticked_at + 61
    monkeypatch.setattr("gpu_jobs.worker.record.time", SimpleNamespace(monotonic=lambda: later))

    assert record.heartbeat() is None


def test_items_and_failures_are_counted(record):
    """Error rows are items done, too."""
    record.count(Done(token=1, range=Chunk(0, 5), body=b"", num_failed=2, busy_s=0.5, latency_s=0.5))

    record.count(Done(token=1, range=Chunk(5, 6), body=b"", num_failed=0, busy_s=0.0, latency_s=2.0))

    heartbeat = record.heartbeat()
    assert (heartbeat.items_done, heartbeat.items_failed, heartbeat.seconds.infer) == (6, 2, 0.5)
    assert heartbeat.latencies == {step_of(0.5): 5, step_of(2.0): 1}


def test_heartbeats_of_earlier_versions_are_read(record):
    """Seconds were a dict that left out zeros, GPU use was a sentence, and nothing said that an item is long."""
    told = json.loads(TypeAdapter(Heartbeat).dump_json(record.heartbeat()))
    for name in ("is_warm", "latencies", "gpu_use", "gpu_note", "is_at_long_item", "progress_marks"):
        del told[name]
    told |= {"version": 1, "gpu": "busy 88 % of the time", "doing": "step 3 of 9"}
    told["seconds"] = {"starting": 1.5, "model_load": 0.5, "working": 7.0, "idle": 1.0, "infer": 6.0, "preempted": 2.0}

    read = TypeAdapter(Heartbeat).validate_json(json.dumps(told))

    assert (read.is_warm, read.latencies, read.gpu_use, read.gpu_note) == (False, {}, None, "")
    assert (read.is_at_long_item, read.progress_marks, read.doing) == (False, 0, "step 3 of 9")
    assert read.seconds == WorkerSeconds(starting=1.5, model_load=0.5, working=7.0, idle=1.0, infer=6.0, preempted=2.0)
    assert read.seconds.lived_s == 10.0


def test_a_gpu_worker_says_that_it_is_at_a_long_item_and_that_it_gets_on(record):
    """As values: what it says in words is for people."""
    record.is_long = True
    record.tick("working")
    before = record.heartbeat()
    record.note_progress("step 1 of 9")
    record.note_progress("step 1 of 9")

    after = record.heartbeat()

    assert (before.is_at_long_item, before.doing, before.progress_marks) == (True, "", 0)
    assert (after.is_at_long_item, after.doing, after.progress_marks) == (True, "step 1 of 9", 2)
    record.tick("idle")
    assert not record.heartbeat().is_at_long_item
