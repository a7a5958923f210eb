"""The workloads on texts, run without a GPU worker."""

import shutil

import numpy as np
import pytest

from gpu_jobs.dataset.sources import Source, read_sources
from gpu_jobs.errors import ItemError, RefusedError, WorkloadImportError
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.text.generate import window
from tests.gpu_jobs.workloads.tiny_models import CONTEXT, write_llama

TEXTS = ["a", "the quick brown fox", "jumps", "over the lazy dog, again and again and again", "x y z"]


def rows_of(workload, texts, *, window=100):
    """The row of each text, or its error, by windows of so many."""
    outcomes = []
    for start in range(0, len(texts), window):
        inputs = []
        for place, text in enumerate(texts[start : start + window], start):
            try:
                inputs.append(workload.load({"item": f"item-{place}", "text": text}))
            except ItemError as error:
                outcomes.append(str(error))
        outcomes += [row for (row,) in workload.infer(inputs)]
    return outcomes


def ready(name, **params):
    workload = load_workload(name, params)
    workload.setup("cpu")
    return workload


def source(**columns):
    return Source(id="row-1", uri="", fingerprint="", columns=columns)


def test_a_row_becomes_a_text_by_the_template():
    """Columns go where their names stand in braces; an empty value is an empty string; other braces stay."""
    workload = load_workload("generate", {"text": '{q} Answer as {"a": 1}. {hint}'})

    (item,) = workload.items([source(q="Why?", hint=None)])

    assert item["text"] == 'Why? Answer as {"a": 1}. '


def test_a_column_may_have_any_name():
    (item,) = load_workload("embed", {"text": "{Question Text}: {naïve-id}"}).items(
        [source(**{"Question Text": "Why?", "naïve-id": 7})]
    )

    assert item["text"] == "Why?: 7"


@pytest.mark.parametrize("template", ["", "Say hello", "$text", "{ text }"])
def test_a_template_that_shows_no_column_is_refused(template):
    """It would ask the same for every row."""
    with pytest.raises(
        RefusedError, match=r"params\.text: .* would be the same for every row: name a column, as {text}"
    ):
        list(load_workload("generate", {"text": template}).items([source(id="row-1", text="a")]))


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")

    with pytest.raises(RefusedError, match=r"dataset: '.*notes\.txt' is no table"):
        list(load_workload("generate", {}).items(read_sources(str(tmp_path))))


@pytest.mark.parametrize("name", ["generate", "embed", "classify", "openai-batch", "prepare"])
def test_a_model_without_a_name_is_refused(name):
    """An empty path would be the folder where the GPU worker runs."""
    with pytest.raises(RefusedError, match=r"params\.model"):
        load_workload(name, {"model": ""})


def test_another_text_is_another_fingerprint_and_a_longer_one_weighs_more():
    workload = load_workload("embed", {})

    short, long = workload.items([source(text="a"), source(text="a" * 400)])

    assert short["fingerprint"] != long["fingerprint"]
    assert long["weight"] - short["weight"] == pytest.approx(100, abs=1)


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(RefusedError, match=r"params\.text: row 'row-1' has no column 'question'.*'text'"):
        list(load_workload("generate", {"text": "{question}"}).items([source(text="a")]))


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_an_answer_does_not_depend_on_its_window(llama, temperature):
    """Alone, in twos, all together: the same text for the same item, also when it is drawn by chance."""
    workload = ready("generate", model=llama, max_new_tokens=12, temperature=temperature)

    together = rows_of(workload, TEXTS)

    assert together == rows_of(workload, TEXTS, window=1) == rows_of(workload, TEXTS, window=2)
    assert len({row["text"] for row in together}) > 1


