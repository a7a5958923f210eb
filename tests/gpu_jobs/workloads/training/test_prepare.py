"""Texts become packed blocks: in item order, broken rows set aside."""

import polars as pl
import pytest

from gpu_jobs.dataset.sources import Source, read_sources
from gpu_jobs.errors import ItemError, RefusedError
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.training.prepared import TRAIN, VALIDATION, fetch
from tests.gpu_jobs.workloads.training.sweeps import write_prepared

TEXTS = [f"text {number}: " + "abc " * (number % 7) for number in range(60)]
BLOCK = 16


def said_by(tokens):
    """The tiny tokenizer's texts: a letter a token, 1 ends a text."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return "".join("|" if token == 1 else letters[token - 2].replace("Ġ", " ") for token in tokens)


def prepared(texts, model, **params):
    """Blocks made without a GPU worker, and the errors of texts that were set aside."""
    workload = load_workload("prepare", {"model": model, "block": BLOCK, "validation_share": 0.2, **params})
    workload.setup("cpu")
    sources = [Source(id=f"id-{n}", uri="", fingerprint="", columns={"text": text}) for n, text in enumerate(texts)]
    rows, errors = [], {}
    for item in workload.items(sources):
        try:
            rows += workload.infer([workload.load(item)])[0]
        except ItemError as error:
            errors[item["item"]] = str(error)
    return workload, workload.finish(pl.LazyFrame(rows, schema=workload.columns)).collect(), errors


@pytest.mark.slow
def test_all_texts_are_in_the_blocks_in_order(llama):
    """But for less than a block at the end of each split; a broken row is set aside."""
    texts = [*TEXTS[:5], "  ", *TEXTS[5:]]
    workload, blocks, errors = prepared(texts, llama)

    assert errors == {"id-5": "the text is empty"}
    assert set(blocks["tokens"].list.len()) == {BLOCK}
    for split in (TRAIN, VALIDATION):
        whole = "".join(
            f"{text}|" for n, text in enumerate(texts) if text.strip() and workload._split(f"id-{n}") == split
        )
        made = said_by(blocks.filter(split=split)["tokens"].explode().to_list())
        assert made
        assert whole.startswith(made)
        assert len(whole) - len(made) < BLOCK


def test_a_text_file_is_one_text(llama, tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("In the beginning")
    workload = load_workload("prepare", {"model": llama})
    (item,) = workload.items([*read_sources(str(tmp_path), suffixes=workload.suffixes)])

    assert workload.load(item)[1] == "In the beginning"


def test_a_column_that_is_not_there_is_refused():
    workload = load_workload("prepare", {"text": "{body}"})
    with pytest.raises(RefusedError, match=r"text: row 'a' has no column 'body'; the dataset's columns are \['id'\]"):
        list(workload.items([Source(id="a", uri="", fingerprint="", columns={"id": "a"})]))


def test_damaged_data_says_so(tmp_path):
    manifest = write_prepared(tmp_path)
    (tmp_path / "prepared" / "outputs" / "part-0.parquet").write_bytes(b"other bytes")

    with pytest.raises(ItemError, match=r"prepared data: .*part-0\.parquet is not what its manifest says"):
        fetch(manifest)
