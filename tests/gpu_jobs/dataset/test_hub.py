"""Datasets by their hub ids: the hub's own client, which has them in its cache, since no test may reach the hub."""

from datetime import UTC, datetime

import polars as pl
import pytest

from flows.fine_tuning import FineTuning
from gpu_jobs.dataset.hub import store_table
from gpu_jobs.dataset.sources import read_sources
from gpu_jobs.errors import RefusedError
from gpu_jobs.store import open_store

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Two files of one split, as the client keeps what it has downloaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("FANFOLD_MODEL_CACHE", str(tmp_path / "cache"))
    repo = tmp_path / "cache" / "hub-datasets" / "datasets--someone--Poems"
    (repo / "refs" / "refs" / "convert").mkdir(parents=True)
    (repo / "refs" / "refs" / "convert" / "parquet").write_text(COMMIT)

    def put(config, split, **columns):
        folder = repo / "snapshots" / COMMIT / config / split
        folder.mkdir(parents=True)
        frame = pl.DataFrame(columns)
        frame[:2].write_parquet(folder / "0000.parquet")
        frame[2:].write_parquet(folder / "0001.parquet")

    return put


def test_a_split_becomes_one_table_whose_rows_are_numbered(cached, tmp_path):
    cached("default", "train", text=["a", "b", "c"])

    address = store_table("hub:someone/Poems", str(tmp_path / "store"))

    assert pl.read_parquet(address).rows() == [(0, "a"), (1, "b"), (2, "c")]
    assert store_table("hub:someone/Poems", str(tmp_path / "store")) == address
    assert len(list(open_store(str(tmp_path / "store")).list("datasets/"))) == 1


def test_ids_of_its_own_are_kept_and_a_split_can_be_named(cached, tmp_path):
    cached("verse", "test", id=["x", "y", "z"], text=["a", "b", "c"])

    address = store_table("hub:someone/Poems/verse/test", str(tmp_path / "store"))

    assert pl.read_parquet(address)["id"].to_list() == ["x", "y", "z"]


def test_the_flow_takes_an_id_as_its_dataset(cached, tmp_path):
    cached("default", "train", text=["a", "b", "c"])
    asked = FineTuning(dataset="hub:someone/Poems", where={"store_root": str(tmp_path / "store")})

    spec = asked.spec(datetime(2026, 11, 24, 12, tzinfo=UTC))

    assert [source.columns["text"] for source in read_sources(spec.dataset, suffixes=())] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("hub:poems", "is not hub:OWNER/NAME"),
        ("hub:someone/Poems/other", "name its config and split"),
        ("hub:nobody/nothing", "cannot be loaded"),
    ],
)
def test_what_cannot_be_had_is_refused(cached, tmp_path, dataset, message):
    cached("default", "train", text=["a", "b", "c"])

    with pytest.raises(RefusedError, match=message):
        store_table(dataset, str(tmp_path / "store"))
