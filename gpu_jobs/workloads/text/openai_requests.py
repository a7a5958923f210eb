"""Request and response bodies of OpenAI's endpoints."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from gpu_jobs.errors import ItemError
from gpu_jobs.workloads.engines.base import Completion, Request
from gpu_jobs.workloads.text.base import BYTES_PER_TOKEN
from gpu_jobs.workloads.text.generate import chat_tokens, decode_weight, item_seed
from gpu_jobs.workloads.text.openai_lines import refused, short_id

_DEFAULT_NEW_TOKENS = {"/v1/chat/completions": 512, "/v1/completions": 16}
_LARGEST = 2**53
_UNSUPPORTED: dict[str, Sequence[Any]] = {
    "stream": (None, False), "n": (None, 1), "best_of": (None, 1), "tools": (None, []), "functions": (None, []),
    "logprobs": (None, False), "top_logprobs": (None, 0), "echo": (None, False), "suffix": (None, ""),
    "presence_penalty": (None, 0), "frequency_penalty": (None, 0), "logit_bias": (None, {}),
    "response_format": (None, {"type": "text"}), "audio": (None,), "modalities": (None, ["text"]),
    "dimensions": (None,),
}  # fmt: skip
"""Parameters that would change the answer but are not supported, with their values that have no effect."""


def weigh(body: str, endpoint: str) -> float:
    """Estimate a request's cost in input tokens, without a tokenizer; `body` is JSON, or "" if there is none."""
    weight = 1 + len(body) / BYTES_PER_TOKEN
    if not body or endpoint == "/v1/embeddings":
        return weight
    try:
        asked = _requested_tokens(json.loads(body))
    except ItemError:
        return weight
    return weight + decode_weight(_DEFAULT_NEW_TOKENS[endpoint] if asked is None else asked)


def read_generation(
    custom_id: str, body: Mapping[str, Any], endpoint: str, tokenizer: Any, *, context_tokens: int, seed: int
) -> tuple[Request, tuple[str, ...]]:
    """Read a generation request and its stop strings; raises `ItemError` with OpenAI's error code."""
    check_supported(body)
    tokens = _chat(body, tokenizer) if endpoint == "/v1/chat/completions" else _prompt(body, tokenizer)
    room = context_tokens - len(tokens)
    asked = _requested_tokens(body)
    wanted = _DEFAULT_NEW_TOKENS[endpoint] if asked is None else asked
    if room < 1 or (asked is not None and wanted > room):
        what = f"{len(tokens)} in the prompt" + (f", {wanted} in the completion" if asked is not None else "")
        raise ItemError(
            refused(
                "context_length_exceeded",
                f"This model's maximum context length is {context_tokens} tokens, but {what} were requested.",
            )
        )
    temperature = _number(body, ("temperature",), least=0, most=2)
    top_p = _number(body, ("top_p",), least=0, most=1)
    own_seed = body.get("seed")
    request = Request(
        tokens=tokens,
        max_new_tokens=min(wanted, room),
        temperature=0.0 if temperature is None else temperature,
        top_p=1.0 if top_p is None else max(top_p, 1e-6),
        seed=item_seed(own_seed if isinstance(own_seed, int) else seed, custom_id),
    )
    return request, _stops(body)


def read_embedding_inputs(body: Mapping[str, Any], tokenizer: Any) -> list[str]:
    """Read the texts to embed; raises `ItemError` with OpenAI's error code."""
    check_supported(body)
    found = body.get("input")
    if found is None:
        raise ItemError(refused("missing_required_parameter", "Missing required parameter: 'input'."))
    if body.get("encoding_format", "float") != "float":
        raise ItemError(refused("unsupported_value", "Only the encoding_format 'float' is supported."))
    texts = found if isinstance(found, list) and not _are_tokens(found) else [found]
    texts = [tokenizer.decode(_check_vocabulary(each, tokenizer)) if _are_tokens(each) else each for each in texts]
    if not texts:
        raise ItemError(refused("empty_array", "Invalid 'input': empty array."))
    for text in texts:
        if not isinstance(text, str):
            raise ItemError(refused("invalid_type", "Invalid type for 'input': expected texts or lists of tokens."))
        if not text.strip():
            raise ItemError(refused("empty_string", "Invalid 'input': empty string."))
    return texts


def check_supported(body: Mapping[str, Any]) -> None:
    for name, harmless in _UNSUPPORTED.items():
        if name in body and body[name] not in harmless:
            raise ItemError(refused("unsupported_parameter", f"'{name}' is not supported here."))


