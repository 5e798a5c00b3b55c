"""More tokens for a model that is trained already: new rows in its embedding and its head.

A row drawn at random gives the new token a logit that has nothing to do with the others, and may well be the
highest of all: the model then writes a token that it never learned. The mean of the old rows gives it about the mean
of the old logits, and exp(mean) is at most the mean of exp, so n new rows beside V old ones take at most the share
n / (V + n) of the probability, at every position (Hewitt 2021, "Initializing new word embeddings for pretrained
language models"). A little noise with the covariance of the old rows tells the new ones apart.
"""

import mlx.core as mx

from .transformer import Transformer

NOISE = 0.01
"""Standard deviation of the noise, in those of the old rows: enough to survive the rounding of 16 bits."""


def resize_vocabulary(model: Transformer, size: int, key: mx.array, used: int | None = None) -> Transformer:
    """The same model with `size` rows in its embedding and, if that is not tied, in its head; each keeps its dtype.

    The old rows, and with them the logits of the old tokens, stay as they are. Where a model has more rows than its
    tokenizer has tokens, `used` is the number of tokens: the rows after them have only learned to be unlikely, so
    they are drawn anew and don't count for the mean.

    Raises:
        ValueError: `size` is below the number of rows that the model has.
    """
    old = model.model.embed_tokens.weight
    if size < len(old):
        raise ValueError(f"a vocabulary of {len(old)} tokens can't be made smaller, to {size}")
    resized = Transformer(model.config.model_copy(update={"vocab_size": size}))
    resized.update(model.parameters())
    layers = [resized.model.embed_tokens, *([] if model.config.tie_embeddings else [resized.lm_head])]
    for layer in layers:
        layer.weight = _extended(layer.weight[:used], size, key)
    mx.eval(resized.parameters())
    return resized


def _extended(rows: mx.array, size: int, key: mx.array) -> mx.array:
    """Matrix [V, width] to [size, width]."""
    exact = rows.astype(mx.float32)
    mean = exact.mean(axis=0)
    # Random sums of the rows' deviations from the mean, over sqrt(V), have the covariance of the rows.
    dice = mx.random.normal((size - len(rows), len(rows)), key=key)
    noise = dice @ (exact - mean) / len(rows) ** 0.5
    return mx.concatenate([rows, (mean + NOISE * noise).astype(rows.dtype)])
