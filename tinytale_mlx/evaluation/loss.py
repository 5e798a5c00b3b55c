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
from ..training.losses import next_token_loss


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
        return math.exp(min(self.loss, 700))

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf


def evaluate(model: Transformer, batches: Iterable[Batch], byte_lengths: np.ndarray) -> Score:
    """Score every token of weight 1. `byte_lengths` [vocabulary] holds how many bytes of text each token writes."""
    score = Score()
    for tokens, weights, segments in batches:
        ids = mx.array(tokens)
        logits = model(ids[:, :-1], segments=None if segments is None else mx.array(segments[:, :-1]))
        score.nats += float(next_token_loss(logits, ids, mx.array(weights)))
        score.tokens += int(weights.sum())
        score.bytes += int((byte_lengths[tokens[:, 1:]] * weights).sum())
    return score
