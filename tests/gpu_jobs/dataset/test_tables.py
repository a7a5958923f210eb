"""Tables of inputs, as they come."""

import json

import polars as pl
import pytest

from gpu_jobs.dataset.sources import fingerprint, local_copy, read_sources
from gpu_jobs.errors import ItemError, RefusedError

MP4 = (".mp4",)


@pytest.fixture
def folder(tmp_path):
    """A folder with one file, for tables to name."""
    (tmp_path / "b.mp4").write_bytes(b"b.mp4")
    return tmp_path


TABLE = pl.DataFrame({"id": ["007", "8"], "video": ["b.mp4", "gone.mp4"], "note": [1, None]})


@pytest.mark.parametrize(("suffix", "notes"), [("parquet", [1, None]), ("csv", ["1", None]), ("jsonl", [1, None])])
def test_table_keeps_its_order_columns_and_ids(folder, suffix, notes):
    """A relative path counts from the table; an id of digits stays as it is written, as all of a CSV does."""
    path = folder / f"table.{suffix}"
    {"parquet": TABLE.write_parquet, "csv": TABLE.write_csv, "jsonl": TABLE.write_ndjson}[suffix](path)

    found = list(read_sources(str(path), suffixes=MP4))

    assert [(source.id, source.uri) for source in found] == [("007", f"{folder}/b.mp4"), ("8", f"{folder}/gone.mp4")]
    assert [source.fingerprint for source in found] == [fingerprint(f"{folder}/b.mp4"), "missing"]
    assert [source.columns["note"] for source in found] == notes


def test_table_needs_an_id_or_a_file(folder):
    path = folder / "prompts.csv"
    path.write_text("prompt\nhello\n")
    with pytest.raises(RefusedError, match="neither a column 'id'"):
        list(read_sources(str(path)))

    assert [source.id for source in read_sources(str(path), id_column="prompt")] == ["hello"]


def test_row_without_an_id_is_refused_by_its_number(folder):
    TABLE.with_columns(id=pl.Series(["a", None])).write_parquet(folder / "t.parquet")

    with pytest.raises(RefusedError, match="row 1 of the table"):
        list(read_sources(f"{folder}/t.parquet"))


def test_damaged_table_is_refused(folder):
    (folder / "t.parquet").write_bytes(b"PAR1 not really")

    with pytest.raises(RefusedError, match="cannot be read"):
        list(read_sources(f"{folder}/t.parquet"))


@pytest.mark.parametrize(
    ("name", "body", "problem"),
    [
        ("t.jsonl", b'{"id": "a"}\n\n{"id": "b\n', "line 3 "),
        ("t.jsonl", b'{"id": "a"}\n[1]\n', "line 2 "),
        (
            "t.csv",
            b"id,text\na,b\nc,d,e\n",
            "line 3 has 3 values for 2 columns; a value with a comma in it needs quotes",
        ),
        ("t.csv", "id,text\na,caf\u00e9\n".encode("latin-1"), "line 2 is not UTF-8"),
        ("t.csv", b"", "empty CSV"),
        ("t.jsonl", b'{"id": "a", "x": NaN}\n', "line 1 holds NaN, which JSON does not have; write null"),
    ],
)
def test_damage_of_a_table_is_told_by_its_line(tmp_path, name, body, problem):
    """In one line of words, since polars names no line and tells what its own users could do."""
    (tmp_path / name).write_bytes(body)

    with pytest.raises(RefusedError, match=f"cannot be read: {problem}") as refused:
        list(read_sources(str(tmp_path / name)))

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("t.csv", "id,text\r\n7,1.50\r\nb,x\r\n"),
        ("t.jsonl", '{"id": 7, "text": "1.50"}\r\n\r\n{"id": "b", "text": "x"}\r\n'),
    ],
)
def test_what_editors_of_windows_leave_is_no_matter(tmp_path, name, body):
    """A byte order mark and CRLF; and an id is the same as a number or as a text."""
    (tmp_path / name).write_bytes(body.encode("utf-8-sig"))

    found = [(source.id, source.columns["text"]) for source in read_sources(str(tmp_path / name))]

    assert found == [("7", "1.50"), ("b", "x")]


def test_a_column_may_change_its_type_far_down(tmp_path):
    """Whatever the first ten thousand rows held."""
    lines = [f'{{"id": {number}, "text": {number}}}\n' for number in range(11_000)]
    (tmp_path / "t.jsonl").write_text("".join(lines) + '{"id": "x", "text": "y", "more": 1}\n')

    *_, last = read_sources(str(tmp_path / "t.jsonl"))

    assert last.columns == {"id": "x", "text": "y", "more": 1}


def test_tables_may_be_named_by_a_glob(tmp_path):
    """One after the other by name; an id must be unique in all."""
    for name, ids in (("b", ["3"]), ("a", ["1", "2"])):
        pl.DataFrame({"id": ids}).write_parquet(tmp_path / f"{name}.parquet")

    assert [source.id for source in read_sources(f"{tmp_path}/*.parquet")] == ["1", "2", "3"]
    with pytest.raises(RefusedError, match=r"'.*\*\.csv' matches no file"):
        list(read_sources(f"{tmp_path}/*.csv"))


def test_a_table_without_rows_has_no_inputs(tmp_path):
    for name, body in (("t.jsonl", ""), ("t.csv", "id,text\n")):
        (tmp_path / name).write_text(body)
        with pytest.raises(RefusedError, match="has no inputs"):
            list(read_sources(str(tmp_path / name)))


