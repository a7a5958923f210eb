"""Tables of inputs: open them, find the column that names files, and say which line is broken."""

import csv
import glob
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl

from gpu_jobs.dataset.files import cell_uri, has_scheme, is_remote, local_path

_TEXTS = (pl.String, pl.Categorical, pl.Enum, pl.Null)
_BOM = b"\xef\xbb\xbf"
_HAS_BYTES = "has bytes\0"
"""A column for ourselves."""
_ROWS_AT_ONCE = 10_000
_FILES_AT_ONCE = 32
"""Rows whose files lie in the table itself are read in small batches."""
_CONTENTS = ("video", "image")
"""Bytes in these columns are files; in the others they are addresses in UTF-8."""


@dataclass(frozen=True, slots=True)
class FileColumn:
    """The column of a table that names each row's file."""

    name: str
    holds_files: bool
    """Whether a value may be the file's bytes, as in columns `Video` and `Image` of Hugging Face datasets."""


def find_column(schema: pl.Schema, names: Sequence[str]) -> FileColumn | None:
    """Return the first of `names` that can be meant: text, bytes, or a struct of `path` and `bytes`."""
    headers = {header.strip(): header for header in reversed(schema.names())}
    for header in (headers[name] for name in names if name in headers):
        kind = schema[header]
        fields = {field.name: field.dtype for field in kind.fields} if isinstance(kind, pl.Struct) else {}
        holds_files = fields.get("bytes") == pl.Binary or (kind == pl.Binary and header.strip() in _CONTENTS)
        if holds_files or kind in (*_TEXTS, pl.Binary) or fields.get("path") in _TEXTS:
            return FileColumn(header, holds_files)
    return None


def batches(frame: pl.LazyFrame, column: FileColumn | None) -> Iterator[pl.DataFrame]:
    """Yield a table's rows in order; of a column that holds files only the paths, and whether there are bytes."""
    if column is not None and isinstance(kind := frame.collect_schema()[column.name], pl.Struct | pl.Binary):
        body, path = pl.col(column.name), pl.lit(None, pl.String)
        if isinstance(kind, pl.Struct):
            names = [field.name for field in kind.fields]
            path = body.struct.field("path").cast(pl.String) if "path" in names else path
            body = body.struct.field("bytes") if column.holds_files else body
        if column.holds_files:
            frame = frame.with_columns(body.is_not_null().alias(_HAS_BYTES), path.alias(column.name))
        elif isinstance(kind, pl.Struct):
            frame = frame.with_columns(path.alias(column.name))
    size = _FILES_AT_ONCE if column is not None and column.holds_files else _ROWS_AT_ONCE
    yield from frame.collect_batches(chunk_size=size, maintain_order=True)


def addresses(batch: pl.DataFrame, column: FileColumn | None, table: str, base: str, first: int) -> list[str]:
    """Return the address of each row's file, "" for none; row `first` of `table` is the batch's first.

    Relative paths start at `base`.
    """
    if column is None:
        return [""] * batch.height
    found = [_resolve(_text(value, column), base) for value in batch[column.name]]
    if column.holds_files:
        rows = enumerate(zip(batch[_HAS_BYTES], found, strict=True), first)
        return [cell_uri(table, row, column.name) if has_bytes else uri for row, (has_bytes, uri) in rows]
    return found


def columns(row: dict[str, Any]) -> dict[str, Any]:
    row.pop(_HAS_BYTES, None)
    return row


def _text(value: Any, column: FileColumn) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value or "")
    return text.strip() if column.name != column.name.strip() else text  # " uri" comes before " a.mp4"


def _resolve(uri: str, base: str) -> str:
    text = local_path(uri)
    if not text or has_scheme(text):
        return text
    return f"{base}/{text}" if is_remote(base) else os.path.normpath(os.path.join(base, os.path.expanduser(text)))


def scan(path: Path, id_column: str) -> pl.LazyFrame:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return pl.scan_parquet(path, glob=False)
    if suffix == ".csv":
        frame = pl.scan_csv(path, infer_schema=False, glob=False)  # keep text as written: "007" must not become 7
        return frame.filter(~pl.all_horizontal(pl.all().is_null()))  # without blank lines
    if not path.stat().st_size:
        return pl.LazyFrame(schema={id_column: pl.String})
    with_id = _scan_json(path, schema_overrides={id_column: pl.String})
    try:
        with_id.collect_schema()
    except pl.exceptions.SchemaFieldNotFoundError:  # no row has an id
        return _scan_json(path)
    return with_id


def _scan_json(path: Path, **options: Any) -> pl.LazyFrame:
    return pl.scan_ndjson(_without_bom(path), infer_schema_length=None, **options)


def _without_bom(path: Path) -> str | IO[bytes]:
    """Remove the byte order mark that some editors write, which polars would read as part of the first line."""
    with path.open("rb") as file:
        return io.BytesIO(file.read()) if file.read(len(_BOM)) == _BOM else glob.escape(str(path))


def damage(path: Path) -> str:
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
            is_object = not line.strip() or isinstance(json.loads(line, parse_constant=_refuse_constant), dict)
        except json.JSONDecodeError:
            is_object = False
        except ValueError as error:
            raise ValueError(f"line {number} {error}") from error
        if not is_object:
            raise ValueError(f"line {number} is not a JSON object")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"holds {name}, which JSON does not have; write null")
