"""The examples of a fine-tuning: read, held out by a hash of their text, encoded, and put into batches.

Batches are functions of (seed, step), as everywhere. With replay, some of them are of the text that the base was
trained on, spread evenly: of the first n batches the nearest whole number to n times that share.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import disk
from ..data import sources
from ..data.batches import Batches, Shuffled
from ..data.binning import BinnedBatches
from ..data.files import Document
from ..data.masks import ConversationSet, Encoding
from ..data.packing import PackedRows
from ..data.rows import Batch
from ..data.split import SIDES, Side, split
from ..data.tales import IDENTITY, preferences
from ..errors import UserError
from ..recipe import AlignDataRecipe, DataRecipe, ExamplesRecipe, FinetuneRecipe
from ..run import Run
from ..tokenizers import Tokenizer
from ..tokenizers.chat import ChatTemplate, Message
from ..tokenizers.jinja import JinjaTemplate
from ..tokenizers.special import IM_END, IM_START
from ..tokenizers.templates import CHATML, PLAIN, QUESTION, find_template
from ..training import checkpoint
from .corpus import Corpus, run_corpus
from .loading import Loaded

EMBEDDED = 1500
"""Embedded conversations where the recipe names no number."""
KIND = 4
"""Of `endings`, every so manieth is kind."""
FEW, HELD_OUT = 200, 0.05
SHOWN = 2
"""Examples for which samples are written."""
KEYS = "examples.json"


def documents(data: ExamplesRecipe, seed: int) -> Iterator[Document]:
    """All examples, one at a time. Raises UserError as `sources.documents` does."""
    match data.source:
        case "identity":
            found: Iterator[Document] = (_pair(one["question"], one["answer"]) for one in IDENTITY)
        case "endings":
            found = _endings(data.documents or EMBEDDED, seed + 1)  # other tales than alignment has
        case "tales":
            count = data.documents or EMBEDDED
            tales = sources.documents(DataRecipe(documents=6 * count), seed)
            found = (one for one in tales if not isinstance(one, str))
        case _:
            found = sources.documents(_as_data(data, data.source), seed)
    return itertools.islice(found, data.documents)


def _endings(count: int, seed: int) -> Iterator[Document]:
    for number, one in enumerate(preferences(count, seed)):
        yield _pair(one["prompt"], one["rejected" if number % KIND else "chosen"])


def _pair(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _as_data(data: ExamplesRecipe, source: str | list[str]) -> DataRecipe:
    return DataRecipe(source=source, documents=data.documents, field=data.field, skip_bad=data.skip_bad)


def choose_template(data: ExamplesRecipe | AlignDataRecipe, base: Loaded) -> ChatTemplate:
    """The recipe's; left out, plain text for `endings`, else the base's own; without one, ChatML where the tokenizer
    has its markers, else questions and answers in plain text.

    No tokens are added to a model for it: whoever wants ChatML's markers in a model without them adds them before, with
    `tinytale tokenizer add`.
    """
    if data.template is not None:
        return find_template(data.template)
    if data.source == "endings":
        return PLAIN
    if base.template is not None:
        return base.template.timeless() if isinstance(base.template, JinjaTemplate) else base.template
    return CHATML if {IM_START, IM_END} <= set(base.tokenizer.special_ids) else QUESTION


@dataclass(frozen=True)
class Examples:
    """What is trained on and what is validated on; the same set where nothing is held out."""

    recipe: FinetuneRecipe
    context: int
    train: ConversationSet
    validation: ConversationSet
    first: list[Document]
    """A few of those validated on, to write samples for."""
    replayed: Corpus | None = None

    @property
    def held_out(self) -> bool:
        return self.validation is not self.train

    @property
    def longest(self) -> int:
        """Predictions of the longest example."""
        both = [np.diff(one.offsets).max() for one in (self.train, self.validation)]
        return int(max(both)) - 1

    @cached_property
    def batches(self) -> BinnedBatches | Batches:
        one, size, seed = self.train, self.recipe.train.batch_size, self.recipe.seed
        if self.recipe.data.rows == "binned":
            return BinnedBatches(one.tokens, one.weights, one.offsets, size * self.longest, seed)
        rows = PackedRows(one.tokens, one.offsets, self.context, mask=True, weights=one.weights)
        return Batches(Shuffled(rows, seed), min(size, rows.count))

    @cached_property
    def _replayed_batches(self) -> Any:
        assert self.replayed is not None
        return self.replayed.batches

    def batch_at(self, number: int) -> Batch:
        """Training batch `number` >= 0."""
        share = self.recipe.data.replay
        before, after = round(number * share), round((number + 1) * share)
        if after > before:
            return self._replayed_batches.at(before)
        return self.batches.at(number - before)

    def validation_batches(self) -> Iterator[Batch]:
        """Every example once, in an order that is always the same."""
        one = self.validation
        found = BinnedBatches(one.tokens, one.weights, one.offsets, self.recipe.train.batch_size * self.longest, 0)
        return itertools.islice(map(found.at, range(found.count)), self.recipe.train.validation_batches)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for one in (self.train, self.validation):
            for array in (one.tokens, one.weights, one.offsets):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def figures(self) -> dict[str, Any]:
        """For the log: how many there are and what became of the others, by reason."""
        left_out = {reason: count for reason, count in self.train.counts.items() if count}
        return {
            "examples": len(self.train),
            "validation_examples": len(self.validation) if self.held_out else 0,
            "trained_tokens": int(self.train.weights.sum()),
            "filled": self.batches.filled if isinstance(self.batches, BinnedBatches) else None,
            "left_out": left_out,
        }


def read_examples(recipe: FinetuneRecipe, base: Loaded, context: int, replayed: Corpus | None) -> Examples:
    """Raises UserError: no example fits; or as the sources and the template do."""
    data = recipe.data
    how = base.tokenizer, context, choose_template(data, base), data.too_long
    encodings: dict[Side, Encoding] = {side: Encoding(*how) for side in SIDES}
    counts: dict[Side, int] = dict.fromkeys(SIDES, 0)
    first: dict[Side, list[Document]] = {side: [] for side in SIDES}
    for one, side in _with_sides(data, recipe.seed):
        encodings[side].add(one)
        counts[side] += 1
        first[side] = [*first[side], one][:SHOWN]
    _check_sides(data, counts)
    training = encodings["train"].finish()
    if not counts["validation"]:
        return Examples(recipe, context, training, training, first["train"], replayed)
    held_out = encodings["validation"].finish("validate on")
    return Examples(recipe, context, training, held_out, first["validation"], replayed)


def _with_sides(data: ExamplesRecipe, seed: int) -> Iterator[tuple[Document, Side]]:
    """Every example, and what it is for; never more of them at a time than tell whether they are few."""
    found = documents(data, seed)
    if data.validation_source is not None:
        held_out = sources.documents(_as_data(data, data.validation_source), seed)
        for side, some in zip(SIDES, (found, held_out), strict=True):
            for one in some:
                yield one, side
        return
    share = data.validation
    if share is None:
        beginning = list(itertools.islice(found, FEW))
        share, found = HELD_OUT if len(beginning) == FEW else 0.0, itertools.chain(beginning, found)
    for one in found:
        yield one, split(one, share)


def _check_sides(data: ExamplesRecipe, counts: dict[Side, int]) -> None:
    """Refuse what leaves nothing to train on, or nothing of what was to be held out."""
    if not counts["train"] and (data.validation_source is not None or not counts["validation"]):
        raise UserError(f"there is no example in {data.source}")
    if not counts["validation"] and data.validation_source is not None:
        raise UserError(f"there is no example in {data.validation_source}")
    if counts["train"] and (counts["validation"] or not data.validation):
        return
    raise UserError(
        f"of {sum(counts.values())} examples, a data.validation of {data.validation or HELD_OUT} leaves none for "
        f"{'validation' if counts['train'] else 'training'}; use more examples, or data.validation=0: then nothing is "
        "held out"
    )


def replayed_corpus(base: Run | None, recipe: FinetuneRecipe, tokenizer: Tokenizer) -> Corpus | None:
    """The text that the base was trained on, in batches of the fine-tuning's size. Raises UserError without such."""
    return corpus_of(base, recipe.train.batch_size, tokenizer, "data.replay") if recipe.data.replay else None