def test_large_table_is_read_in_order_a_batch_at_a_time(tmp_path):
    """The first rows come before the last are read."""
    pl.DataFrame({"id": range(200_000)}).write_parquet(tmp_path / "t.parquet", row_group_size=5000)
    sources = read_sources(f"{tmp_path}/t.parquet")

    assert [int(next(sources).id) for _ in range(3)] == [0, 1, 2]
    assert [int(source.id) for source in sources] == list(range(3, 200_000))


def uris(path, **options):
    return [(source.id, source.uri) for source in read_sources(str(path), **options)]


def test_blank_lines_of_a_csv_are_no_rows(folder):
    (folder / "t.csv").write_text("id,uri\n1,b.mp4\n\n2,b.mp4\n\n")

    assert uris(folder / "t.csv") == [("1", f"{folder}/b.mp4"), ("2", f"{folder}/b.mp4")]


def test_spaces_after_commas_belong_to_neither_names_nor_values(folder):
    (folder / "t.csv").write_text("id, uri\n1, b.mp4\n")

    assert uris(folder / "t.csv") == [("1", f"{folder}/b.mp4")]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_brackets_in_a_name_are_no_pattern(folder, suffix):
    path = folder / f"list[1].{suffix}"
    table = pl.DataFrame({"id": ["1"]})
    {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}[suffix](path)

    assert uris(path) == [("1", "")]


def test_column_of_structs_names_paths(folder):
    """As columns `Video` and `Image` of Hugging Face datasets do where the bytes lie elsewhere."""
    pl.DataFrame({"id": ["1", "2"], "video": [{"bytes": None, "path": "b.mp4"}, None]}).write_parquet(
        folder / "t.parquet"
    )

    assert uris(folder / "t.parquet") == [("1", f"{folder}/b.mp4"), ("2", "")]
    found = list(read_sources(f"{folder}/t.parquet"))
    assert [source.columns["video"] for source in found] == ["b.mp4", None]


@pytest.mark.parametrize(
    ("column", "values"),
    [("video", [{"bytes": b"one", "path": "a.mp4"}, {"bytes": b"two", "path": None}]), ("image", [b"one", b"two"])],
)
def test_column_that_holds_files_gives_an_address_to_each(folder, column, values):
    """Their bytes stay in the table: neither sources nor items carry them."""
    pl.DataFrame({"id": ["1", "2"], column: values}).write_parquet(folder / "t.parquet")

    found = list(read_sources(f"{folder}/t.parquet", needs_files=True))
    copies = [local_copy(source.uri, folder / "cache", expected=source.fingerprint) for source in found]

    assert [copy.read_bytes() for copy in copies] == [b"one", b"two"]
    assert not any(isinstance(value, bytes) for source in found for value in source.columns.values())
    assert {source.fingerprint for source in found} == {fingerprint(f"{folder}/t.parquet")}
    pl.DataFrame({"id": ["1", "2"], column: values[::-1]}).write_parquet(folder / "t.parquet")
    with pytest.raises(ItemError, match="has changed since"):
        local_copy(found[0].uri, folder / "elsewhere", expected=found[0].fingerprint)


def test_address_may_be_bytes(folder):
    pl.DataFrame({"id": ["1", "2"], "uri": [b"b.mp4", b"caf\xe9.mp4"]}).write_parquet(folder / "t.parquet")

    assert uris(folder / "t.parquet") == [("1", f"{folder}/b.mp4"), ("2", rf"{folder}/caf\xe9.mp4")]


def test_name_that_no_file_can_have_is_one_bad_input(folder):
    (folder / "t.jsonl").write_text(json.dumps({"uri": "b.mp4"}) + "\n" + json.dumps({"uri": "a\0.mp4"}))

    good, bad = read_sources(f"{folder}/t.jsonl")

    assert good.problem == ""
    assert "is not a file name" in bad.problem


def test_file_addresses_are_decoded(folder):
    (folder / "a b.mp4").touch()
    (folder / "t.csv").write_text(f"uri\nfile://{folder}/a%20b.mp4\nfile://localhost{folder}/b.mp4\n")

    assert [uri for _, uri in uris(folder / "t.csv")] == [f"{folder}/a b.mp4", f"{folder}/b.mp4"]


def test_table_without_a_column_of_files_is_refused_once(folder):
    """With its columns, before any row becomes an error; a list could mean many files."""
    pl.DataFrame({"id": ["1"], "uri": [["b.mp4"]], "note": ["x"]}).write_parquet(folder / "t.parquet")

    with pytest.raises(RefusedError, match=r"names no file.*id \(String\), uri \(List\(String\)\), note \(String\)"):
        list(read_sources(f"{folder}/t.parquet", needs_files=True))
    assert uris(folder / "t.parquet") == [("1", "")]


@pytest.mark.parametrize("column", ["url", "image"])
def test_more_columns_may_name_files_where_files_are_needed(folder, column):
    """A table of texts may well have such a column, which then means nothing."""
    (folder / "t.csv").write_text(f"id,{column}\n1,b.mp4\n")

    assert uris(folder / "t.csv", needs_files=True) == [("1", f"{folder}/b.mp4")]
    assert uris(folder / "t.csv") == [("1", "")]
