"""The decoder-only transformer: embeddings, a stack of blocks, a head (Radford et al. 2019; Touvron et al. 2023).

Names follow Llama's, so that a checkpoint with that architecture loads in mlx-lm and transformers as it is. Dropout is
on where a key is given; there is no training mode to forget.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from ..recipe import ModelConfig
from .attention import Attention
from .cache import KVCache
from .checkpointing import recompute
from .dropout import dropout, split_key
from .feedforward import make_feedforward
from .initialize import initialize
from .norms import RMSNorm, make_norm
from .positions import sinusoids
from .slots import SlotCache
from .wide import Embedding, add, lookup

Cache = list[KVCache] | list[SlotCache]
Recomputed = Literal["none", "attention", "block"]
"""What of a block is computed again on the way back, instead of being kept."""


class Block(nn.Module):
    """Attention, then feed-forward, each around a residual connection.

    For the way back it keeps, of each token, what comes in and what the products with weights give: queries, keys,
    values, what the heads say, and what goes into the activation. The rest is computed again.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = make_feedforward(config)
        self.input_layernorm = make_norm(config, config.hidden_size)
        self.post_attention_layernorm = make_norm(config, config.hidden_size)
        self._pre = config.norm_placement == "pre"
        self._rate = config.residual_dropout

    def __call__(
        self,
        x: mx.array,
        cache: KVCache | SlotCache | None = None,
        key: mx.array | None = None,
        segments: mx.array | None = None,
        recomputed: Recomputed = "none",
    ) -> mx.array:
        attention_key, first, second = split_key(key, 3)
        attention, mlp = self.self_attn, self.mlp
        norms = [[norm] if self._pre else [] for norm in (self.input_layernorm, self.post_attention_layernorm)]
        # Each piece keeps what goes into it. Not of a block that is computed again, nor where there is no way back.
        piece = recompute if cache is None and recomputed != "block" else _at_once

        def project(x: mx.array) -> tuple[mx.array, ...]:
            return attention.project(self.input_layernorm(x) if self._pre else x)

        def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
            return attention.attend(q, k, v, cache, attention_key, segments)

        def widen(x: mx.array) -> tuple[mx.array, ...]:
            return mlp.widen(self.post_attention_layernorm(x) if self._pre else x)

        def mix(x: mx.array) -> mx.array:
            if recomputed == "attention":
                used = [*norms[0], *attention.projections, *attention.between]
                y = recompute(used, lambda x: attend(*project(x)), x)
            else:
                y = piece(attention.between, attend, *piece([*norms[0], *attention.projections], project, x))
            x = x + dropout(attention.o_proj(y), self._rate, first)
            return x if self._pre else self.input_layernorm(x)

        def feed(x: mx.array) -> mx.array:
            y = piece([mlp.down_proj], mlp.narrow, *piece([*norms[1], *mlp.widening], widen, x))
            x = x + dropout(y, self._rate, second)
            return x if self._pre else self.post_attention_layernorm(x)

        if recomputed != "block":
            return feed(mix(x))
        x = recompute([self.self_attn, self.input_layernorm], mix, x)
        return recompute([self.mlp, self.post_attention_layernorm], feed, x)


def _at_once(modules: list[nn.Module], forward: Callable[..., Any], *inputs: mx.array) -> Any:
    """What `recompute` does, with everything kept for the way back."""
    return forward(*inputs)


class Trunk(nn.Module):
    """Everything below the head: token ids [B, T] to hidden states [B, T, hidden]."""

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.embed_tokens = Embedding(vocab_size, config.hidden_size)
        if config.positions == "learned":
            self.embed_positions = Embedding(config.context, config.hidden_size)
        self.layers = [Block(config) for _ in range(config.num_distinct_layers)]
        if config.norm_placement == "pre":  # a post-norm block ends in a norm of its own
            self.norm = make_norm(config, config.hidden_size)
        self._embedding_norm = (
            RMSNorm(config.hidden_size, config.norm_eps, weight=False) if config.embedding_norm else None
        )
        self._config = config
        self._recomputed: Recomputed = "none"
        self._recomputed_every = 1

    def __call__(
        self,
        ids: mx.array,
        cache: Cache | None = None,
        key: mx.array | None = None,
        segments: mx.array | None = None,
    ) -> mx.array:
        config = self._config
        keys = split_key(key, 1 + config.layers)
        x = self._embed(ids, cache[0].offset if cache else 0, segments)
        x = dropout(x, config.embedding_dropout, keys[0])
        for i in range(config.layers):
            block = self.layers[i % config.num_distinct_layers]
            here = self._recomputed if cache is None and i % self._recomputed_every == 0 else "none"
            x = block(x, cache[i] if cache else None, keys[1 + i], segments, here)
        return self.norm(x) if config.norm_placement == "pre" else x

    def _embed(self, ids: mx.array, offset: int | mx.array, segments: mx.array | None = None) -> mx.array:
        config = self._config
        x = self.embed_tokens(ids)
        if config.positions in ("learned", "sinusoidal"):
            positions = places(offset, ids.shape[1])
            if config.positions == "learned":
                table = self.embed_positions(positions)
            else:  # scaled as in Vaswani et al. 3.4, so that the table does not drown the embeddings
                x = x * math.sqrt(config.hidden_size)
                table = sinusoids(positions, config.hidden_size).astype(x.dtype)
            x = add(x, table) if segments is None else x + lookup(table, positions_within(segments))
        return x if self._embedding_norm is None else self._embedding_norm(x)


