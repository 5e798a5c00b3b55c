"""The decoding loop: read the prompt once, then one token at a time, with the keys and values kept.

The next step is put on its way before the last token is looked at (`mx.async_eval`), so the processor that runs the
model never waits for the one that runs Python.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

import mlx.core as mx

from ..models.transformer import Cache, Transformer
from ..recipe import GenerateRecipe
from ..tokenizers.base import StreamDecoder, Tokenizer
from .sampling import sample

PREFILL = 512
"""Prompt tokens per forward pass, which bounds the memory that a long prompt takes."""


def generate_ids(
    model: Transformer,
    prompt: list[int],
    settings: GenerateRecipe,
    key: mx.array,
    stop: Collection[int] = (),
    vocabulary: int | None = None,
) -> Iterator[int]:
    """The ids that follow `prompt`, up to and including the first one of `stop`; all are below `vocabulary`.

    Text beyond the trained context is read in a window: when it is full, generation goes on from its last half.
    A longer prompt counts with its end. The same key gives the same ids, of which a lower limit is the start.
    Raises ValueError for an empty prompt.
    """
    if not prompt:
        raise ValueError("there is nothing to continue: start from the tokenizer's bos token")
    context = model.config.context
    history = list(prompt)
    cache, logits = _read(model, history[-context:])
    for _ in range(settings.max_new_tokens):
        key, own = mx.random.split(key)
        chosen = sample(logits[:, :vocabulary], own, settings.temperature, settings.top_k, settings.top_p)
        full = cache[0].offset >= context
        if not full:
            logits = model(chosen[:, None], cache)[:, -1]
            mx.async_eval(chosen, logits)
        token = int(chosen)
        yield token
        if token in stop:
            return
        history.append(token)
        if full:
            cache, logits = _read(model, history[-max(context // 2, 1) :])


def _read(model: Transformer, ids: list[int]) -> tuple[Cache, mx.array]:
    """A cache that has seen `ids`, and the logits [1, vocabulary] of what follows; no other logits are computed."""
    cache = model.make_cache()
    hidden = None
    for start in range(0, len(ids), PREFILL):
        hidden = model.hidden(mx.array([ids[start : start + PREFILL]]), cache)
        mx.eval([layer.state for layer in cache])
    assert hidden is not None
    return cache, model.logits(hidden[:, -1])


@dataclass
class Completion:
    """What was generated: grows while `stream_text` runs."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] = "length"
    """`stop`: the model ended its text; `length`: it was cut at the limit."""


def stream_text(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: list[int],
    settings: GenerateRecipe,
    key: mx.array,
    stop: Collection[int],
    completion: Completion,
) -> Iterator[str]:
    """Pieces of text as they become whole characters; `completion` holds all of it, the stop token left out."""
    decoder = StreamDecoder(tokenizer)
    # A model may have more ids than its tokenizer, for the sake of a round number.
    for token in generate_ids(model, prompt, settings, key, stop, tokenizer.vocab_size):
        if token in stop:
            completion.finish_reason = "stop"
            break
        completion.tokens.append(token)
        if piece := decoder.add(token):
            completion.text += piece
            yield piece
    if piece := decoder.flush():
        completion.text += piece
        yield piece


def complete(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: list[int],
    settings: GenerateRecipe,
    key: mx.array,
    stop: Collection[int],
) -> Completion:
    completion = Completion()
    for _ in stream_text(model, tokenizer, prompt, settings, key, stop, completion):
        pass
    return completion
