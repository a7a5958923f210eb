"""Static batches that shrink give what each request gives alone."""

from dataclasses import replace

import pytest
import transformers

from gpu_jobs.workloads.engines.base import Request

END, PAD = 1, 0
SIZES = dict(  # noqa: C408 - keyword arguments
    vocab_size=258, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=128, bos_token_id=None, eos_token_id=END, pad_token_id=PAD,
    initializer_range=0.5,
)  # fmt: skip
REQUESTS = [
    Request(tokens=[7 + place, 90, *range(20, 20 + 3 * place)], max_new_tokens=most)
    for place, most in enumerate((40, 3, 17, 8, 25))
]


def sliding():
    """Its cache keeps the last eight tokens only."""
    return transformers.MistralForCausalLM(transformers.MistralConfig(sliding_window=8, **SIZES))


def convolving():
    """Beside keys and values it keeps the state of a convolution: rows cannot leave its cache."""
    return transformers.Lfm2ForCausalLM(transformers.Lfm2Config(layer_types=["conv", "full_attention"], **SIZES))


@pytest.fixture(params=["llama", "sliding", "convolving"])
def model(request, llama):
    import torch

    torch.manual_seed(3)
    if request.param == "llama":
        return transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    return {"sliding": sliding, "convolving": convolving}[request.param]().eval()


def generate(*asked):
    from gpu_jobs.workloads.engines import static

    return static.generate(*asked)


def alone(model, request):
    """The library's own, for one prompt."""
    import torch

    ids = torch.tensor([request.tokens])
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_new_tokens, do_sample=False,
        eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip
    return output[0, len(request.tokens) :].tolist()


def up_to_its_end(answer, request):
    kept = answer[: request.max_new_tokens]
    return kept[: kept.index(END) + 1] if END in kept else kept


def test_a_batch_gives_what_each_request_gives_alone(model):
    answers = generate(model, REQUESTS, [END], PAD)

    expected = [up_to_its_end(alone(model, request), request) for request in REQUESTS]
    assert [up_to_its_end(answer, request) for answer, request in zip(answers, REQUESTS, strict=True)] == expected
    assert len({tuple(answer) for answer in expected}) == len(REQUESTS)


def test_a_drawn_answer_is_the_same_alone(llama):
    """Each row's dice stay with it when others leave."""
    model = transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    drawn = [replace(request, temperature=1.0, seed=place % 4) for place, request in enumerate(REQUESTS)]

    together = generate(model, drawn, [END], PAD)

    expected = [generate(model, [request], [END], PAD)[0] for request in drawn]
    pairs = zip(together, expected, drawn, strict=True)
    assert all(up_to_its_end(one, request) == up_to_its_end(other, request) for one, other, request in pairs)


def test_similar_prompts_are_read_together_and_rows_that_have_ended_leave(llama):
    """Prompts of 14 and 11, of 8, of 5 and of 2 tokens are read; after 9, 17, 25 new tokens some rows have ended."""
    model = transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    rows = []
    model.register_forward_pre_hook(
        lambda _module, _args, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )

    generate(model, REQUESTS, [], PAD)

    assert rows == [2, 1, 1, 1] + [5] * 8 + [3] * 8 + [2] * 8 + [1] * 15
