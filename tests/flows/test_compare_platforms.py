"""The comparison as a flow: published figures rent nothing; a workload is run on each platform in turn."""

from pathlib import Path

import polars as pl
import pytest

from flows.compare_platforms import ComparePlatforms, compare_platforms
from gpu_jobs.errors import RefusedError


def test_published_figures_are_compared_without_renting_anything(tmp_path):
    """The default: a page with all three platforms."""
    where = compare_platforms(ComparePlatforms(store_root=str(tmp_path)))

    page = Path(where).read_text()
    assert all(name in page for name in ("cloud_run", "modal", "runpod", "62.00"))


def test_a_workload_is_measured_on_this_machine(tmp_path, monkeypatch):
    """A real campaign, its cold start and pace in the table."""
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))
    table = tmp_path / "items.parquet"
    pl.DataFrame({"id": [f"item-{number}" for number in range(40)]}).write_parquet(table)
    asked = {"dataset": str(table), "params": {"sleep_s": 0.1}, "platforms": ["local"], "items_a_month": 10_000}

    where = compare_platforms(ComparePlatforms(store_root=str(tmp_path / "store"), **asked))

    page = Path(where).read_text()
    assert ">local<" in page
    assert "Measured by this flow." in page


def test_a_platform_that_cannot_be_used_is_refused(tmp_path):
    """Before anything starts, with the field's name."""
    asked = ComparePlatforms(store_root=str(tmp_path), dataset="gs://bucket/texts.parquet", platforms=["modal"])

    with pytest.raises(RefusedError, match="store_root"):
        compare_platforms(asked)
