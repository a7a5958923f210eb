"""Text generation with vLLM's offline engine: continuous batching, paged key-value cache, tensor parallelism."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_jobs.errors import ModelTooLargeError, WorkloadImportError
from gpu_jobs.workloads.batch_size import BatchSize, is_out_of_memory
from gpu_jobs.workloads.engines.base import Completion, ModelSpec, Request
from gpu_jobs.workloads.engines.precision import PrecisionChoice, choose_precision, count_params, describe_device

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_REQUESTS_AT_ONCE = {"cpu": 32, "cuda": 256}


class VllmEngine:
    """Any causal language model that vLLM loads. Implements `Engine`."""

    def __init__(self, spec: ModelSpec) -> None:
        """Load the model.

        Raises:
            ModelTooLargeError: memory ran out while loading.
            WorkloadImportError: vLLM cannot load the model in this way.
        """
        import vllm

        choice = _choose(spec)
        at_once = _REQUESTS_AT_ONCE[spec.device.partition(":")[0]]
        how: dict[str, Any] = {"dtype": _DTYPES.get(choice.precision, "auto")}
        if choice.precision == "int4":
            how["quantization"] = "bitsandbytes"
        try:
            self._llm: Any = vllm.LLM(
                model=str(spec.folder),
                tensor_parallel_size=spec.num_gpus,
                trust_remote_code=spec.trust_remote_code,
                max_num_seqs=at_once,
                enforce_eager=spec.device == "cpu",
                disable_log_stats=True,
                **how,
            )
        except (OSError, ValueError, RuntimeError) as error:
            kind = ModelTooLargeError if is_out_of_memory(error) else WorkloadImportError
            raise kind(f"vLLM cannot load model '{spec.name}': {error}") from error
        self._sampling: Any = vllm.SamplingParams
        self._eos: int | None = self._llm.get_tokenizer().eos_token_id
        self.batch_size = BatchSize(at_once)  # vLLM limits itself to the memory that it has reserved
        self.context_tokens: int = self._llm.llm_engine.model_config.max_model_len
        self.facts: Mapping[str, str] = {
            "engine": f"vllm {vllm.__version__}",
            "precision": f"{choice.precision}: {choice.reason}",
        }

    def run(self, requests: Sequence[Request]) -> Sequence[Completion]:
        prompts = [{"prompt_token_ids": list(request.tokens)} for request in requests]
        outputs = self._llm.generate(prompts, [self._params(request) for request in requests], use_tqdm=False)
        return [self._result(output.outputs[0]) for output in outputs]

    def close(self) -> None:
        del self._llm

    def _params(self, request: Request) -> Any:
        return self._sampling(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_new_tokens,
            seed=request.seed if request.temperature else None,
        )

    def _result(self, output: Any) -> Completion:
        tokens = list(output.token_ids)
        if output.finish_reason == "length":
            return Completion(tokens=tokens, finish_reason="length")
        return Completion(tokens=tokens[:-1] if tokens[-1:] == [self._eos] else tokens, finish_reason="stop")


def _choose(spec: ModelSpec) -> PrecisionChoice:
    """Choose as for transformers, but without int8, which vLLM loads only from files quantized beforehand."""
    choice = choose_precision(spec.precision, count_params(spec.folder), describe_device(spec.device, spec.num_gpus))
    if choice.precision != "int8":
        return choice
    if spec.precision == "int8":
        raise WorkloadImportError("vLLM cannot load a model in int8; choose precision int4 or the engine transformers")
    return PrecisionChoice("int4", f"{choice.reason}; vLLM has no int8")
