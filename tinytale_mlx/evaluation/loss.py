"""Loss, perplexity and bits per byte over a whole text.

Loss and perplexity are per token, so they compare only models with the same tokenizer. Bits per byte divide the same
nats by the UTF-8 bytes that the tokens stand for, and compare across tokenizers; special tokens cost nats and count no
bytes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..data.batches import Batch
from ..models.transformer import Transformer
from ..training.losses import chunked_nats, perplexity

LOGITS = 2**24
"""At a time: 64 MB. Those of a whole batch would take more memory than the rest of the model."""


@dataclass
class Score:
    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf


def evaluate(model: Transformer, batches: Iterable[Batch], byte_lengths: np.ndarray) -> Score:
    """Score every token of weight 1. `byte_lengths` [vocabulary] holds how many bytes of text each token writes."""
    score = Score()
    chunk = max(LOGITS // byte_lengths.size, 1)
    for tokens, weights, segments in batches:
        ids = mx.array(tokens)
        hidden = model.hidden(ids[:, :-1], segments=None if segments is None else mx.array(segments[:, :-1]))
        score.nats += float(chunked_nats(model, hidden, ids, mx.array(weights), chunk))
        score.tokens += int(weights.sum())
        score.bytes += int((byte_lengths[tokens[:, 1:]] * weights).sum())
    return score
