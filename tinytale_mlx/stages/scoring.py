"""How well a model predicts a text: the text that its run held out, or any other."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .. import run
from ..data import sources
from ..data.batches import document_batches
from ..data.encode import Encoder, encode_all
from ..data.shards import byte_lengths
from ..errors import UserError
from ..evaluation.loss import Score, evaluate
from ..generation.memory import context_of
from ..models.transformer import Transformer
from ..recipe import DataRecipe
from ..training.distributed import world
from .adapting import LONGEST, for_losses, run_of
from .corpus import Corpus, run_corpus
from .finetune_data import read_examples
from .loading import Loaded, is_model, load


class ValidationSet:
    """The held-out text of a run, whole or up to `validation_batches`; of a corpus with ranks, all scores are sums
    over the processes."""

    def __init__(self, corpus: Corpus):
        self._corpus, self._byte_lengths = corpus, byte_lengths(corpus.tokenizer)

    def score(self, model: Transformer) -> Score:
        batches = itertools.islice(self._corpus.validation_batches(), self._corpus.recipe.train.validation_batches)
        mine = evaluate(model, batches, self._byte_lengths)
        if self._corpus.ranks == 1:
            return mine
        nats, tokens, count = world().add(mine.nats, mine.tokens, mine.bytes)
        return Score(nats, int(tokens), int(count))

    def figures(self, model: Transformer) -> dict[str, float]:
        score = self.score(model)
        return {
            "val_loss": score.loss,
            "val_perplexity": score.perplexity,
            "val_bits_per_byte": score.bits_per_byte,
        }


def score_held_out(reference: str | None = None, root: Path = run.ROOT) -> Score:
    """Loss of a run's model on the text, or of a fine-tuning on the examples, that the run held out."""
    if reference is not None and is_model(Path(reference)):
        raise UserError(f"{reference} is a model, not a run, so no text was held out for it; pass --data FILE")
    this = run.find(reference, root)
    loaded = load(str(this.path))
    return scorer(this, loaded)(loaded)


def scorer(this: run.Run, loaded: Loaded) -> Callable[[Loaded], Score]:
    """The score of a model on what the run held out; the tokenizer is that of `loaded`."""
    if this.is_align():  # it learned from no text of its own; its base did
        base = run_of(this.align_recipe().base, this.path.parent)
        if base is None:
            raise UserError(f"no text was held out for the base of {this.name}, which is no run; pass --data FILE")
        return scorer(base, loaded)
    if this.is_finetune():
        recipe, lengths = this.finetune_recipe(), byte_lengths(loaded.tokenizer)
        examples = read_examples(recipe, loaded, recipe.data.context or 0, None)
        return lambda one: evaluate(for_losses(one.model), examples.validation_batches(), lengths)
    held_out = ValidationSet(run_corpus(this, this.recipe(), loaded.tokenizer))
    return lambda one: held_out.score(for_losses(one.model))


def score_text(loaded: Loaded, data: DataRecipe, batch_size: int = 8) -> Score:
    """Loss of a model on documents of any source, all of them, each read on its own from its beginning."""
    items = ((one, None) for one in sources.documents(data, seed=0))
    encoded = list(encode_all(Encoder(loaded.tokenizer), items))
    tokens = np.concatenate([part.tokens for part in encoded])
    offsets = np.cumsum(np.concatenate([[0], *(part.lengths for part in encoded)]))
    context = min(context_of(loaded.model) or LONGEST, LONGEST)
    batches = document_batches(tokens, offsets, context, batch_size)
    return evaluate(for_losses(loaded.model), batches, byte_lengths(loaded.tokenizer))