def places(offset: int | mx.array, length: int) -> mx.array:
    """Positions [T] from an offset on, or [B, T] from an offset for each row."""
    return mx.arange(offset, offset + length) if isinstance(offset, int) else offset[:, None] + mx.arange(length)


def positions_within(segments: mx.array) -> mx.array:
    """How far each token is from the beginning of its document; segments and result [B, T]."""
    positions = mx.arange(segments.shape[1])[None]
    begins = mx.pad(segments[:, 1:] != segments[:, :-1], [(0, 0), (1, 0)])
    return positions - mx.cummax(mx.where(begins, positions, 0), axis=1)


class Transformer(nn.Module):
    """A language model: `model(ids)` gives the logits of the next token at every position, [B, T, vocabulary].

    With segments [B, T], which document of its row each token belongs to, every document is read as if it stood alone.

    `config.vocab_size` must be set. The weights are drawn from `seed` alone. Learned positions end at the context;
    reading further raises ValueError.
    """

    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("model.vocab_size is not set; it comes from the tokenizer")
        self.model = Trunk(config, config.vocab_size)
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.config = config
        initialize(self, config, mx.random.key(seed))

    def __call__(
        self,
        ids: mx.array,
        cache: Cache | None = None,
        key: mx.array | None = None,
        segments: mx.array | None = None,
    ) -> mx.array:
        return self.logits(self.hidden(ids, cache, key, segments))

    def hidden(
        self,
        ids: mx.array,
        cache: Cache | None = None,
        key: mx.array | None = None,
        segments: mx.array | None = None,
    ) -> mx.array:
        """Hidden states [B, T, hidden], for a loss that makes the logits itself; arguments as in a call."""
        if cache is not None and segments is not None:
            raise ValueError("segments are for whole rows, and a cache is for rows in pieces")
        offset = cache[0].offset if cache else 0
        if isinstance(offset, int):  # of an array nobody knows yet how far it goes
            self._check_length(ids.shape[1] + offset)
        return self.model(ids, cache, key, segments)

    @property
    def head(self) -> nn.Module:
        """Whose parameters make logits of hidden states."""
        return self.model.embed_tokens if self.config.tie_embeddings else self.lm_head

    def logits(self, hidden: mx.array) -> mx.array:
        """Hidden states [..., hidden] to logits [..., vocabulary]."""
        x = self.model.embed_tokens.as_linear(hidden) if self.config.tie_embeddings else self.lm_head(hidden)
        cap = self.config.logit_softcap
        return x if cap is None else cap * mx.tanh(x / cap)

    @property
    def layers(self) -> list[Block]:
        """One entry per level of depth; a shared block appears as often as it is used."""
        distinct = self.model.layers
        return [distinct[i % len(distinct)] for i in range(self.config.layers)]

    def recompute(self, what: Recomputed, every: int = 1) -> None:
        """From now on, do without the activations of all blocks, or every second, third, ... of them.

        Changes what is kept in memory for the way back, and nothing of what is computed.
        """
        self.model._recomputed, self.model._recomputed_every = what, every

    def make_cache(self) -> list[KVCache]:
        return [KVCache() for _ in range(self.config.layers)]

    def _check_length(self, length: int) -> None:
        if self.config.positions == "learned" and length > self.config.context:
            raise ValueError(
                f"{length} tokens are more than the {self.config.context} positions that this model has learned"
            )
