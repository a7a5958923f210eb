"""Where GPU workers run. The table of platforms says what there is; this opens what its rows name."""

import importlib
from collections.abc import Collection, Iterator
from typing import Any

from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs.offers import Offer, load_offers
from gpu_jobs.platforms.base import REHEARSE, Check, Platform
from gpu_jobs.platforms.table import LOCAL, PlatformRow, known_platforms, row_of
from gpu_jobs.settings import Settings

__all__ = [
    "PlatformRow",
    "checks",
    "deploy",
    "known_offers",
    "known_platforms",
    "needs_bucket",
    "open_place",
    "open_platform",
    "row_of",
]


def open_platform(name: str) -> Platform:
    """Import and open the adapter of a platform; its vendor's package is imported here, not before.

    Raises:
        RefusedError: there is no such platform, that package is not installed, or a setting is wrong.
    """
    row = _allowed(name)
    platform: Platform = open_place(row, row.adapter)()
    return platform


def checks(name: str, store_root: str) -> Iterator[Check]:
    """What the doctor of a platform finds, one after the other. Raises as `open_platform`."""
    row = _allowed(name)
    found: Iterator[Check] = open_place(row, row.doctor)(store_root)
    return found


def deploy(name: str) -> str:
    """Put Fanfold's code into a platform; return a message for a person. Raises as `open_platform`."""
    row = _allowed(name)
    message: str = open_place(row, row.deploy)()
    return message


def _allowed(name: str) -> PlatformRow:
    """The row of a platform, unless this is a rehearsal without an emulator of it."""
    row, rehearsed = row_of(name), Settings().rehearsal
    if rehearsed and name != LOCAL and name not in rehearsed.split(","):
        raise RefusedError("platforms", f"'{name}' is not emulated in this rehearsal: {REHEARSE}")
    return row


def known_offers(names: Collection[str] = ()) -> list[Offer]:
    """The offers of some platforms, or of all: from `offers.toml`, from rows that bring offers, from the user's file.

    Raises:
        RefusedError: the user's file, named by the setting `offers`, cannot be used.
    """
    rows = [row for row in known_platforms().values() if row.offers and (not names or row.name in names)]
    brought = [offer for row in rows for offer in open_place(row, row.offers)]
    return [offer for offer in load_offers(brought) if not names or offer.platform in names]


def needs_bucket(names: Collection[str]) -> str:
    """The first of these platforms that cannot reach folders of this machine; "" if all can."""
    return next((name for name in names if row_of(name).needs_bucket), "")


def open_place(row: PlatformRow, place: str) -> Any:
    """What stands at one of the row's places.

    Raises:
        RefusedError: a package that the platform needs is not installed.
    """
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        is_ours = (error.name or "").partition(".")[0] == module.partition(".")[0]
        if is_ours or not row.install:
            raise
        raise RefusedError(row.name, f"its packages are missing: pip install '{row.install}' ({error})") from error
