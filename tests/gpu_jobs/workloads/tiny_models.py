"""Randomly initialised models that load in a blink: they prove the plumbing, what they say means nothing."""

from pathlib import Path

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

CONTEXT = 128
_CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<answer>"


def write_tokenizer(folder: Path, *, chat: bool = False) -> None:
    """One token a byte, and <pad> and <end>."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {name: number for number, name in enumerate(["<pad>", "<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", model_max_length=CONTEXT
    )
    if chat:
        fast.chat_template = _CHAT
    fast.save_pretrained(folder)


def write_llama(folder: Path, *, chat: bool = True, seed: int = 0) -> str:
    """A causal language model."""
    import torch

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=258, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=CONTEXT, bos_token_id=None, eos_token_id=1, pad_token_id=0,
        initializer_range=0.5,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder, chat=chat)
    return str(folder)


def write_bert(folder: Path, *, labels: tuple[str, ...] = ()) -> str:
    """An encoder, or a classifier with these labels."""
    import torch

    torch.manual_seed(0)
    names = dict(enumerate(labels))
    config = transformers.BertConfig(
        vocab_size=258, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=CONTEXT, id2label=names or None,
        label2id={name: place for place, name in names.items()},
        initializer_range=0.5,
    )  # fmt: skip
    (transformers.BertForSequenceClassification(config) if labels else transformers.BertModel(config)).save_pretrained(
        folder
    )
    write_tokenizer(folder)
    return str(folder)
