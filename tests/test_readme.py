"""What README shows works: its Python code is run here, and what it imports can be imported."""

import re
import sys
from pathlib import Path

import polars as pl

import gpu_jobs.collect
import gpu_jobs.split
from gpu_jobs.campaign import CampaignSpec, collect
from tests.project import ROOT

README = ROOT / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_imports_of_earlier_versions_of_the_readme_still_work():
    """Code that was written before the modules moved need not change."""
    assert gpu_jobs.collect.collect is collect
    assert gpu_jobs.split.CampaignSpec is CampaignSpec


def test_the_workload_of_the_readme_runs_as_it_is_shown(tmp_path, monkeypatch, capsys):
    """The class in a package of its own, the campaign in a folder; an item that it refuses is quarantined."""
    workload = next(block for block in blocks() if "class Lengths" in block)
    campaign = next(block for block in blocks() if "open_campaign(" in block)
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "lengths.py").write_text(workload)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}:{README.parent}")
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.syspath_prepend(str(tmp_path))
    pl.DataFrame({"id": ["a", "b", "c"], "text": ["one", "", "three"]}).write_parquet("texts.parquet")

    scope = {"__name__": "readme"}
    exec(compile(campaign, "README.md", "exec"), scope)

    sys.modules.pop("my_package.lengths", None)
    assert scope["manifest"].num_committed == 2
    assert scope["manifest"].num_quarantined == 1
    assert "3 of 3" in capsys.readouterr().out
