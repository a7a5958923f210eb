"""OpenAI Batch files: every good line answered, every bad one in the error file with its code."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from openai.types import Batch, BatchError, Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.shared import ErrorObject

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.dataset.sources import read_sources
from gpu_jobs.errors import ItemError, RefusedError
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.workloads import load_workload
from tests.chaos.havoc import finish
from tests.gpu_jobs.workloads.text.bad_lines import BAD, CHAT, COMPLETIONS, EMBEDDINGS, REFUSED, a_line, chat


@pytest.fixture
def ask(tmp_path):
    """What a workload makes of the lines of a file: rows or errors, by line number."""

    def asked(lines, model, endpoint=CHAT, *, file="requests.jsonl"):
        path = tmp_path / file
        path.write_text("\n".join(lines) + "\n")
        workload = load_workload("openai-batch", {"model": model, "endpoint": endpoint})
        workload.setup("cpu")
        found = []
        for item in workload.items(read_sources(str(path), suffixes=workload.suffixes)):
            try:
                ((row,),) = workload.infer([workload.load(item)])
                found.append(json.loads(row["body"]))
            except ItemError as error:
                found.append(str(error))
        return found

    return asked


@pytest.mark.parametrize("name", [*BAD, *REFUSED])
def test_a_bad_line_has_its_code(ask, llama, name):
    """A line that is no request, or one that the endpoint would refuse; its neighbour is answered."""
    line, code = (BAD | REFUSED)[name]

    first, found = ask([a_line("first", chat("hello")), line], llama)

    assert first["choices"]
    kind = "line" if name in BAD else "request"
    assert found.startswith(f"{kind}:{code}: ")


@pytest.mark.parametrize(
    ("names", "problem"),
    [("table.csv", "'row-1' is a row of a table"), (["a.jsonl", "gone.jsonl"], r"'.*gone\.jsonl' does not exist")],
)
def test_what_is_no_file_of_lines_is_refused(tmp_path, names, problem):
    (tmp_path / "table.csv").write_text("id,text\nrow-1,hello\n")
    (tmp_path / "a.jsonl").write_text(a_line("a", chat("hello")) + "\n")
    dataset = str(tmp_path / names) if isinstance(names, str) else [str(tmp_path / name) for name in names]
    workload = load_workload("openai-batch", {})

    with pytest.raises(RefusedError, match=f"dataset: {problem}"):
        list(workload.items(read_sources(dataset, suffixes=workload.suffixes)))


def test_several_files_are_one_batch(tmp_path):
    """With CRLF, empty lines and a byte order mark; an id that another file has is a duplicate."""
    (tmp_path / "a.jsonl").write_bytes(f"{a_line('a', chat('x'))}\r\n\r\n{a_line('b', chat('x'))}".encode("utf-8-sig"))
    (tmp_path / "b.jsonl").write_text(a_line("a", chat("x")))
    (tmp_path / "readme.txt").write_text("not of the batch")
    workload = load_workload("openai-batch", {})

    items = list(workload.items(read_sources(str(tmp_path), suffixes=workload.suffixes)))

    assert [item["item"].rpartition("/")[2] for item in items] == ["a.jsonl#1", "a.jsonl#3", "b.jsonl#1"]
    assert [item["problem"].partition(": ")[0] for item in items] == ["", "", "line:duplicate_custom_id"]


def test_chat_is_answered_as_openais_types_read(ask, llama):
    """Also with a system prompt, with parts of text, and with a stop string, which the answer does not hold."""
    system = {"messages": [{"role": "system", "content": "Be brief"}, *chat("hello")["messages"]], "max_tokens": 8}
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}], "max_tokens": 8}

    bodies = ask([a_line("a", system), a_line("b", parts), a_line("c", chat("hello", max_tokens=8))], llama)

    found = [ChatCompletion.model_validate({**body, "created": 0}) for body in bodies]
    assert found[1].choices[0].message.content == found[2].choices[0].message.content
    assert found[0].usage.prompt_tokens > found[1].usage.prompt_tokens
    assert all(each.usage.completion_tokens <= 8 for each in found)
    text = found[2].choices[0].message.content
    (stopped,) = ask([a_line("c", chat("hello", max_tokens=8, stop=[text[2]]))], llama)
    assert stopped["choices"][0]["message"]["content"] == text[: text.index(text[2])]
    assert stopped["choices"][0]["finish_reason"] == "stop"


def test_a_line_weighs_what_it_may_generate(ask, llama, tmp_path):
    """A generated token counts ten; without a limit the endpoint's own; what is no request counts as text."""
    lines = [chat("x"), chat("x", max_tokens=100), chat("x", max_tokens=None), chat("x", max_tokens="many")]
    ask([a_line(f"line-{number}", body) for number, body in enumerate(lines)], llama)

    workload = load_workload("openai-batch", {"model": llama, "endpoint": CHAT})
    items = workload.items(read_sources(str(tmp_path / "requests.jsonl"), suffixes=workload.suffixes))

    assert [round(item["weight"], -2) for item in items] == [100, 1000, 5100, 0]


