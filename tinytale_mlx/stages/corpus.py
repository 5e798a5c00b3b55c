"""The text of a run: shards of each source, made once and kept for every run, and the batches from them.

Shards lie in `<runs>/.cache/shards/<key>/`, where all runs over the same text with the same tokenizer find them; the
folder can be deleted at any time. A run notes the keys of its own in `data/shards.json`, so that it goes on with
what it was trained on even when the source has changed or gone.
"""

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import disk
from ..data import sources
from ..data.batches import Batches, document_batches, make_rows, validation_batches
from ..data.clean import Cleaner
from ..data.encode import Encoder, encode_all, kept, with_sides
from ..data.mixture import Mixture, Source
from ..data.prepare import Report, open_or_prepare, read_report
from ..data.rows import Batch
from ..data.shards import Shards, open_shards
from ..data.stream import StreamBatches
from ..errors import UserError
from ..recipe import DataRecipe, Recipe
from ..run import Run
from ..tokenizers import Tokenizer
from ..training import checkpoint
from ..training.schedules import micro_batches_before
from ..workers import cores

LARGE = 20e6  # bytes of text from which on several processes prepare it sooner than one
VALIDATION_TOKENS = 200_000  # held out where the tokens are not stored
LOOK = 1 << 16  # tokens at either end by which a text is told from another one
CACHE = Path(".cache", "shards")
KEYS = "shards.json"


