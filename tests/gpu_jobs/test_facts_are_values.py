"""Facts are values, sentences are for people: no code compares, searches or parses a sentence."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SENTENCES = {"reason", "detail", "told", "doing", "message", "why"}
"""Names of variables and attributes that hold words for people."""
METHODS = {
    "startswith", "endswith", "find", "rfind", "index", "rindex", "count", "removeprefix", "removesuffix",
    "split", "rsplit", "partition", "rpartition", "replace", "isdigit",
}  # fmt: skip
UNCHANGED = {"lower", "upper", "casefold", "strip", "lstrip", "rstrip"}
"""Methods that leave a sentence one."""
PATTERNS = {"search", "match", "fullmatch", "findall", "finditer", "split", "sub"}
EXEMPT = {
    "flows/lost_runs.py:_amend": "asks whether Prefect has written over our sentence; its states have no field of ours",
    "tasks/flow_runs.py:add_to_state_message": "as above: a sentence is not said twice in one message",
    "gpu_jobs/platforms/base.py:is_about_quota": "two platforms refuse with one code for everything; see there",
    "gpu_jobs/platforms/base.py:is_about_balance": "RunPod documents no status for an empty balance; see there",
    "gpu_jobs/platforms/cloud_run/api.py:_ours": "`ErrorInfo.reason` is Google's name for a code",
    "gpu_jobs/platforms/cloud_run/jobs.py:task_end": "the service has no code for these ends; see `_BY_MESSAGE`",
}
"""Functions that read words, and why they must."""


def is_sentence(node: ast.expr) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=name)):
            return name in SENTENCES
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=name), *_]):
            return name in SENTENCES
        case ast.Call(func=ast.Attribute(value=inner, attr=method)) if method in UNCHANGED:
            return is_sentence(inner)
        case (
            ast.Call(func=ast.Name(id="str"), args=[inner])
            | ast.NamedExpr(value=inner)
            | ast.Subscript(value=inner, slice=ast.Slice())
        ):
            return is_sentence(inner)
        case ast.BoolOp(values=values):
            return any(map(is_sentence, values))
    return False


def is_nothing(node: ast.expr) -> bool:
    """Whether a sentence is there at all may be asked."""
    return isinstance(node, ast.Constant) and node.value in ("", None)


def reads_a_sentence(node: ast.AST) -> bool:
    match node:
        case ast.Compare(left=left, comparators=others):
            sides = [left, *others]
            return any(map(is_sentence, sides)) and not any(map(is_nothing, sides))
        case ast.Call(func=ast.Attribute(value=inner, attr=method), args=args):
            return (method in METHODS and is_sentence(inner)) or (method in PATTERNS and any(map(is_sentence, args)))
        case ast.Match(subject=subject, cases=cases):
            words = [each for case in cases for each in ast.walk(case.pattern) if isinstance(each, ast.MatchValue)]
            return is_sentence(subject) and bool(words)
    return False


def findings(source: str) -> Iterator[tuple[str, int]]:
    """Functions that read a sentence, and the line."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, int]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if reads_a_sentence(node):
            yield function, getattr(node, "lineno", 0)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    yield from visit(ast.parse(source), "")


def test_no_code_reads_a_sentence():
    """Emulators stand for other people's servers, and may."""
    found, used = [], set()
    for path in sorted(each for root in ("gpu_jobs", "flows", "tasks") for each in (ROOT / root).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("gpu_jobs/emulators/"):
            continue
        for function, line in findings(path.read_text()):
            used.add(f"{name}:{function}")
            if f"{name}:{function}" not in EXEMPT:
                found.append(f"{name}:{line}")

    assert found == []
    assert used == set(EXEMPT), "an exemption that nothing needs any more"


@pytest.mark.parametrize(
    "line",
    [
        "end.reason.startswith('stopped')",
        "end.reason == 'succeeded'",
        "'quota' in error.message",
        "'quota' in str(message).lower()",
        "re.search('busy', told)",
        "PATTERN.fullmatch(beat.doing)",
        "row['detail'].split(':')",
        "row.get('detail', '') != 'x'",
        "sorted(found, key=lambda why: not why.startswith('Choose'))",
        "match reason:\n    case 'stopped': pass",
        "(end.reason or '') == 'x'",
    ],
)
def test_reading_a_sentence_is_seen(line):
    """In all the ways that code has had."""
    assert list(findings(line))


@pytest.mark.parametrize(
    "line",
    [
        "words = reason or 'none'",
        "reason == ''",
        "told is None",
        "if why: close(why)",
        "f'stopped: {reason}'",
        "end.outcome == 'stopped'",
        "match message:\n    case Done(): pass",
    ],
)
def test_showing_a_sentence_is_not(line):
    """Nor is asking whether there is one."""
    assert not list(findings(line))