def test_completions_and_embeddings_are_answered_as_openais_types_read(ask, llama, bert):
    """A prompt as text or as tokens; one text to embed or several."""
    text, tokens = ask(
        [
            a_line("a", {"prompt": "hello", "max_tokens": 4}, COMPLETIONS),
            a_line("b", {"prompt": [9, 10], "max_tokens": 4}, COMPLETIONS),
        ],
        llama,
        COMPLETIONS,
    )
    assert Completion.model_validate({**text, "created": 0}).usage.prompt_tokens == len("hello")
    assert Completion.model_validate({**tokens, "created": 0}).usage.prompt_tokens == 2

    inputs = {"a": "x", "b": ["x", "y z"], "c": "", "d": "x" * 200}
    one, two, empty, long = ask(
        [a_line(name, {"input": each}, EMBEDDINGS) for name, each in inputs.items()],
        bert,
        EMBEDDINGS,
    )
    first, second = (CreateEmbeddingResponse.model_validate(body) for body in (one, two))
    assert [each.index for each in second.data] == [0, 1]
    assert first.data[0].embedding == pytest.approx(second.data[0].embedding, abs=1e-5)
    assert (empty.split(": ")[0], long.split(": ")[0]) == ("request:empty_string", "request:context_length_exceeded")


@pytest.mark.parametrize(
    ("body", "url"),
    [({"prompt": [9, 258]}, COMPLETIONS), ({"prompt": [-1]}, COMPLETIONS), ({"input": [258]}, EMBEDDINGS)],
)
def test_a_token_that_the_model_does_not_know_is_refused(ask, llama, bert, body, url):
    """Before it comes near the model: on a GPU it would take all others of its window with it."""
    (found,) = ask([a_line("a", body, url)], bert if url == EMBEDDINGS else llama, url)

    assert found.startswith("request:invalid_value: Token ")


def test_a_line_draws_by_its_own_seed(ask, llama):
    """With `seed`, the same line gives the same text, wherever it stands; without, the campaign's seed decides."""
    lines = [a_line("a", chat("hello", temperature=2, max_tokens=12, seed=seed)) for seed in (1, 2)]

    first, again, other = (ask([line], llama)[0] for line in (lines[0], lines[0], lines[1]))

    moved = ask([a_line("b", chat("x")), lines[0]], llama, file="moved.jsonl")[1]

    assert first == again
    assert first["choices"] == moved["choices"] != other["choices"]


def read_files(campaign, manifest):
    """Output lines, error lines and the batch object."""
    bodies = {each.key.rpartition("/")[2]: campaign.store.get(each.key).decode() for each in manifest.exports}
    output, errors = (list(map(json.loads, bodies[name].splitlines())) for name in ("output.jsonl", "error.jsonl"))
    return output, errors, Batch.model_validate_json(bodies["batch.json"])


@pytest.fixture
def opened(tmp_path, llama):
    def open_it(lines, policy, **changes):
        path = tmp_path / "requests.jsonl"
        path.write_text("\n".join(lines) + "\n")
        spec = CampaignSpec(
            store_root=str(tmp_path / "store"),
            dataset=str(path),
            workload="openai-batch",
            params={"model": llama},
            **changes,
        )
        return open_campaign(spec, policy)

    return open_it