def generation_body(
    item: str, *, model: str, endpoint: str, request: Request, result: Completion, text: str, finish_reason: str
) -> dict[str, Any]:
    """The response body of `endpoint`, without `created`; `text` is the decoded answer, cut at a stop string."""
    usage = {
        "prompt_tokens": len(request.tokens),
        "completion_tokens": len(result.tokens),
        "total_tokens": len(request.tokens) + len(result.tokens),
    }
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
    if endpoint == "/v1/chat/completions":
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        kind, name = "chat.completion", "chatcmpl"
    else:
        choice["text"] = text
        kind, name = "text_completion", "cmpl"
    return {"id": short_id(name, item), "object": kind, "model": model, "choices": [choice], "usage": usage}


def embedding_body(model: str, vectors: Sequence[Sequence[float]], num_tokens: int) -> dict[str, Any]:
    """The response body of /v1/embeddings."""
    data = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    return {"object": "list", "model": model, "data": data, "usage": _embedding_usage(num_tokens)}


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Cut the text at the first stop string; also return whether there was one."""
    ends = [end for stop in stops if (end := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def _embedding_usage(num_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def _requested_tokens(body: Mapping[str, Any]) -> int | None:
    asked = _number(body, ("max_completion_tokens", "max_tokens"), least=1, most=None)
    return None if asked is None else int(asked)


def _chat(body: Mapping[str, Any], tokenizer: Any) -> list[int]:
    messages = body.get("messages")
    if messages is None:
        raise ItemError(refused("missing_required_parameter", "Missing required parameter: 'messages'."))
    if not isinstance(messages, list) or not all(isinstance(each, dict) and "role" in each for each in messages):
        raise ItemError(refused("invalid_type", "Invalid type for 'messages': expected a list of messages with roles."))
    if not messages:
        raise ItemError(refused("empty_array", "Invalid 'messages': empty array. Expected at least one message."))
    plain = [{"role": str(each["role"]), "content": _content(each.get("content"))} for each in messages]
    if not any(each["content"].strip() for each in plain):
        raise ItemError(refused("empty_string", "Invalid 'messages': every message is empty."))
    if tokenizer.chat_template is None:
        raise ItemError(refused("unsupported_value", "This model has no chat template; use /v1/completions."))
    return chat_tokens(tokenizer, plain)


def _content(content: Any) -> str:
    """Read a message's content: a text, or a list of parts of type text."""
    if not isinstance(content, str | list | None):
        raise ItemError(refused("invalid_type", "Invalid type for 'content': expected text or a list of parts."))
    if isinstance(content, list):
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in content):
            raise ItemError(refused("unsupported_value", "Only text can be in a message."))
        return "".join(str(part.get("text", "")) for part in content)
    return content or ""


def _prompt(body: Mapping[str, Any], tokenizer: Any) -> list[int]:
    prompt = body.get("prompt")
    if prompt is None:
        raise ItemError(refused("missing_required_parameter", "Missing required parameter: 'prompt'."))
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if _are_tokens(prompt):
        return _check_vocabulary(prompt, tokenizer)
    if not isinstance(prompt, str) and prompt != []:
        raise ItemError(refused("invalid_type", "Invalid type for 'prompt': expected one text or its tokens."))
    if not prompt or not prompt.strip():
        raise ItemError(refused("empty_string", "Invalid 'prompt': empty string."))
    return list(tokenizer(prompt)["input_ids"])


def _are_tokens(found: Any) -> TypeGuard[list[int]]:
    return isinstance(found, list) and bool(found) and all(type(each) is int for each in found)


def _check_vocabulary(tokens: list[int], tokenizer: Any) -> list[int]:
    """Refuse tokens outside the model's vocabulary: on a GPU they would break the device for all later requests."""
    size = len(tokenizer)
    if unknown := [each for each in tokens if not 0 <= each < size]:
        raise ItemError(refused("invalid_value", f"Token {unknown[0]} is not one of this model's {size}."))
    return tokens


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise ItemError(refused("invalid_type", "Invalid type for 'stop': expected a text or a list of texts."))
    return tuple(filter(None, stops))


def _number(body: Mapping[str, Any], names: Sequence[str], *, least: float, most: float | None) -> float | None:
    """Read the first of these fields that is set, and check its range."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ItemError(refused("invalid_type", f"Invalid type for '{name}': expected a number."))
        if not abs(value) <= _LARGEST:  # also refuses NaN
            raise ItemError(refused("invalid_value", f"Invalid '{name}': expected a smaller number, got {value}."))
        if value < least or (most is not None and value > most):
            limit = f"at least {least:g}" if value < least else f"at most {most:g}"
            raise ItemError(refused("invalid_value", f"Invalid '{name}': expected {limit}, got {value!r}."))
        return value
    return None