@dataclass(frozen=True)
class Corpus:
    """The tokens of a run, by source."""

    recipe: Recipe
    tokenizer: Tokenizer
    shards: list[Shards]
    """Of each source; where the tokens are not stored, of the validation text alone."""
    rank: int = 0
    ranks: int = 1
    """Of so many processes, this one gets its share of the rows of each batch, for training and for validation."""

    @property
    def parts(self) -> list[sources.Part]:
        return sources.parts(self.recipe.data)

    @property
    def train_tokens(self) -> int | None:
        """None where that is not known, because they are not stored."""
        return sum(len(one.train.tokens) for one in self.shards) if self.recipe.data.store else None

    @property
    def validation_tokens(self) -> int:
        return sum(len(one.validation.tokens) for one in self.shards)

    @cached_property
    def batches(self) -> Batches | StreamBatches:
        """The training batches that the recipe asks for; their plan is made once.

        Raises:
            UserError: too little text for one batch, or for as many epochs of a source as may be shown.
        """
        data, train = self.recipe.data, self.recipe.train
        if not data.store:
            return StreamBatches(self._epoch, self.recipe.model.context, train.batch_size, self.recipe.seed)
        batches = Batches(self._order, train.batch_size, self.rank, self.ranks)
        batches.check(train.steps, lambda step: micro_batches_before(step, train))
        return batches

    @cached_property
    def _order(self) -> Mixture:
        """All rows of the stored tokens, in the order in which they are shown."""
        data, context = self.recipe.data, self.recipe.model.context
        mixed = [
            Source(
                part.name, make_rows(data, one.tokens, one.offsets, context, self.recipe.seed), part.weight, part.epochs
            )
            for part, one in zip(self.parts, (shards.train for shards in self.shards), strict=True)
        ]
        return Mixture(mixed, self.recipe.seed, data.temperature)

    @property
    def keys(self) -> list[str]:
        return [one.validation.key for one in self.shards]

    @property
    def fingerprint(self) -> str:
        """A hash of how many tokens there are and of the first and last ones, wherever the text came from."""
        digest = hashlib.blake2b(digest_size=16)
        for side in (side for one in self.shards for side in one):
            digest.update(f"{len(side.tokens)} {len(side.offsets)} ".encode())
            for end in (side.tokens[:LOOK], side.tokens[-LOOK:]):
                digest.update(np.asarray(end, np.uint32).tobytes())
        return digest.hexdigest()

    @property
    def rows(self) -> int:
        """Different rows there are: an epoch. Of a mixture, as many as its sources have together.

        Raises:
            UserError: nobody knows, because the tokens are not stored.
        """
        if not self.recipe.data.store:
            raise UserError(
                "train.epochs needs to know how much text there is, and with data.store: false nobody does; "
                "give train.steps instead"
            )
        return self._order.count

    def _epoch(self) -> Iterator[np.ndarray]:
        """The training documents of an unstored corpus, once."""
        data = self.recipe.data
        cleaner = Cleaner(data.clean)
        fraction = 0.0 if data.validation_source is not None else data.validation
        items, clean = with_sides(sources.documents(data, self.recipe.seed), fraction, cleaner)
        for encoded in encode_all(Encoder(self.tokenizer, clean, fraction), items):
            yield encoded.part(kept(encoded, cleaner) & ~encoded.held_out)[0]

    def rows_by_source(self) -> dict[str, int]:
        """The rows of each source in the whole of the training; empty where there is one source only."""
        train = self.recipe.train
        if len(self.shards) == 1 or not isinstance(self.batches, Batches):
            return {}
        return self.batches.shown(micro_batches_before(train.steps, train))

    def batch_at(self, step: int) -> Batch:
        """This process's rows of training batch `step` >= 0."""
        batch = self.batches.at(step)
        return batch if isinstance(self.batches, Batches) else self._share(batch)

    def validation_batches(self) -> Iterator[Batch]:
        """The held-out text of all sources, every token but the first predicted once; this process's rows of it."""
        return map(self._share, self._validation_batches())

    def _share(self, batch: Batch) -> Batch:
        tokens, weights, segments = batch
        mine = slice(len(tokens) * self.rank // self.ranks, len(tokens) * (self.rank + 1) // self.ranks)
        return Batch(tokens[mine], weights[mine], None if segments is None else segments[mine])

    def _validation_batches(self) -> Iterator[Batch]:
        data, batch_size, context = self.recipe.data, self.recipe.train.batch_size, self.recipe.model.context
        for text in (one.validation for one in self.shards if one.validation.documents):
            if data.rows == "windows" and not data.document_mask:
                yield from validation_batches(text.tokens, context, batch_size)
            else:
                yield from document_batches(text.tokens, text.offsets, context, batch_size)

    def left_out(self) -> list[dict[str, Any]]:
        """Of each source what cleaning and skipping left out, see `data.prepare.read_report`."""
        return [
            {"source": part.name, **read_report(one.train.path.parent)}
            for part, one in zip(self.parts, self.shards, strict=True)
        ]


def run_corpus(
    this: Run, recipe: Recipe, tokenizer: Tokenizer, report: Report | None = None, workers: int | None = None
) -> Corpus:
    """The run's tokens. Once it has trained on them they are what it was trained on, whatever became of the source.

    Raises:
        UserError: whatever the sources, the split or the disk object to; or the tokens were deleted and the source
            is not what it was.
    """
    cache = this.path.parent / CACHE
    keys = _keys(this) if checkpoint.all_checkpoints(this.checkpoints) else None
    shards = _known(cache, keys, tokenizer) if keys else None
    if shards is None:
        shards = _prepared(recipe, tokenizer, cache, report, workers)
        found = Corpus(recipe, tokenizer, shards).keys
        if keys not in (None, found):
            raise UserError(
                f"the data of the run {this.name} is not what it was: the tokens in {cache} are gone, and the source "
                "has changed since; start a new run"
            )
        _note(this, found)
    corpus = Corpus(recipe, tokenizer, shards)
    if not corpus.validation_tokens:
        raise UserError("no source leaves a document for validation; use more documents or a larger data.validation")
    return corpus


def other_corpus(
    recipe: Recipe, tokenizer: Tokenizer, root: Path, keys: list[str], fingerprint: str, rank: int, ranks: int
) -> Corpus:
    """The tokens on which rank 0 trains, for another process: found where that has put them, or on another machine
    prepared there, from the text that lies at the same place.

    Raises:
        UserError: it is another text; or as `run_corpus`.
    """
    cache = root / CACHE
    shards = _known(cache, keys, tokenizer) or _prepared(recipe, tokenizer, cache, None, None)
    corpus = Corpus(recipe, tokenizer, shards, rank, ranks)
    if corpus.fingerprint != fingerprint:
        raise UserError(
            f"process {rank} of {ranks}, on {platform.node()}, finds another text there than process 0; "
            "copy the text to the same place on every machine"
        )
    return corpus


def prepare_corpus(
    recipe: Recipe, tokenizer: Tokenizer, root: Path, report: Report | None = None, workers: int | None = None
) -> Corpus:
    """The tokens of a recipe without a run: what `tinytale data prepare` makes ahead, and `train` then finds.

    Raises:
        UserError: as `run_corpus`.
    """
    return Corpus(recipe, tokenizer, _prepared(recipe, tokenizer, root / CACHE, report, workers))


def _prepared(
    recipe: Recipe, tokenizer: Tokenizer, cache: Path, report: Report | None, workers: int | None
) -> list[Shards]:
    """The shards of each source. A validation text of its own is kept with the first."""
    data = recipe.data
    if not data.store:
        _check_unstored(data)
    return [
        open_or_prepare(
            part.data,
            tokenizer,
            cache,
            recipe.seed,
            report,
            workers or (cores() if (sources.size(part.data) or 0) > LARGE else 1),
            hold_out=data.validation_source is None or number == 0,
            validation_only=None if data.store else VALIDATION_TOKENS,
        )
        for number, part in enumerate(sources.parts(data))
    ]


def _check_unstored(data: DataRecipe) -> None:
    if len(sources.parts(data)) > 1:
        raise UserError("a mixture of sources needs its tokens on disk; leave out data.store: false")
    if data.rows != "windows" or data.document_mask:
        raise UserError("data.store: false goes with data.rows: windows and without data.document_mask")


def _keys(this: Run) -> list[str] | None:
    try:
        return json.loads((this.data / KEYS).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _note(this: Run, keys: list[str]) -> None:
    with disk.writing("the keys of the tokens", this.data / KEYS):
        this.data.mkdir(parents=True, exist_ok=True)
        with disk.replacing(this.data / KEYS) as temporary:
            temporary.write_text(json.dumps(keys) + "\n", encoding="utf-8")


def _known(cache: Path, keys: list[str], tokenizer: Tokenizer) -> list[Shards] | None:
    """The shards of these keys, if all are there and whole."""
    try:
        shards = [open_shards(cache / key) for key in keys]
    except UserError:
        return None
    whole = all(one.validation.fingerprint == tokenizer.fingerprint for one in shards)
    return shards if whole else None