@pytest.mark.slow
def test_ten_thousand_lines_are_all_accounted_for(opened):
    """Each of the bad lines many times among good ones, on two GPU workers: no line is lost, none is in both files."""
    bad = BAD | REFUSED
    lines = [(a_line("first", chat("hello")), "")]
    lines += [
        (a_line(f"good-{n}", chat(f"hello {n % 97}", max_tokens=1 + n % 4)), "")
        for n in range(10_000 - 40 * len(bad) - 1)
    ]
    for n in range(40):
        where = 1 + n * 200
        lines[where:where] = [
            (line if name == "repeated id" else line.replace('_id": "', f'_id": "{n}-'), name)
            for name, (line, _) in bad.items()
        ]
    policy = Policy(max_workers=2)
    campaign = opened([line for line, _ in lines], policy)

    output, errors, batch = read_files(campaign, finish(campaign, policy))

    assert len(lines) == 10_000
    assert [code_of(line) for line in errors] == [bad[name][1] for _, name in lines if name]
    numbers = [line["error"]["line"] for line in errors if line["error"]]
    assert numbers == [number for number, (_, name) in enumerate(lines, 1) if name in BAD]
    assert (batch.status, batch.request_counts.completed + batch.request_counts.failed) == ("completed", 10_000)
    assert [line["custom_id"] for line in output] == [json.loads(line)["custom_id"] for line, name in lines if not name]
    for line in output:
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        ChatCompletion.model_validate(line["response"]["body"])


def code_of(line):
    """As OpenAI's own types read an error line."""
    if line["response"] is None:
        return BatchError.model_validate(line["error"]).code
    assert line["response"]["status_code"] == 400
    return ErrorObject.model_validate(line["response"]["body"]["error"]).code


def test_a_batch_that_expires_keeps_what_was_answered(opened):
    """The deadline passes before a GPU worker runs: the files are there, and every open line says why."""
    lines = [a_line(f"good-{n}", chat("hello")) for n in range(3)] + ["{broken"]
    campaign = opened(lines, Policy())
    *_, last = campaign.run(Policy(deadline=datetime.now(UTC) - timedelta(seconds=1)), tick_s=0.1)
    assert "deadline" in last.closed

    output, errors, batch = read_files(campaign, collect(campaign.store, campaign.plan))

    assert (output, batch.status, batch.request_counts.failed) == ([], "expired", 4)
    assert [code_of(line) for line in errors] == ["batch_expired"] * 3 + ["invalid_json_line"]
    assert [line["custom_id"] for line in errors] == ["good-0", "good-1", "good-2", None]
    assert BatchError.model_validate(errors[3]["error"]).line == 4


@pytest.mark.parametrize("how", ["cancelled", pytest.param("expired", marks=pytest.mark.slow)])
def test_a_batch_that_ends_early_keeps_what_was_answered(opened, how):
    """One chunk was settled when the flow run was stopped: its lines are answered, all others are in the error file."""
    lines = [a_line(f"good-{n}", chat(f"hello {n}", max_tokens=90)) for n in range(600)]
    policy = Policy(max_workers=1, heartbeat_s=0.3)
    campaign = opened(lines, policy, chunk_weight=1.0)
    turns = campaign.run(policy, tick_s=0.05)
    for progress in turns:
        if progress.items_left < len(lines):
            break
    turns.close()
    if how == "expired":
        list(campaign.run(replace(policy, deadline=datetime.now(UTC) - timedelta(seconds=1)), tick_s=0.05))

    output, errors, batch = read_files(campaign, collect(campaign.store, campaign.plan))

    assert batch.status == how
    assert 0 < len(output) < len(lines)
    for line in output:
        ChatCompletion.model_validate(line["response"]["body"])
    assert {code_of(line) for line in errors} == {f"batch_{how}"}
    assert sorted(line["custom_id"] for line in [*output, *errors]) == sorted(f"good-{n}" for n in range(len(lines)))
