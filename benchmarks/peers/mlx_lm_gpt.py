"""mlx-lm's Llama in the shape of a model of ours, and the training step of its trainer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx_lm.models import llama
from mlx_lm.tuner.trainer import default_loss

from tinytale_mlx.recipe import ModelConfig


def llama_of(config: ModelConfig) -> Any:
    """With random weights. Needs config.vocab_size, and the parts that Llama has."""
    return llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            intermediate_size=config.intermediate_size or 0,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads or config.heads,
            rms_norm_eps=config.norm_eps,
            vocab_size=config.vocab_size or 0,
            max_position_embeddings=config.context,
            rope_theta=config.rope_theta,
            tie_word_embeddings=config.tie_embeddings,
        )
    )


def training_step(model: Any, optimizer: optim.Optimizer) -> Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]:
    """That of mlx_lm.tuner.trainer.train: tokens [B, T+1] and (first, last) target [B, 2] to mean loss and count."""
    value_and_grad = nn.value_and_grad(model, default_loss)
    state = [model.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(tokens: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
        (loss, count), gradients = value_and_grad(model, tokens, lengths)
        optimizer.update(model, gradients)
        return loss, count

    def run(tokens: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
        found = step(tokens, lengths)
        mx.eval(state, found)
        mx.clear_cache()  # as its trainer does after every step
        return found

    return run