@pytest.mark.parametrize(("max_new_tokens", "size"), [(1, 128), (48, 128), (128, 62), (512, 15), (32_768, 3)])
def test_a_window_of_long_answers_has_fewer(max_new_tokens, size):
    """So that it does not last longer on a slow machine than a stall may, and a stopped GPU worker loses little."""
    items = load_workload("generate", {"max_new_tokens": max_new_tokens}).items([source(text="x" * 100)])

    most, most_weight = window("cpu")
    assert min(most, most_weight // next(items)["weight"]) == size


def test_continuous_batching_gives_the_answers_of_static_batches(llama):
    """It is for GPUs, where windows may mix drawn and greedy requests; here it runs on a CPU."""
    workload = ready("generate", model=llama, max_new_tokens=12)
    expected = rows_of(workload, TEXTS)

    workload._engine.is_continuous = True

    assert rows_of(workload, TEXTS, window=2) == expected
    assert workload._engine._continuous._manager is not None
    workload.teardown()


def test_sampling_draws_by_seed_and_item(llama):
    """Another seed is another text, the same seed the same one, and equal texts of two items differ."""
    texts = ["hello"] * 3
    first, again, other = (
        rows_of(ready("generate", model=llama, max_new_tokens=12, temperature=2, seed=seed), texts)
        for seed in (0, 0, 1)
    )

    assert first == again
    assert first != other
    assert len({row["text"] for row in first}) == 3


def test_an_answer_ends_at_its_limit(llama):
    (row,) = rows_of(ready("generate", model=llama, max_new_tokens=5), ["hello"])

    assert (row["finish_reason"], row["completion_tokens"]) == ("length", 5)
    assert row["prompt_tokens"] == len("<user>hello<answer>")


def test_what_cannot_be_answered_says_why(llama):
    """An empty text, and one that leaves no room for an answer; the one between them is answered."""
    empty, long, good = "  ", "x" * CONTEXT, "fine"
    outcomes = rows_of(ready("generate", model=llama, max_new_tokens=8), [empty, long, good])

    assert outcomes[0] == "the text is empty"
    assert "the prompt has 142 tokens; with an answer of 8 the model's context of 128 holds 120" in outcomes[1]
    assert outcomes[2]["completion_tokens"] <= 8


def test_an_answer_as_long_as_the_context_is_no_items_fault(llama):
    """No prompt at all would fit: the GPU worker says so instead of a quarantine full of items."""
    with pytest.raises(WorkloadImportError, match=rf"params\.max_new_tokens: an answer of {CONTEXT} leaves no room"):
        ready("generate", model=llama, max_new_tokens=CONTEXT)


def test_a_model_without_a_chat_template_goes_on_from_the_text(tmp_path):
    plain = write_llama(tmp_path / "plain", chat=False)

    (row,) = rows_of(ready("generate", model=plain, max_new_tokens=4), ["hello"])

    assert row["prompt_tokens"] == len("hello")


def test_a_draft_beside_vllm_stays_off_the_gpu(llama):
    """vLLM does not begin on a GPU whose memory another has; there is none here, so only a CPU can answer."""
    workload = load_workload("generate", {"model": "x", "draft_model": llama, "max_new_tokens": 4, "engine": "vllm"})

    (row,) = workload.preview([{"item": "a", "text": "hello"}], "cuda:0")

    assert row["item"] == "a"


def test_vectors_come_in_item_order_whatever_the_batches(bert):
    """Sorted by length inside, in order outside: each is what the text alone gives, and of length 1."""
    workload = ready("embed", model=bert)
    workload.batch_size.start_at(60)

    together = np.array([row["embedding"] for row in rows_of(workload, TEXTS)])

    alone = np.array([row["embedding"] for row in rows_of(workload, TEXTS, window=1)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_pooling_is_what_the_models_folder_says(bert, tmp_path):
    """Without a word, the mean; the first token's vector is another one."""
    mean, first = (ready("embed", model=bert, pooling=how) for how in ("auto", "first"))

    assert (mean.facts["pooling"], first.facts["pooling"]) == ("mean", "first")
    assert rows_of(mean, TEXTS[1:2])[0]["embedding"] != rows_of(first, TEXTS[1:2])[0]["embedding"]


def test_a_text_beyond_the_context_is_cut_and_says_so(bert):
    short, long = rows_of(ready("embed", model=bert), ["x", "x" * (CONTEXT + 1)])

    assert (short["is_truncated"], long["is_truncated"]) == (False, True)
    assert (short["tokens"], long["tokens"]) == (1, CONTEXT)


def test_classes_are_named_and_best_first(classifier):
    for row in rows_of(ready("classify", model=classifier, top_k=2), TEXTS):
        scores = [guess["score"] for guess in row["labels"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 2
        assert (row["label"], row["score"]) == (row["labels"][0]["label"], scores[0])
        assert row["label"] in {"good", "bad", "ugly"}


@pytest.mark.parametrize(
    ("name", "model", "weight"), [("classify", "bert", "classifier.bias"), ("generate", "bert", "cls.predictions")]
)
def test_a_model_for_another_task_is_refused(request, name, model, weight):
    """transformers would fill in what is missing by chance, and its rows would look like any others."""
    with pytest.raises(WorkloadImportError, match=rf"cannot do this task: it has no weights for {weight}"):
        ready(name, model=request.getfixturevalue(model))


def test_an_encoder_needs_no_pooler(bert, tmp_path):
    """Many come without; the vectors are the same."""
    folder = tmp_path / "bare"
    shutil.copytree(bert, folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    bare = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(bare) < len(weights)
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})

    assert rows_of(ready("embed", model=str(folder)), TEXTS) == rows_of(ready("embed", model=bert), TEXTS)


def test_code_of_a_model_is_trusted_only_by_the_machines_operator(llama, monkeypatch):
    """Asked for by a campaign alone, it is refused."""
    asked = {"model": llama, "trust_remote_code": True}
    with pytest.raises(RefusedError, match="FANFOLD_TRUSTED_MODELS"):
        load_workload("generate", asked)

    monkeypatch.setenv("FANFOLD_TRUSTED_MODELS", f"another,{llama}")
    assert load_workload("generate", asked).params.trust_remote_code


def test_facts_tell_what_rows_depend_on(llama):
    """For the manifest: which weights, which engine, how many bits and why."""
    facts = ready("generate", model=llama, max_new_tokens=8).facts

    assert set(facts) == {"device", "model", "engine", "precision"}
    assert facts["precision"].startswith("fp32: the fastest here")
    assert facts["model"].startswith(llama)
