"""Turns the dataset that a caller names (folder, prefix, files, table) into sources that can be opened."""

import csv
import glob
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import polars as pl

from gpu_jobs.dataset.files import fingerprint, fingerprints, is_remote, list_prefix, local_copy
from gpu_jobs.errors import RefusedError
from gpu_jobs.settings import Settings

__all__ = ["Source", "fingerprint", "input_cache", "local_copy", "read_sources"]

URI_COLUMNS = ("uri", "path", "video")
_TABLES = (".parquet", ".csv", ".jsonl", ".ndjson")
_ROWS_AT_ONCE = 10_000
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One input of the dataset: a file, or one row of a table."""

    id: str
    """Unique and stable id: the uri of a listed file, or the id column of a table row."""
    uri: str
    """Path, `gs://` or `https://` address of the file; "" for a table row without a file."""
    fingerprint: str
    """Changes when the file's content changes; "missing" if there is no file; "" for a table row without a file."""
    columns: Mapping[str, Any]
    """All columns of the table row; only `uri` for a listed file."""


def read_sources(
    dataset: str | Sequence[str], *, suffixes: Sequence[str] = (), id_column: str = "id"
) -> Iterator[Source]:
    """Yield the inputs that `dataset` names, each once, in an order that depends only on the names.

    A name is a folder (searched to any depth), a glob, a file, a `gs://` prefix or object, an `https://` file, or a
    table: .parquet, .csv, .jsonl. Folders, globs and prefixes give the files that end in one of `suffixes`, sorted;
    each table gives its rows in their order. A row names its file in column `uri`, `path` or `video` (a relative path
    starts at the table's folder) and its id in `id_column`; one of the two is enough. A missing file that a table or
    a list names is still a source, with fingerprint "missing".

    Raises:
        RefusedError: (while iterating) the dataset does not exist or has no input, an id occurs twice, or a table
            cannot be read or has neither column.
    """
    endings = tuple(suffix.lower() for suffix in suffixes)
    if isinstance(dataset, str):
        found = _expand(dataset, endings, id_column, is_listed=False)
    else:
        found = chain.from_iterable(_expand(name, endings, id_column, is_listed=True) for name in sorted(dataset))
    seen: set[str] = set()
    for source in found:
        if source.id in seen:
            raise RefusedError("dataset", f"the id '{source.id}' occurs twice; ids must be unique")
        seen.add(source.id)
        yield source
    if not seen:
        wanted = f" ending in {', '.join(endings)}" if endings else ""
        raise RefusedError("dataset", f"{dataset!r} has no inputs{wanted}")


def input_cache() -> Path:
    """Local folder for copies of remote inputs."""
    return Path(Settings().model_cache).expanduser() / "inputs"


def _expand(name: str, endings: tuple[str, ...], id_column: str, *, is_listed: bool) -> Iterator[Source]:
    """Yield the sources of one name; if `is_listed` (one of several), a missing file is not an error here."""
    name = name.removeprefix("file://")
    if name.lower().endswith(_TABLES) and not name.lower().endswith(endings or ("\0",)):
        return chain.from_iterable(_table(each, id_column) for each in _tables(name))
    if is_remote(name):
        return _remote(name, endings, is_listed=is_listed)
    path = os.path.abspath(os.path.expanduser(name))
    if os.path.isdir(path):
        return map(_file, sorted(_walk(path, endings)))
    if not os.path.exists(path) and glob.has_magic(name):
        matches = glob.iglob(path, recursive=True)
        return map(_file, sorted(match for match in matches if _is_wanted(match, endings) and os.path.isfile(match)))
    if not os.path.exists(path) and not is_listed:
        raise RefusedError("dataset", f"'{path}' does not exist")
    return iter([_file(path)])


def _file(uri: str, mark: str | None = None) -> Source:
    return Source(id=uri, uri=uri, fingerprint=fingerprint(uri) if mark is None else mark, columns={"uri": uri})


def _is_wanted(path: str, endings: tuple[str, ...]) -> bool:
    name = os.path.basename(path)
    return not name.startswith(".") and (not endings or name.lower().endswith(endings))


def _walk(folder: str, endings: tuple[str, ...]) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (path for name in files if _is_wanted(path := os.path.join(parent, name), endings))


def _remote(name: str, endings: tuple[str, ...], *, is_listed: bool) -> Iterator[Source]:
    if name.startswith("gs://"):
        found = [(uri, mark) for uri, mark in list_prefix(name) if uri == name or _is_wanted(uri, endings)]
    else:
        found = [(name, mark)] if (mark := fingerprint(name)) != "missing" else []
    if not found and is_listed:
        found = [(name, "missing")]
    if not found and not name.startswith("gs://"):
        raise RefusedError("dataset", f"'{name}' does not exist")
    return (_file(uri, mark) for uri, mark in found)


