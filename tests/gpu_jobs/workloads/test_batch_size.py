"""How many inputs a model takes at once: found out at work."""

import pytest

from gpu_jobs.workloads.batch_size import Batches, BatchSize


class Meter:
    """Stands in for `perf_counter`: seconds pass only in the model."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def meter(monkeypatch):
    meter = Meter()
    monkeypatch.setattr("gpu_jobs.workloads.batch_size.perf_counter", meter)
    return meter


def run_windows(size, meter, best, *, num_windows=8, fits=10**9):
    """Windows of 64 through a model that is fastest at `best` inputs at once and holds `fits`."""
    calls = []

    def model(inputs):
        calls.append(len(inputs))
        if len(inputs) > fits:
            import torch

            raise torch.OutOfMemoryError
        meter.now += 1 + max(0, len(inputs) - best)
        return inputs

    batches = Batches(size)
    for _ in range(num_windows):
        assert batches.run(model, list(range(64))) == list(range(64))
    return calls


@pytest.mark.parametrize(("best", "found"), [(2, 2), (4, 4), (8, 8), (100, 16)])
def test_a_size_grows_while_that_pays(meter, best, found):
    """It doubles as long as throughput rises, ends at the last size that paid, and never exceeds its limit."""
    size = BatchSize(2, maximum=16)

    run_windows(size, meter, best)

    assert (size.value, size.is_final) == (found, True)


def test_out_of_memory_ends_the_growth(meter):
    """At 8 memory runs out: it stays at 4, every input has its output, and 8 is never tried again."""
    size = BatchSize(2, maximum=64)

    calls = run_windows(size, meter, best=100, fits=7)

    assert (size.value, size.is_final) == (4, True)
    assert calls.count(8) == 1


def test_a_size_that_was_learned_elsewhere_is_kept(meter):
    size = BatchSize(2, maximum=64)
    size.start_at(8)

    calls = run_windows(size, meter, best=100)

    assert set(calls) == {8}


def test_batches_are_cut_by_cost_with_padding():
    """Each input counts as much as the dearest of its batch; one that exceeds the size goes alone."""
    calls = []

    def model(inputs):
        calls.append(inputs)
        return inputs

    inputs = ["xxxxxxxxxxxx", "xxxx", "xxx", "x", "x", "x"]

    assert Batches(BatchSize(8), cost=len).run(model, inputs) == inputs
    assert calls == [["xxxxxxxxxxxx"], ["xxxx", "xxx"], ["x", "x", "x"]]


def test_an_error_that_is_not_of_memory_is_raised():
    def model(inputs):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Batches(BatchSize(8)).run(model, [1, 2])
