"""The OpenAI Batch format: checks lines of an input file, and makes lines of the output and error files.

From OpenAI's API reference (Batch, "The request input object" and "The request output object", read 2026-11). A line
that is not a valid request gets an `error` and no response; a request that is refused gets a response with an HTTP
status and an error body, as from the endpoint itself.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_SURROGATE = b"\\ud"
_UNUSABLE = "line:"
_REFUSED = "request:"


class Line(NamedTuple):
    """One line of an input file."""

    number: int
    """Line number in its file, from 1."""
    custom_id: str
    """The line's custom_id; "" if it has none."""
    body: str
    """The request's body as JSON; "" if the line is not a valid request."""
    problem: str
    """Why the line is not a valid request, in the form that `parse_problem` reads; "" if it is valid."""


class Problem(NamedTuple):
    """Why a line has no answer."""

    is_refused: bool
    """The line is a valid request that the endpoint would answer with status 400."""
    code: str
    message: str


def unusable(code: str, message: str) -> str:
    """Error text of an item whose line is not a valid request."""
    return f"{_UNUSABLE}{code}: {message}"


def refused(code: str, message: str) -> str:
    """Error text of an item whose request the endpoint refuses."""
    return f"{_REFUSED}{code}: {message}"


def parse_problem(error: str) -> Problem:
    """Read an item's error text; a text that was not made in this module counts as a server error."""
    for prefix, is_refused in ((_UNUSABLE, False), (_REFUSED, True)):
        if error.startswith(prefix):
            code, _, message = error.removeprefix(prefix).partition(": ")
            return Problem(is_refused, code, message)
    return Problem(is_refused=False, code="server_error", message=error)


def read_lines(lines: Iterator[bytes], endpoint: str, seen: set[str]) -> Iterator[Line]:
    """Check each line and skip empty ones; `seen` holds the `custom_id`s used so far, and new ones are added."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            custom_id, body, problem = _check(line, endpoint, seen)
            yield Line(number, custom_id, body, problem)


def _check(line: bytes, endpoint: str, seen: set[str]) -> tuple[str, str, str]:
    """Return the line's `custom_id`, its body and its problem, each "" if there is none."""
    try:
        found = json.loads(line)
        if _SURROGATE in line.lower():
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "", "", unusable("invalid_json_line", "This line has half of a surrogate pair, which is no character.")
    except (ValueError, RecursionError):
        return "", "", unusable("invalid_json_line", "This line is not parseable as valid JSON.")
    if not isinstance(found, dict):
        return "", "", unusable("invalid_json_line", "This line is valid JSON, but not an object.")
    problem = _problem_of_id(found.get("custom_id"), seen)
    custom_id = found["custom_id"] if isinstance(found.get("custom_id"), str) else ""
    if not problem:
        seen.add(custom_id)
        problem = _problem(found, endpoint)
    return custom_id, "" if problem else json.dumps(found["body"]), problem


def _problem_of_id(custom_id: Any, seen: set[str]) -> str:
    if not custom_id:
        return unusable("missing_required_parameter", "Missing required parameter: 'custom_id'.")
    if not isinstance(custom_id, str):
        return unusable("invalid_type", f"Invalid type for 'custom_id': expected a string, got {custom_id!r}.")
    if custom_id in seen:
        message = f"The custom_id '{custom_id}' is a duplicate of another request's; it must be unique in a batch."
        return unusable("duplicate_custom_id", message)
    return ""


def _problem(found: Mapping[str, Any], endpoint: str) -> str:
    for name in ("method", "url", "body"):
        if name not in found:
            return unusable("missing_required_parameter", f"Missing required parameter: '{name}'.")
    if found["method"] != "POST":
        return unusable("invalid_method", f"Invalid method {found['method']!r}: only POST is supported.")
    if found["url"] not in ENDPOINTS:
        return unusable("invalid_url", f"Invalid url {found['url']!r}: use one of {', '.join(ENDPOINTS)}.")
    if found["url"] != endpoint:
        return unusable("invalid_url", f"The url '{found['url']}' is not this batch's endpoint, {endpoint}.")
    if not isinstance(found["body"], dict):
        return unusable("invalid_type", "Invalid type for 'body': expected an object.")
    return ""


def output_line(item: str, custom_id: str, body: Mapping[str, Any]) -> str:
    """A line of the output file."""
    return _line(item, custom_id, {"status_code": 200, "request_id": short_id("req", item), "body": body}, None)


def error_line(item: str, custom_id: str, problem: Problem) -> str:
    """A line of the error file; `item` ends in `#` and the line's number in its file."""
    if not problem.is_refused:
        line = int(item.rpartition("#")[2])  # identifies a line without a `custom_id`
        return _line(item, custom_id, None, {"code": problem.code, "message": problem.message, "line": line})
    error = {"message": problem.message, "type": "invalid_request_error", "param": None, "code": problem.code}
    response = {"status_code": 400, "request_id": short_id("req", item), "body": {"error": error}}
    return _line(item, custom_id, response, None)


def short_id(kind: str, item: str) -> str:
    """An id that depends only on `kind` and the item."""
    return f"{kind}_{hashlib.sha256(item.encode()).hexdigest()[:24]}"


def _line(item: str, custom_id: str, response: Any, error: Any) -> str:
    line = {"id": short_id("batch_req", item), "custom_id": custom_id or None, "response": response, "error": error}
    return json.dumps(line) + "\n"