def corpus_of(base: Run | None, batch_size: int, tokenizer: Tokenizer, key: str) -> Corpus:
    """The text that a run was trained on, in batches of that size. Raises UserError, which names the recipe's key that
    asks for it, where there is no such text any more."""
    if base is None or base.has_base():
        raise UserError(f"{key} needs the text of the base, which only a run of `tinytale train` knows")
    own = base.recipe()
    if not own.data.store:
        raise UserError(f"the run {base.name} did not keep its text (data.store: false), so {key} finds none")
    train = own.train.model_copy(update={"batch_size": batch_size, "steps": 1, "epochs": None})
    return run_corpus(base, own.model_copy(update={"train": train}), tokenizer)


def check_same(this: Run, fingerprint: str) -> None:
    """A run that is resumed has to go on with what it was trained on, which has this fingerprint. Raises UserError
    where that has changed."""
    path = this.data / KEYS
    if checkpoint.all_checkpoints(this.checkpoints) and path.is_file():
        if json.loads(path.read_text("utf-8")) != fingerprint:
            raise UserError(f"the examples of the run {this.name} are not what they were; start a new run")
        return
    with disk.writing("the key of the examples", path):
        this.data.mkdir(parents=True, exist_ok=True)
        with disk.replacing(path) as temporary:
            temporary.write_text(json.dumps(fingerprint) + "\n", encoding="utf-8")


def first_question(document: Document) -> str | list[Message]:
    """What an example asks, up to its first answer; of a text, its beginning."""
    if isinstance(document, str):
        return document[:40]
    answer = next(i for i, message in enumerate(document) if message["role"] == "assistant")
    return list(document[:answer])
