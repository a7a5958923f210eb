"""What the rows of Fanfold's own platforms say is true."""

import importlib
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gpu_jobs.platforms import known_offers, open_place
from gpu_jobs.platforms.table import BUILT_IN

EXTRAS = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
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
