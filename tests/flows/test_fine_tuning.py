"""The flow: texts prepared once, a grid trained, the trainings ranked."""

import json
from datetime import UTC, datetime

import pytest

from flows.fine_tuning import FineTuning, Grid, Texts
from gpu_jobs.errors import RefusedError
from gpu_jobs.store import open_store
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.training.settings import TrainingParams

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def where(tmp_path):
    return {"store_root": str(tmp_path / "store")}


def table_of(sweep):
    """The rows of the table of trainings that the flow has written."""
    root, _, key = sweep.dataset.rpartition("/sweeps/")
    return [json.loads(line) for line in open_store(root).get(f"sweeps/{key}").splitlines()]


def test_a_grid_is_every_combination(where):
    """Each with a name that says in what it differs."""
    grid = Grid(learning_rate=[1e-4, 1e-3], seed=[0, 1])
    sweep = FineTuning(dataset="x", where=where, grid=grid, params=TrainingParams(model="m")).sweep({"m": "data"})

    rows = table_of(sweep)
    assert [row["id"] for row in rows] == [
        "learning_rate=0.0001 seed=0", "learning_rate=0.0001 seed=1", "learning_rate=0.001 seed=0",
        "learning_rate=0.001 seed=1",
    ]  # fmt: skip
    assert rows[0] == {"id": rows[0]["id"], "learning_rate": 1e-4, "seed": 0}
    assert sweep.params.data == "data"


def test_without_a_grid_there_is_one_training(where):
    sweep = FineTuning(dataset="x", where=where, params=TrainingParams(model="m")).sweep({"m": "data"})

    assert [row["id"] for row in table_of(sweep)] == ["training"]


def test_each_base_model_learns_from_texts_in_its_own_tokens(where):
    asked = FineTuning(dataset="x", where=where, trainings=[{"model": "a"}, {"model": "b", "lora_rank": 4}])

    assert [asked.preparing(model).params.model for model in "ab"] == ["a", "b"]
    assert [row["data"] for row in table_of(asked.sweep({"a": "data of a", "b": "data of b"}))] == [
        "data of a",
        "data of b",
    ]


def test_texts_are_prepared_alike_for_sweeps_that_want_the_same(where):
    """So that the second one finds them made: how it trains has no part in it."""
    one, other = (
        FineTuning(
            dataset="x", where=where, texts=Texts(block=64), params=TrainingParams(steps=steps), name=f"s{steps}"
        )
        for steps in (1, 2)
    )

    assert one.spec(NOW) == other.spec(NOW)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"learning_rate": -1.0}, "row 'a': learning_rate: Input should be greater than 0"),
        ({"learningrate": 1.0}, "row 'a': learningrate: Extra inputs are not permitted"),
    ],
)
def test_a_training_that_cannot_be_meant_is_refused_before_anything_runs(row, message):
    from gpu_jobs.dataset.sources import Source

    workload = load_workload("fine_tune", {"data": "x/manifests/y.json"})
    with pytest.raises(RefusedError, match=message):
        list(workload.items([Source(id="a", uri="", fingerprint="", columns={"id": "a", **row})]))
