"""Lines of OpenAI Batch files, good and bad, with the codes that they deserve."""

import json

from tests.gpu_jobs.workloads.tiny_models import CONTEXT

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def a_line(custom_id, body, url=CHAT, **changes):
    line = {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "m", **body}, **changes}
    return json.dumps({key: value for key, value in line.items() if value is not None})


def chat(text, **fields):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 4, **fields}


BAD = {
    "no json": ("{broken", "invalid_json_line"),
    "no object": ("[1, 2]", "invalid_json_line"),
    "too deep": ("[" * 100_000, "invalid_json_line"),
    "no character": (a_line("\ud800", chat("x")), "invalid_json_line"),
    "no character inside": (a_line("r", chat("x\udfff")), "invalid_json_line"),
    "no id": (a_line(None, chat("x")), "missing_required_parameter"),
    "odd id": (a_line(7, chat("x")), "invalid_type"),
    "repeated id": (a_line("first", chat("x")), "duplicate_custom_id"),
    "no method": (a_line("a", chat("x"), method=None), "missing_required_parameter"),
    "odd method": (a_line("b", chat("x"), method="GET"), "invalid_method"),
    "unknown url": (a_line("c", chat("x"), url="/v1/moderations"), "invalid_url"),
    "other url": (a_line("d", {"input": "x"}, url=EMBEDDINGS), "invalid_url"),
    "no body": (json.dumps({"custom_id": "e", "method": "POST", "url": CHAT}), "missing_required_parameter"),
    "odd body": (json.dumps({"custom_id": "f", "method": "POST", "url": CHAT, "body": "x"}), "invalid_type"),
}
REFUSED = {
    "too long": (a_line("g", chat("x" * CONTEXT)), "context_length_exceeded"),
    "no room": (a_line("h", chat("x", max_tokens=CONTEXT)), "context_length_exceeded"),
    "no messages": (a_line("i", {"messages": []}), "empty_array"),
    "nothing said": (a_line("j", chat(" ")), "empty_string"),
    "no prompt at all": (a_line("k", {}), "missing_required_parameter"),
    "odd number": (a_line("l", chat("x", temperature="hot")), "invalid_type"),
    "too hot": (a_line("m", chat("x", temperature=3)), "invalid_value"),
    "a huge number": (a_line("p", chat("x", max_tokens=float("inf"))), "invalid_value"),
    "no number": (a_line("q", chat("x", temperature=float("nan"))), "invalid_value"),
    "odd stop": (a_line("s", chat("x", stop=5)), "invalid_type"),
    "odd content": (a_line("t", chat({"text": "x"})), "invalid_type"),
    "tools": (a_line("n", chat("x", tools=[{"type": "function"}])), "unsupported_parameter"),
    "a picture": (
        a_line("o", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        "unsupported_value",
    ),
}
