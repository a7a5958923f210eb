"""What the rows of Fanfold's own platforms say is true."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gpu_jobs.platforms import known_offers, open_place
from gpu_jobs.platforms.table import BUILT_IN, ENTRY_POINTS, PlatformRow

ROOT = Path(__file__).parents[3]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
PAGE = (ROOT / "docs" / "adding-a-platform.md").read_text()
BY_NAME = pytest.mark.parametrize("row", BUILT_IN, ids=lambda row: row.name)


@BY_NAME
def test_what_a_row_names_exists(row):
    """And is of this platform: its adapter, its settings, its offers, the folder that it lives in."""
    for place in filter(None, (row.adapter, row.settings, row.doctor, row.deploy, row.offers)):
        assert open_place(row, place)
    if row.emulator:
        module, _, attribute = row.emulator.partition(":")
        assert getattr(importlib.import_module(module), attribute)

    assert open_place(row, row.adapter).name == row.name
    assert row.adapter.startswith(f"gpu_jobs.platforms.{row.name}")
    assert {offer.platform for offer in known_offers([row.name])} == {row.name}


@BY_NAME
def test_settings_begin_with_the_platforms_name(row):
    """So that no two platforms read the same variable."""
    if row.settings:
        assert open_place(row, row.settings).model_config["env_prefix"] == f"FANFOLD_{row.name.upper()}_"


@BY_NAME
def test_what_is_to_be_installed_brings_the_vendors_package(row):
    """By the extras of pyproject.toml."""
    if row.install:
        (extra,) = Requirement(row.install).extras
        assert row.package in {Requirement(each).name for each in EXTRAS[extra]}


def test_adapters_of_all_rows_are_kept_apart():
    """By an import contract, which lists them."""
    contracts = {each["name"]: each for each in PYPROJECT["tool"]["importlinter"]["contracts"]}
    apart = contracts["adapters never import one another"]["modules"]

    assert {each.rpartition(".")[2] for each in apart} == {row.name for row in BUILT_IN}


def test_the_page_about_adding_a_platform_fits_the_code():
    """Its example is a row, and the files that it names are there."""
    example = re.search(r"^PlatformRow\(\n.*?^\)$", PAGE, re.DOTALL | re.MULTILINE)[0]
    row = eval(example, {"PlatformRow": PlatformRow})
    files = {name for name in re.findall(r"(?:gpu_jobs|tests)/[\w./]+\.(?:py|toml)", PAGE) if "lambda" not in name}

    assert f'[project.entry-points."{ENTRY_POINTS}"]\n{row.name} = ' in PAGE
    assert files
    assert [name for name in files if not (ROOT / name).is_file()] == []