def _tables(name: str) -> list[str]:
    """The sorted tables that match a glob; any other name is one table."""
    if is_remote(name) or not glob.has_magic(name) or os.path.exists(name):
        return [name]
    found = sorted(glob.iglob(os.path.expanduser(name), recursive=True))
    if not found:
        raise RefusedError("dataset", f"'{name}' matches no file")
    return found


def _table(name: str, id_column: str) -> Iterator[Source]:
    if is_remote(name):
        if (mark := fingerprint(name)) == "missing":
            raise RefusedError("dataset", f"the table '{name}' does not exist")
        path, base = local_copy(name, input_cache(), expected=mark), name.rpartition("/")[0]
    else:
        path = Path(name).expanduser().absolute()
        base = str(path.parent)
    if not path.is_file():
        raise RefusedError("dataset", f"the table '{path}' does not exist")
    try:
        yield from _rows(name, path, base, id_column)
    except (pl.exceptions.PolarsError, OSError) as error:
        why = _damage(path) or str(error).partition("\n")[0]
        raise RefusedError("dataset", f"the table '{name}' cannot be read: {why}") from error


def _rows(name: str, path: Path, base: str, id_column: str) -> Iterator[Source]:
    frame = _scan(path, id_column)
    columns = frame.collect_schema().names()
    uri_column = next((column for column in URI_COLUMNS if column in columns), None)
    if uri_column is None and id_column not in columns:
        raise RefusedError(
            "dataset",
            f"the table '{name}' has neither a column '{id_column}' nor {URI_COLUMNS}, but {columns}; "
            "name another unique column with id_column",
        )
    row_number = 0
    for batch in frame.collect_batches(chunk_size=_ROWS_AT_ONCE, maintain_order=True):
        uris = [_resolve(uri, base) for uri in batch[uri_column]] if uri_column else [""] * batch.height
        for row, uri, mark in zip(batch.iter_rows(named=True), uris, fingerprints(uris), strict=True):
            value = row.get(id_column, uri or None)
            if value is None:
                raise RefusedError("dataset", f"row {row_number} of the table '{name}' has no id")
            yield Source(id=str(value), uri=uri, fingerprint=mark, columns=row)
            row_number += 1


def _scan(path: Path, id_column: str) -> pl.LazyFrame:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return pl.scan_parquet(path)
    if suffix == ".csv":
        return pl.scan_csv(path, infer_schema=False)  # keep text as written: "007" must not become 7
    if not path.stat().st_size:
        return pl.LazyFrame(schema={id_column: pl.String})
    return pl.scan_ndjson(_without_bom(path), schema_overrides={id_column: pl.String}, infer_schema_length=None)


def _without_bom(path: Path) -> Path | IO[bytes]:
    """Remove the byte order mark that some editors write, which polars would read as part of the first line."""
    with path.open("rb") as file:
        return io.BytesIO(file.read()) if file.read(len(_BOM)) == _BOM else path


def _damage(path: Path) -> str:
    """Describe the first broken line of a table, since polars does not name it; "" if no line is broken."""
    check = {".csv": _check_csv, ".jsonl": _check_json, ".ndjson": _check_json}.get(path.suffix.lower())
    try:
        if check is not None:
            check(_lines(path))
    except csv.Error:  # a limit of the csv module, not of the file
        return ""
    except ValueError as error:
        return str(error)
    return ""


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise ValueError(f"line {number} is not UTF-8; save the table as UTF-8") from error


def _check_csv(lines: Iterator[str]) -> None:
    rows = csv.reader(lines)
    width = len(next(rows, ()))
    for row in rows:
        if len(row) > width:
            message = f"line {rows.line_num} has {len(row)} values for {width} columns"
            raise ValueError(f"{message}; a value with a comma in it needs quotes")


def _check_json(lines: Iterator[str]) -> None:
    for number, line in enumerate(lines, 1):
        try:
            is_object = not line.strip() or isinstance(json.loads(line), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise ValueError(f"line {number} is not a JSON object")


def _resolve(uri: Any, base: str) -> str:
    if uri is None or uri == "":
        return ""
    text = str(uri).removeprefix("file://")
    if is_remote(text):
        return text
    return f"{base}/{text}" if is_remote(base) else os.path.normpath(os.path.join(base, os.path.expanduser(text)))
