"""From what the caller names to inputs that can be opened: folders, prefixes, files, tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One input of the dataset: a file, or one row of a table."""

    id: str
    """Unique and stable: the uri of a file; a table row's id column."""
    uri: str
    """Path, `gs://` or `https://` address of the file; "" for a table row that names none."""
    fingerprint: str
    """Changes when the input's bytes change; "missing" if it is not there; "" for a table row without a file."""
    columns: Mapping[str, Any]
    """All columns of its row in the table; for a listed file just `uri`."""
