"""What a recipe's text looks like to the model: counts, lengths, how rows are filled, samples with what is trained."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .. import run
from ..data import sources
from ..data.batches import Batches
from ..data.binning import BinnedBatches
from ..data.files import Document
from ..data.masks import Rule, conversation_set
from ..data.packing import PackedRows
from ..data.rows import Batch, document_pieces
from ..recipe import Recipe
from ..tokenizers import Tokenizer
from ..tokenizers.templates import find_template
from ..training.schedules import micro_batches_before
from .corpus import Corpus, prepare_corpus
from .tokenizing import Notify, tokenizer_for

BARS = 12
CONVERSATIONS = 1_000  # looked at
MEASURED = 20_000  # documents of which it is measured how they fill rows


@dataclass
class Span:
    """Tokens of a sample that are treated alike."""

    text: str
    trained: bool
    segment: int
    """Which document of its row it belongs to; 0 where rows are not told apart."""


def prepare_data(
    recipe: Recipe, root: Path = run.ROOT, notify: Notify = lambda event: None, workers: int | None = None
) -> tuple[Corpus, float]:
    """The recipe's shards, made ahead of a run with the recipe's tokenizer, and the seconds that it took.

    Raises:
        UserError: as `corpus.run_corpus` and `tokenizing.tokenizer_for`.
    """
    tokenizer = tokenizer_for(recipe, root, notify, workers=workers)
    notify({"event": "phase", "text": "preparing the data"})

    def report(documents: int, tokens: int) -> None:
        notify({"event": "progress", "text": f"{documents:,} documents, {tokens:,} tokens"})

    started = time.perf_counter()
    corpus = prepare_corpus(recipe, tokenizer, root, report, workers)
    return corpus, time.perf_counter() - started


# ---------------------------------------------------------------------- figures
def data_figures(corpus: Corpus) -> dict[str, Any]:
    """Of each source its counts and what was left out, the documents' lengths in tokens, and how rows are filled."""
    recipe = corpus.recipe
    lengths = np.concatenate([np.diff(one.train.offsets) for one in corpus.shards])
    figures: dict[str, Any] = {"recipe": recipe.name, "sources": _sources(corpus)}
    if len(lengths):
        figures["lengths"] = _lengths(lengths)
        figures["histogram"] = histogram(lengths)
        figures["filled"] = _filled(corpus)
    if recipe.data.store:
        batches, steps = corpus.batches, micro_batches_before(recipe.train.steps, recipe.train)
        assert isinstance(batches, Batches)
        figures["rows"] = {
            "kind": recipe.data.rows,
            "context": recipe.model.context,
            "in_an_epoch": batches.order.count,
            "epochs": steps * recipe.train.batch_size / batches.order.count,
            "by_source": corpus.rows_by_source(),
        }
    return figures


def _sources(corpus: Corpus) -> list[dict[str, Any]]:
    found = []
    for part, one, left_out in zip(corpus.parts, corpus.shards, corpus.left_out(), strict=True):
        tokens = len(one.train.tokens) + len(one.validation.tokens)
        size = one.train.bytes + one.validation.bytes
        found.append(
            {
                "source": part.name,
                "documents": one.train.documents,
                "tokens": len(one.train.tokens),
                "validation_documents": one.validation.documents,
                "validation_tokens": len(one.validation.tokens),
                "bytes": size,
                "bytes_per_token": size / tokens if tokens else None,
                "folder": str(one.train.path.parent),
                **{name: left_out[name] for name in ("cleaning", "skipped", "samples")},
            }
        )
    return found


def _lengths(lengths: np.ndarray) -> dict[str, float]:
    low, middle, high = np.percentile(lengths, [5, 50, 95])
    return {
        "shortest": int(lengths.min()),
        "5 % are below": float(low),
        "median": float(middle),
        "mean": float(lengths.mean()),
        "5 % are above": float(high),
        "longest": int(lengths.max()),
    }


