"""Batch inference: a causal language model answers each text."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from gpu_jobs.errors import ItemError, WorkloadImportError
from gpu_jobs.workloads.base import Item, Params, Row
from gpu_jobs.workloads.engines import choose_engine, open_engine
from gpu_jobs.workloads.engines.base import Completion, Engine, ModelSpec, Request
from gpu_jobs.workloads.text.base import MODEL, ModelName, TextParams, TextWorkload

DEFAULT_MODEL = "smollm2-135m-instruct"
BATCH_ITEMS = 64
_WINDOW = {"cpu": (128, 8_192), "cuda": (4_096, 262_144)}
"""Requests in a window, and the tokens they may generate together: small enough that a stopped GPU worker loses only
minutes and a slow one does not look stalled."""
_DECODE_COST = 10
"""A generated token costs about as much as this many input tokens."""
_LONG_ANSWER = 2_048
"""Assumed maximum length of an answer, in tokens: answers are rarely longer, whatever the limit."""
_NUM_PREVIEWED = 16


class GenerateParams(TextParams):
    """Parameters of text generation."""

    task: Literal["generate"] = Field(default="generate", title="Task", description="Answer each text")
    model: ModelName = Field(default=DEFAULT_MODEL, title="Model", description=MODEL)
    system: str = Field(
        default="", title="System prompt", description="Placed before each text, if the model has a chat template"
    )
    max_new_tokens: int = Field(
        default=128, ge=1, le=32768, title="New tokens", description="Maximum length of an answer, in tokens"
    )
    temperature: float = Field(
        default=0,
        ge=0,
        le=5,
        title="Temperature",
        description="0: always the most likely token (greedy); higher: more varied",
    )
    top_p: float = Field(
        default=1,
        gt=0,
        le=1,
        title="Top p",
        description="Sample only from the most likely tokens that together have this probability",
    )
    seed: int = Field(
        default=0,
        title="Seed",
        description="Seed for sampling; each item derives its own from it, so that chunks do not matter",
    )
    draft_model: str = Field(
        default="",
        title="Draft model",
        description="A small model that answers the first items as a preview while the main model loads; empty: none",
    )
    engine: Literal["auto", "vllm", "transformers"] = Field(
        default="auto", title="Engine", description="auto: vLLM on a GPU where it is installed, else transformers"
    )


class Generate(TextWorkload):
    """Generates one answer per text."""

    params: GenerateParams
    params_model: ClassVar[type[Params]] = GenerateParams
    batch_items = BATCH_ITEMS
    columns: ClassVar[Mapping[str, pl.DataType | type[pl.DataType]]] = {
        "text": pl.String,  # the answer
        "finish_reason": pl.String,  # "stop": the model ended it; "length": the limit did
        "prompt_tokens": pl.Int32,
        "completion_tokens": pl.Int32,
    }

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.num_previewed = _NUM_PREVIEWED if params.draft_model else 0

    def preview(self, items: Sequence[Item], device: str) -> Sequence[Row]:
        """Answer items with the draft model; items that cannot be answered are left out.

        With vLLM the draft model runs on the CPU, since vLLM needs nearly all of the GPU's memory when it starts.
        """
        device = "cpu" if choose_engine(self.params.engine, device) == "vllm" else device
        asked = {"model": self.params.draft_model, "draft_model": "", "engine": "transformers", "precision": "auto"}
        draft = Generate(self.params.model_copy(update=asked))
        draft.setup(device)
        named = []
        for item in items:
            with suppress(ItemError):
                named.append((item["item"], draft.load(item)))
        results = draft.answer([request for _, request in named])
        draft.teardown()
        pairs = zip(named, results, strict=True)
        return [{"item": name, **found[0]} for (name, _), found in pairs if not isinstance(found, ItemError)]

    def weight(self, text: str) -> float:
        return super().weight(text) + decode_weight(self.params.max_new_tokens)

    def open_model(self, spec: ModelSpec) -> None:
        self._engine: Engine = open_engine(self.params.engine, spec)
        if self.params.max_new_tokens >= self._engine.context_tokens:
            raise WorkloadImportError(
                f"params.max_new_tokens: an answer of {self.params.max_new_tokens} leaves no room for a prompt in "
                f"the context of {self._engine.context_tokens} tokens that model '{spec.name}' has"
            )
        self.facts.update(self._engine.facts)
        self.batch_size = self._engine.batch_size
        self.micro_batch, self.window_weight = window(spec.device)

    def close_model(self) -> None:
        self._engine.close()

    def load(self, item: Item) -> Request:
        """Tokenise one text; raise `ItemError` if it is empty or leaves no room for the answer."""
        if not item["text"].strip():
            raise ItemError("the text is empty")
        tokens = self._prompt(item["text"])
        longest = self._engine.context_tokens - self.params.max_new_tokens
        if len(tokens) > longest:
            raise ItemError(
                f"the prompt has {len(tokens)} tokens; with an answer of {self.params.max_new_tokens} the model's "
                f"context of {self._engine.context_tokens} holds {longest}"
            )
        return Request(
            tokens=tokens,
            max_new_tokens=self.params.max_new_tokens,
            temperature=self.params.temperature,
            top_p=self.params.top_p,
            seed=item_seed(self.params.seed, item["item"]),
        )

    def answer(self, inputs: Sequence[Request]) -> Sequence[Sequence[Row] | ItemError]:
        results = self._engine.run(inputs)
        return [[self._row(request, result)] for request, result in zip(inputs, results, strict=True)]

    def _prompt(self, text: str) -> list[int]:
        if self._tokenizer.chat_template is None:
            tokens: list[int] = self._tokenizer(text)["input_ids"]
            return tokens
        messages = [{"role": "user", "content": text}]
        if self.params.system:
            messages.insert(0, {"role": "system", "content": self.params.system})
        return chat_tokens(self._tokenizer, messages)

    def _row(self, request: Request, result: Completion) -> Row:
        return {
            "text": self._tokenizer.decode(result.tokens, skip_special_tokens=True),
            "finish_reason": result.finish_reason,
            "prompt_tokens": len(request.tokens),
            "completion_tokens": len(result.tokens),
        }


def chat_tokens(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Tokens of a conversation in the model's chat template, up to where the answer begins."""
    found = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=True)
    return list(found["input_ids"])


def decode_weight(max_new_tokens: int) -> float:
    """Estimated cost of generating an answer, in input tokens."""
    return _DECODE_COST * min(max_new_tokens, _LONG_ANSWER)


def window(device: str) -> tuple[int, float]:
    """Maximum number and total weight of the requests in a window: enough for sorting and for several batches."""
    count, new_tokens = _WINDOW[device.partition(":")[0]]
    return count, decode_weight(1) * new_tokens


def item_seed(seed: int, item: str) -> int:
    """The sampling seed of an item; depends only on the campaign's seed and the item's id."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{item}".encode()).digest()[:6])
