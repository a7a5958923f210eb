"""Answers OpenAI Batch files with one's own model: input lines and output files have OpenAI's format."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from gpu_jobs.dataset.sources import Source, input_cache, local_copy
from gpu_jobs.errors import ItemError, RefusedError
from gpu_jobs.workloads.base import Item, Params, Results, Row
from gpu_jobs.workloads.engines import open_engine
from gpu_jobs.workloads.engines.base import Engine, ModelSpec, Request
from gpu_jobs.workloads.engines.encoder import TokenizedText, VectorEncoder
from gpu_jobs.workloads.text import openai_lines, openai_requests
from gpu_jobs.workloads.text.base import MODEL, ModelName, ModelParams, ModelWorkload, digest
from gpu_jobs.workloads.text.generate import BATCH_ITEMS, window
from gpu_jobs.workloads.text.openai_lines import Problem

OUTPUT, ERRORS, BATCH = "output.jsonl", "error.jsonl", "batch.json"
_EXPIRED = Problem(
    is_refused=False,
    code="batch_expired",
    message="This request could not be executed before the completion window expired.",
)
_CANCELLED = Problem(
    is_refused=False, code="batch_cancelled", message="This request was not executed: the batch was cancelled."
)


class OpenAIBatchParams(ModelParams):
    """Parameters for answering requests in the OpenAI Batch format."""

    task: Literal["openai-batch"] = Field(
        default="openai-batch", title="Task", description="Answer files in the OpenAI Batch format, in that format"
    )
    model: ModelName = Field(
        default="smollm2-135m-instruct", title="Model", description=f"{MODEL}. The `model` named in a line is ignored"
    )
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"] = Field(
        default="/v1/chat/completions",
        title="Endpoint",
        description="Endpoint of all lines; lines for another one go to the error file",
    )
    seed: int = Field(default=0, title="Seed", description="Seed for sampling, for lines without their own")
    engine: Literal["auto", "vllm", "transformers"] = Field(
        default="auto", title="Engine", description="auto: vLLM on a GPU where it is installed, else transformers"
    )


@dataclass(frozen=True, slots=True)
class _LoadedRequest:
    """One request, ready for the model."""

    item: str
    custom_id: str
    asked: Request | Sequence[TokenizedText]
    stops: tuple[str, ...] = ()


class OpenAIBatch(ModelWorkload):
    """Writes one response per line; lines without a response go to the error file with OpenAI's error code."""

    params: OpenAIBatchParams
    params_model: ClassVar[type[Params]] = OpenAIBatchParams
    batch_items = BATCH_ITEMS
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)
    columns: ClassVar[Mapping[str, pl.DataType | type[pl.DataType]]] = {
        "custom_id": pl.String,
        "body": pl.String,  # body of the response, as JSON
    }

    def items(self, sources: Iterable[Source]) -> Iterator[Item]:
        """Yield one item per line; an invalid line becomes an item that raises its error in `load`."""
        seen = set[str]()
        for source in sources:
            with _local(source).open("rb") as file:
                for line in openai_lines.read_lines(file, self.params.endpoint, seen):
                    yield {
                        "item": f"{source.id}#{line.number}",
                        "weight": openai_requests.weigh(line.body, self.params.endpoint),
                        "fingerprint": digest(f"{line.custom_id}\0{line.body}\0{line.problem}"),
                        "custom_id": line.custom_id,
                        "body": line.body,
                        "problem": line.problem,
                    }

    def open_model(self, spec: ModelSpec) -> None:
        self.micro_batch, self.window_weight = window(spec.device)
        self._engine: Engine | None = None
        self._encoder: VectorEncoder | None = None
        if self.params.endpoint == "/v1/embeddings":
            self._encoder = VectorEncoder(spec, self._tokenizer, "auto")
        else:
            self._engine = open_engine(self.params.engine, spec)
        opened = self._engine or self._encoder
        assert opened is not None
        self.facts.update(opened.facts)
        self.batch_size = opened.batch_size

    def close_model(self) -> None:
        if self._engine is not None:
            self._engine.close()
        if self._encoder is not None:
            self._encoder.close()

    def load(self, item: Item) -> _LoadedRequest:
        if item["problem"]:
            raise ItemError(item["problem"])
        body = json.loads(item["body"])
        if self._encoder is not None:
            return _LoadedRequest(item["item"], item["custom_id"], self._tokens(self._encoder, body))
        assert self._engine is not None
        asked, stops = openai_requests.read_generation(
            item["custom_id"],
            body,
            self.params.endpoint,
            self._tokenizer,
            context_tokens=self._engine.context_tokens,
            seed=self.params.seed,
        )
        return _LoadedRequest(item["item"], item["custom_id"], asked, stops)

    def answer(self, inputs: Sequence[_LoadedRequest]) -> Sequence[Sequence[Row] | ItemError]:
        bodies = self._embed(self._encoder, inputs) if self._encoder is not None else self._generate(inputs)
        return [
            [{"custom_id": each.custom_id, "body": json.dumps(body)}] for each, body in zip(inputs, bodies, strict=True)
        ]

    def export(self, results: Results, folder: Path) -> Iterable[Path]:
        """`output.jsonl` and `error.jsonl` in the order of the input, and `batch.json`, OpenAI's batch object."""
        created = int(results.created_at.timestamp())
        num_answered = num_failed = 0
        with (folder / OUTPUT).open("w") as file:
            for batch in results.rows.collect_batches(maintain_order=True):
                for item, custom_id, body in batch.select("item", "custom_id", "body").iter_rows():
                    whole = json.loads(body)
                    if whole["object"] != "list":
                        whole["created"] = created
                    file.write(openai_lines.output_line(item, custom_id, whole))
                    num_answered += 1
        left = _EXPIRED if results.has_expired else _CANCELLED
        with (folder / ERRORS).open("w") as file:
            for item, error in results.without_rows():
                why = error or item["problem"]  # an invalid line has the same error whatever the campaign did
                problem = openai_lines.parse_problem(why) if why else left
                file.write(openai_lines.error_line(item["item"], item["custom_id"], problem))
                num_failed += 1
        batch_object = self._batch(results, created, num_answered, num_failed)
        (folder / BATCH).write_text(json.dumps(batch_object, indent=1))
        return [folder / OUTPUT, folder / ERRORS, folder / BATCH]

    def _batch(self, results: Results, created: int, num_answered: int, num_failed: int) -> dict[str, Any]:
        status = "completed" if results.is_complete else "expired" if results.has_expired else "cancelled"
        return {
            "id": openai_lines.short_id("batch", results.campaign),
            "object": "batch",
            "endpoint": self.params.endpoint,
            "model": self.params.model,
            "input_file_id": results.dataset,
            "completion_window": "24h",
            "status": status,
            "created_at": created,
            f"{status}_at": created,
            "output_file_id": OUTPUT,
            "error_file_id": ERRORS,
            "request_counts": {"total": num_answered + num_failed, "completed": num_answered, "failed": num_failed},
        }

    def _tokens(self, encoder: VectorEncoder, body: Mapping[str, Any]) -> Sequence[TokenizedText]:
        found = [encoder.tokenize(text) for text in openai_requests.read_embedding_inputs(body, self._tokenizer)]
        if any(each.is_truncated for each in found):
            message = f"This model's maximum context length is {encoder.max_tokens} tokens; an input is longer."
            raise ItemError(openai_lines.refused("context_length_exceeded", message))
        return found

    def _embed(self, encoder: VectorEncoder, inputs: Sequence[_LoadedRequest]) -> Iterator[dict[str, Any]]:
        texts = [each.asked for each in inputs if not isinstance(each.asked, Request)]
        vectors = iter(encoder.encode([one for several in texts for one in several]))
        for several in texts:
            num_tokens = sum(len(one.ids) for one in several)
            yield openai_requests.embedding_body(self.params.model, [next(vectors) for _ in several], num_tokens)

    def _generate(self, inputs: Sequence[_LoadedRequest]) -> Iterator[dict[str, Any]]:
        assert self._engine is not None
        requests = [each.asked for each in inputs if isinstance(each.asked, Request)]
        for each, request, result in zip(inputs, requests, self._engine.run(requests), strict=True):
            text = self._tokenizer.decode(result.tokens, skip_special_tokens=True)
            text, is_stopped = openai_requests.cut_at_stop(text, each.stops)
            finish_reason = "stop" if is_stopped else result.finish_reason
            yield openai_requests.generation_body(
                each.item,
                model=self.params.model,
                endpoint=self.params.endpoint,
                request=request,
                result=result,
                text=text,
                finish_reason=finish_reason,
            )


def _local(source: Source) -> Path:
    """Local path of a source's file; raises `RefusedError` if it is a row of a table or cannot be read."""
    if not source.columns.keys() <= {"uri"}:
        raise RefusedError(
            "dataset", f"'{source.id}' is a row of a table; name files in the OpenAI Batch format (.jsonl)"
        )
    try:
        return local_copy(source.uri, input_cache(), expected=source.fingerprint)
    except ItemError as error:
        raise RefusedError("dataset", str(error)) from error
