"""How well a model predicts a text: the text that its run held out, or any other."""

import itertools
from contextlib import suppress
from pathlib import Path

import numpy as np

from .. import run
from ..data import sources
from ..data.batches import document_batches, validation_batches
from ..data.prepare import Report, encode_documents, open_or_prepare
from ..data.shards import Shards, byte_lengths, open_shards
from ..errors import UserError
from ..evaluation.loss import Score, evaluate
from ..models.transformer import Transformer
from ..recipe import DataRecipe, Recipe
from ..run import Run
from ..tokenizers import Tokenizer
from ..training import checkpoint
from .loading import Loaded, is_model, load


def run_shards(this: Run, recipe: Recipe, tokenizer: Tokenizer, report: Report | None = None) -> Shards:
    """The run's tokens. Once it has trained on them they are what it was trained on, whatever became of the source."""
    if checkpoint.all_checkpoints(this.checkpoints):
        with suppress(UserError):
            shards = open_shards(this.data)
            if all(shard.fingerprint == tokenizer.fingerprint for shard in shards):
                return shards
    return open_or_prepare(recipe.data, tokenizer, this.data, recipe.seed, report)


class ValidationSet:
    """The held-out text of a run, whole or up to `validation_batches`."""

    def __init__(self, recipe: Recipe, shards: Shards, tokenizer: Tokenizer):
        self._recipe, self._text = recipe, shards.validation
        self._byte_lengths = byte_lengths(tokenizer)

    def score(self, model: Transformer) -> Score:
        train, context = self._recipe.train, self._recipe.model.context
        if self._recipe.data.rows == "documents":
            batches = document_batches(self._text.tokens, self._text.offsets, context, train.batch_size)
        else:
            batches = validation_batches(self._text.tokens, context, train.batch_size)
        return evaluate(model, itertools.islice(batches, train.validation_batches), self._byte_lengths)

    def figures(self, model: Transformer) -> dict[str, float]:
        score = self.score(model)
        return {
            "val_loss": score.loss,
            "val_perplexity": score.perplexity,
            "val_bits_per_byte": score.bits_per_byte,
        }


def score_held_out(reference: str | None = None, root: Path = run.ROOT) -> Score:
    """Loss of a run's model on the text that the run held out."""
    if reference is not None and is_model(Path(reference)):
        raise UserError(f"{reference} is a model, not a run, so no text was held out for it; pass --data FILE")
    this = run.find(reference, root)
    recipe, loaded = this.recipe(), load(str(this.path))
    shards = run_shards(this, recipe, loaded.tokenizer)
    return ValidationSet(recipe, shards, loaded.tokenizer).score(loaded.model)


def score_text(loaded: Loaded, data: DataRecipe, batch_size: int = 8) -> Score:
    """Loss of a model on documents of any source, all of them, each read on its own from its beginning."""
    encoded = [encode_documents([one], loaded.tokenizer)[0] for one in sources.documents(data, seed=0)]
    offsets = np.cumsum([0, *map(len, encoded)])
    tokens = np.fromiter(itertools.chain.from_iterable(encoded), np.int32)
    batches = document_batches(tokens, offsets, loaded.model.config.context, batch_size)
    return evaluate(loaded.model, batches, byte_lengths(loaded.tokenizer))
