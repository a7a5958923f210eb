"""Turns the dataset that a caller names (folder, prefix, files, table) into sources that can be opened."""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from gpu_jobs.dataset import tables
from gpu_jobs.dataset.files import (
    MISSING,
    UNREADABLE,
    Look,
    fingerprint,
    has_scheme,
    is_remote,
    list_prefix,
    local_copy,
    local_path,
    look_up,
)
from gpu_jobs.errors import ItemError, RefusedError, StoreError, StoreUnavailableError
from gpu_jobs.settings import Settings

__all__ = ["Source", "fingerprint", "input_cache", "local_copy", "read_sources"]

URI_COLUMNS = ("uri", "path", "video")
FILE_COLUMNS = (*URI_COLUMNS, "image", "url")
"""Where every row must name a file."""
_TABLES = (".parquet", ".csv", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One input of the dataset: a file, or one row of a table."""

    id: str
    """Unique and stable id: the uri of a listed file, or the id column of a table row."""
    uri: str
    """Path, `gs://` or `https://` address of the file; "" for a table row without a file."""
    fingerprint: str
    """Changes when the file's content changes; "missing" if there is no file, "unreadable" if it cannot be read; "" for
    a table row without a file."""
    columns: Mapping[str, Any]
    """All columns of the table row; only `uri` for a listed file."""
    problem: str = ""
    """Why the file cannot be read, with its address; "" if nothing is known against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the arguments of `read_sources` say of every name."""

    endings: tuple[str, ...]
    id_column: str
    needs_files: bool


def read_sources(
    dataset: str | Sequence[str], *, suffixes: Sequence[str] = (), id_column: str = "id", needs_files: bool = False
) -> Iterator[Source]:
    """Yield the inputs that `dataset` names, each once, in an order that depends only on the names.

    A name is a folder (searched to any depth), a glob, a file, a `gs://` prefix or object, an `https://` file, or a
    table: .parquet, .csv, .jsonl. Folders, globs and prefixes give the files that end in one of `suffixes`, sorted;
    each table gives its rows in their order. A row names its file in column `uri`, `path` or `video` (a relative path
    starts at the table's folder; `Video` columns of Hugging Face datasets may hold the bytes) and its id in
    `id_column`; one of the two is enough. With `needs_files` each row must name a file, also in column `image` or
    `url`. A file that is missing or cannot be read is still a source, with its `problem`.

    Raises:
        RefusedError: (while iterating) the dataset does not exist or has no input, an id occurs twice, or a table
            cannot be read or has no column that it needs.
    """
    endings = tuple(suffix.lower() for suffix in suffixes)
    wanted = _Wanted(endings=endings, id_column=id_column, needs_files=needs_files)
    found = _expand(dataset, wanted, is_listed=False) if isinstance(dataset, str) else _listed(sorted(dataset), wanted)
    seen: set[str] = set()
    for source in found:
        if source.id in seen:
            raise RefusedError("dataset", f"the id '{source.id}' occurs twice; ids must be unique")
        seen.add(source.id)
        yield source
    if not seen:
        ending = f" ending in {', '.join(endings)}" if endings else ""
        raise RefusedError("dataset", f"{dataset!r} has no inputs{ending}")


def input_cache() -> Path:
    """Local folder for copies of remote inputs."""
    return Path(Settings().model_cache).expanduser() / "inputs"


def _listed(names: Sequence[str], wanted: _Wanted) -> Iterator[Source]:
    """Yield the sources of several names; files of the web are looked up side by side."""
    of_web = [name for name in names if name.startswith(("https://", "http://"))]
    files = [name for name in of_web if not _is_table(name, wanted.endings)]
    looks = dict(zip(files, look_up(files), strict=True))
    for name in names:
        yield from [_file(name, looks[name])] if name in looks else _expand(name, wanted, is_listed=True)


def _is_table(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(_TABLES) and not name.lower().endswith(endings or ("\0",))


def _expand(name: str, wanted: _Wanted, *, is_listed: bool) -> Iterator[Source]:
    """Yield the sources of one name; if `is_listed` (one of several), an unreadable file is not an error here."""
    name, endings = local_path(name), wanted.endings
    if _is_table(name, endings):
        return chain.from_iterable(_table(each, wanted) for each in _tables(name))
    if name.startswith("gs://"):
        return _in_bucket(name, endings, is_listed=is_listed)
    path = name if has_scheme(name) else os.path.abspath(os.path.expanduser(name))
    if os.path.isdir(path):
        inside = (os.path.join(folder, name) for folder, names in _walk(path) for name in names)
        return map(_file, sorted(each for each in inside if _is_wanted(each, endings)))
    if not has_scheme(name) and not os.path.lexists(path) and glob.has_magic(name):
        found = set(_matches(path))
        return map(_file, sorted(each for each in found if _is_wanted(each, endings) and not os.path.isdir(each)))
    source = _file(path)
    if source.problem and not is_listed:
        raise RefusedError("dataset", source.problem)
    return iter([source])


def _file(uri: str, look: Look | None = None) -> Source:
    shown = os.fsencode(uri).decode("utf-8", "backslashreplace")
    if shown != uri:
        look = Look(UNREADABLE, f"the name of '{shown}' is not UTF-8; rename the file")
    look = look or look_up([uri])[0]
    return Source(id=shown, uri=shown, fingerprint=look.fingerprint, columns={"uri": shown}, problem=look.problem)


def _is_wanted(path: str, endings: tuple[str, ...]) -> bool:
    name = os.path.basename(path)
    return not name.startswith(".") and (not endings or name.lower().endswith(endings))


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder at or below `top`, and the names of its files."""
    for parent, folders, files in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not _returns(parent, name, top)]
        yield parent, files


def _returns(parent: str, name: str, top: str) -> bool:
    """True for a link to a folder that holds the link, also by way of other links: below it all would come again."""
    path = os.path.join(parent, name)
    if not os.path.islink(path):
        return False
    target, holder = os.path.join(os.path.realpath(path), ""), parent
    while not os.path.join(os.path.realpath(holder), "").startswith(target):
        if len(holder) <= len(top):
            return False
        holder = os.path.dirname(holder)
    return True


def _matches(pattern: str) -> Iterator[str]:
    """Yield what matches a pattern, perhaps twice; `glob` alone would follow links to folders above without end."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    for top in glob.iglob("/".join(parts[:at]) or "/"):
        for folder, _ in _walk(top):
            yield from _matches("/".join([glob.escape(folder), *(parts[at + 1 :] or "*")]))


def _in_bucket(name: str, endings: tuple[str, ...], *, is_listed: bool) -> Iterator[Source]:
    try:
        found = [(uri, Look(mark)) for uri, mark in list_prefix(name) if uri == name or _is_wanted(uri, endings)]
    except StoreUnavailableError:
        raise
    except (StoreError, RefusedError) as error:
        if not is_listed:
            raise
        found = [(name, Look(UNREADABLE, f"'{name}' cannot be read: {error}"))]
    if not found and is_listed:
        found = [(name, Look(MISSING, f"'{name}' does not exist"))]
    return (_file(uri, look) for uri, look in found)


def _tables(name: str) -> list[str]:
    """The sorted tables that match a glob; any other name is one table."""
    if is_remote(name) or not glob.has_magic(name) or os.path.exists(os.path.expanduser(name)):
        return [name]
    found = sorted(glob.iglob(os.path.expanduser(name), recursive=True))
    if not found:
        raise RefusedError("dataset", f"'{name}' matches no file")
    return found


def _table(name: str, wanted: _Wanted) -> Iterator[Source]:
    if is_remote(name):
        base, name_here = name.rpartition("/")[0], name
        try:
            path = local_copy(name, input_cache())
        except ItemError as error:
            raise RefusedError("dataset", f"the table cannot be read: {error}") from error
    else:
        path = Path(name).expanduser().absolute()
        base, name_here = str(path.parent), str(path)
    if not path.is_file():
        raise RefusedError("dataset", f"the table '{path}' does not exist")
    try:
        yield from _rows(name_here, path, base, wanted)
    except (pl.exceptions.PolarsError, OSError) as error:
        why = tables.damage(path) or str(error).partition("\n")[0]
        raise RefusedError("dataset", f"the table '{name}' cannot be read: {why}") from error


def _rows(name: str, path: Path, base: str, wanted: _Wanted) -> Iterator[Source]:
    frame = tables.scan(path, wanted.id_column)
    schema = frame.collect_schema()
    file_column = tables.find_column(schema, FILE_COLUMNS if wanted.needs_files else URI_COLUMNS)
    id_column = next((header for header in schema if header.strip() == wanted.id_column), wanted.id_column)
    if file_column is None and (wanted.needs_files or id_column not in schema):
        raise RefusedError("dataset", _without_column(name, schema, wanted))
    number = 0
    for batch in tables.batches(frame, file_column):
        uris = tables.addresses(batch, file_column, name, base, number)
        for row, uri, look in zip(batch.iter_rows(named=True), uris, look_up(uris), strict=True):
            value = row.get(id_column, uri or None)
            if value is None:
                raise RefusedError("dataset", f"row {number} of the table '{name}' has no id")
            yield Source(
                id=str(value),
                uri=uri,
                fingerprint=look.fingerprint,
                columns=tables.columns(row),
                problem=look.problem,
            )
            number += 1


def _without_column(name: str, schema: pl.Schema, wanted: _Wanted) -> str:
    found = ", ".join(f"{header} ({kind})" for header, kind in schema.items())
    if wanted.needs_files:
        needed = f"names no file: that takes a column {' or '.join(FILE_COLUMNS)}, text or a struct of path and bytes"
        return f"the table '{name}' {needed}; it has {found}"
    return (
        f"the table '{name}' has neither a column '{wanted.id_column}' nor {URI_COLUMNS}, but {found}; "
        "name another unique column with id_column"
    )
