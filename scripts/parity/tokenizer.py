"""Toy tokenizers: byte-level BPE with a few merges, and a family's special tokens."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

WORDS = (
    "What happens in the video, and when? A helpful assistant answers the user. system seconds "
    "Frame Frames frames from 00:01 one two three four five six seven eight nine ten red card"
)


def qwen_tokenizer(specials: list[str], n_words: int = 340, **options: Any) -> Qwen2Tokenizer:
    """Return a tokenizer that cuts text as Qwen2's does, with `specials` after its words."""
    vocab, merges = _trained(n_words, _qwen_words())
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, **options)
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return tokenizer


def smollm_tokenizer(specials: list[str], n_words: int = 340) -> PreTrainedTokenizerFast:
    """Return a tokenizer that cuts text as SmolLM2's does, with `specials` after its words."""
    words = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    vocab, merges = _trained(n_words, words)
    inner = Tokenizer(BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer, inner.decoder = words, decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return tokenizer


def _qwen_words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _trained(
    n_words: int, words: pre_tokenizers.PreTokenizer
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = words
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=n_words, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]
