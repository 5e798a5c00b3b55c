"""Texts from prompts: one as it comes, or many together; of beams, the best."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import mlx.core as mx

from ..randomness import key as named_key
from ..recipe import GenerateRecipe
from ..tokenizers.base import Tokenizer
from .batch import ROWS, Batch, Text
from .beams import beam_search
from .engine import generate_tokens
from .keys import row_keys
from .memory import make_memory
from .prompt_cache import PromptCache
from .text import Completion, Writer


def stream_text(
    model: Any,
    tokenizer: Tokenizer,
    prompt: list[int],
    settings: GenerateRecipe,
    key: mx.array,
    stop: Collection[int],
    completion: Completion,
    alternatives: int | None = None,
    automaton: mx.array | None = None,
    cache: PromptCache | None = None,
) -> Iterator[str]:
    """Pieces of text as they become whole characters; `completion` holds all of it, the stop token left out.

    alternatives: for how many tokens to note log-probabilities at each place, beside the one that came.
    automaton: what may be written at all, see `automaton.py`. cache: what was read before, see `PromptCache`.
    The likeliest of several beams is known at the end, and comes without log-probabilities.
    """
    if settings.beams > 1:
        best = beam_search(model, prompt, settings, stop, tokenizer.vocab_size, automaton)[0]
        tokens: Iterator[tuple[int, mx.array | None]] = ((token, None) for token in best.tokens)
    else:
        # A model may have more ids than its tokenizer, for the sake of a round number.
        found = generate_tokens(
            model, prompt, settings, key, stop, tokenizer.vocab_size, automaton=automaton, cache=cache
        )
        tokens = ((token.id, token.logprobs) for token in found)
    writer = Writer(tokenizer, stop, settings.stop, alternatives, completion)
    for token, logprobs in tokens:
        if piece := writer.add(token, logprobs):
            yield piece
        if writer.done:
            break
    if piece := writer.finish():
        yield piece


def complete(
    model: Any, tokenizer: Tokenizer, prompt: list[int], settings: GenerateRecipe, key: mx.array, stop: Collection[int]
) -> Completion:
    """All of the text at once."""
    completion = Completion()
    for _ in stream_text(model, tokenizer, prompt, settings, key, stop, completion):
        pass
    return completion


def sample_key(seed: int, prompt: int = 0, sample: int = 0) -> mx.array:
    """The key of a sample, by its number and its prompt's: it does not depend on how many there are."""
    return named_key(seed, "generate", prompt, sample)


def complete_all(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    settings: GenerateRecipe,
    seed: int,
    stop: Collection[int],
    samples: int = 1,
    alternatives: int | None = None,
    automaton: mx.array | None = None,
    first: int = 0,
) -> list[list[Completion]]:
    """`samples` completions of each prompt, of which the first has the number `first`; of beams, the best ones.

    The text of a sample is what `stream_text` writes with its `sample_key`.
    """
    writers = [[Writer(tokenizer, stop, settings.stop, alternatives) for _ in range(samples)] for _ in prompts]
    if settings.beams > 1:
        for prompt, some in zip(prompts, writers, strict=True):
            beams = beam_search(model, prompt, settings, stop, tokenizer.vocab_size, automaton)
            for beam, writer in zip(beams, some, strict=False):
                _write(writer, beam.tokens)
    else:
        memory = make_memory(model, min(ROWS, len(prompts) * samples))
        batch = Batch(model, memory, settings, stop, tokenizer.vocab_size, automaton)
        for number, prompt in enumerate(prompts):
            for sample in range(samples):
                own = row_keys(sample_key(seed, first + number, sample), [0])[0]
                batch.waiting.append(Text(list(prompt), own, settings.max_new_tokens, number * samples + sample))
        _write_batch(batch, [writer for some in writers for writer in some])
    for some in writers:
        for writer in some:
            writer.finish()
    return [[writer.completion for writer in some] for some in writers]


def _write(writer: Writer, tokens: list[int]) -> None:
    for token in tokens:
        writer.add(token)
        if writer.done:
            break


def _write_batch(batch: Batch, writers: list[Writer]) -> None:
    """Let all texts of a batch be written, each by the writer of its number."""
    for token in batch:
        writer = writers[token.text.number]
        writer.add(token.id, token.logprobs)
        if writer.done and not token.text.done:
            batch.end(token.text)