def histogram(lengths: np.ndarray, bars: int = BARS) -> list[dict[str, int]]:
    """How many documents have so many tokens: up to `bars` equal ranges; the last one also takes all beyond 99 %."""
    top = max(int(np.percentile(lengths, 99)), 1)
    width = -(-(top + 1) // bars)
    counts = np.bincount(np.minimum(lengths // width, bars - 1), minlength=bars)
    edges = [{"from": width * i, "to": width * (i + 1) - 1, "documents": int(n)} for i, n in enumerate(counts)]
    edges[-1]["to"] = max(edges[-1]["to"], int(lengths.max()))
    while len(edges) > 1 and not edges[-1]["documents"]:
        edges.pop()
    return edges


def _filled(corpus: Corpus) -> dict[str, float]:
    """Which share of a batch would be real tokens, for each way to make rows of documents; of the first ones."""
    shard, recipe = corpus.shards[0].train, corpus.recipe
    context, batch = recipe.model.context, recipe.train.batch_size
    offsets = np.asarray(shard.offsets[: MEASURED + 1])
    begins, ends = document_pieces(offsets, context)
    needed = np.maximum(ends - begins - 1, 1)
    if not len(needed):
        return {}
    whole = needed[: max(len(needed) // batch, 1) * batch]
    rows = whole.reshape(-1, min(batch, len(whole)))
    borders = np.concatenate([[0], np.cumsum(ends - begins)])
    nothing = np.zeros(int(borders[-1]), np.uint8)
    return {
        "padded to the longest of a batch": float(rows.sum() / (rows.max(axis=1) * rows.shape[1]).sum()),
        "binned by length": BinnedBatches(nothing, nothing, borders, batch * context, recipe.seed).filled,
        "packed (whole documents)": PackedRows(shard.tokens, offsets, context).filled,
    }


# ---------------------------------------------------------------------- samples
def sample_rows(corpus: Corpus, count: int) -> list[list[Span]]:
    """The first rows of the first training batch, as spans of tokens that are trained or not."""
    batch = corpus.batches.at(0)
    return [_spans(corpus.tokenizer, batch, row) for row in range(min(count, len(batch.tokens)))]


def _spans(tokenizer: Tokenizer, batch: Batch, row: int) -> list[Span]:
    tokens = batch.tokens[row].tolist()
    trained = [False, *(batch.weights[row] > 0).tolist()]  # nothing predicts the first token
    segments = [0] * len(tokens) if batch.segments is None else batch.segments[row].tolist()
    return _joined(tokenizer, tokens, trained, segments)


def _joined(tokenizer: Tokenizer, tokens: list[int], trained: list[bool], segments: list[int]) -> list[Span]:
    """Neighbours that are treated alike as one span; special tokens by their names."""
    spans: list[Span] = []
    start = 0
    for end in range(1, len(tokens) + 1):
        if end == len(tokens) or (trained[end], segments[end]) != (trained[start], segments[start]):
            text = tokenizer.decode(tokens[start:end], skip_special=False)
            spans.append(Span(text, trained[start], segments[start]))
            start = end
    return spans


def conversation_view(
    recipe: Recipe, tokenizer: Tokenizer, count: int, template: str = "chatml", rule: Rule = "drop"
) -> dict[str, Any] | None:
    """How fine-tuning sees the first conversations of the text: trained spans, and what does not fit the context.

    None where there is no conversation among the first documents.

    Raises:
        UserError: an unknown template, or one that needs markers that the tokenizer lacks.
    """
    first: Iterable[Document] = islice(sources.documents(recipe.data, recipe.seed), CONVERSATIONS)
    chats = [one for one in first if not isinstance(one, str)]
    if not chats:
        return None
    found = conversation_set(chats, tokenizer, recipe.model.context, find_template(template), rule)
    samples = []
    for number in range(min(count, len(found))):
        tokens, weights = found.example(number)
        samples.append(_joined(tokenizer, tokens.tolist(), [False, *(weights[1:] > 0).tolist()], [0] * len(tokens)))
    trained = int(sum(found.example(number)[1][1:].sum() for number in range(len(found))))
    return {
        "template": template,
        "conversations": len(chats),
        "examples": len(found),
        "tokens": len(found.tokens),
        "trained_tokens": trained,
        "left_out": {name: number for name, number in found.counts.items() if number},
        "samples": samples,
    }
