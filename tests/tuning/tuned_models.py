"""Small models, ours and mlx-lm's, with weights large enough that a mistake shows in the logits."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig
from tinytale_mlx.recipe.tuning import TuneRecipe
from tinytale_mlx.tuning.adapter_value import Adapter
from tinytale_mlx.tuning.adapters import new_adapter

IDS = mx.array([[1, 5, 9, 33, 2, 7, 7, 21], [30, 12, 39, 0, 16, 3, 3, 8]])
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "layers": 3, "heads": 4, "kv_heads": 2, "context": 64, "intermediate_size": 64,
    "vocab_size": 48,
}  # fmt: skip


def randomize(model: nn.Module, seed: int = 7) -> nn.Module:
    """Every parameter random: biases of 0 and norm weights of 1 would hide mistakes."""
    arrays = dict(tree_flatten(model.parameters()))
    dice = np.random.default_rng(seed)
    weights = []
    for name, array in arrays.items():
        noise = mx.array(dice.normal(size=array.shape).astype(np.float32))
        weights.append((name, 1 + 0.3 * noise if name.endswith("norm.weight") else 0.2 * noise))
    model.update(tree_unflatten(weights))
    mx.eval(model.parameters())
    return model


def make_model(seed: int = 7, **changes: Any) -> Transformer:
    model = Transformer(ModelConfig(**SHAPE | changes))
    randomize(model, seed)
    return model


def make_llama(tied: bool = True) -> nn.Module:
    """mlx-lm's own Llama of the same shape."""
    from mlx_lm.models.llama import Model, ModelArgs

    args = ModelArgs(
        model_type="llama", hidden_size=32, num_hidden_layers=3, intermediate_size=64, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-5, vocab_size=48, tie_word_embeddings=tied,
    )  # fmt: skip
    return randomize(Model(args))


MODELS: dict[str, Callable[[], Any]] = {
    "ours": make_model,
    "ours_with_biases": lambda: make_model(attention_bias=True, mlp_bias=True, tie_embeddings=False),
    "ours_gpt2": lambda: make_model(
        positions="learned", norm="layernorm", activation="gelu_tanh", kv_heads=4, attention_bias=True, mlp_bias=True
    ),
    "ours_shared": lambda: make_model(distinct_layers=1),
    "mlx_lm": make_llama,
    "mlx_lm_untied": lambda: make_llama(tied=False),
}


def adapter_for(model: Any, seed: int = 1, **settings: Any) -> Adapter:
    """Untrained."""
    return new_adapter(model, TuneRecipe(**settings), mx.random.key(seed))


def trained_adapter(model: Any, seed: int = 1, **settings: Any) -> Adapter:
    """With numbers in it as if it had been trained."""
    fresh = adapter_for(model, seed, **settings)
    dice = np.random.default_rng(seed)
    weights = {
        name: array + 0.1 * mx.array(dice.normal(size=array.shape).astype(np.float32))
        for name, array in fresh.weights.items()
    }
    mx.eval(weights)
    return Adapter(fresh.method, weights, fresh.scale, fresh.dropout, fresh.base)


def equal(a: mx.array, b: mx.array) -> bool:
    return a.shape == b.shape and bool(mx.array_equal(a, b).item())


def near(a: mx.array, b: mx.array, tolerance: float = 1e-5) -> bool:
    """Up to this share of the largest element."""
    return a.shape == b.shape and bool((mx.abs(a - b).max() <= tolerance * mx.abs(b).max()).item())


def next_token_nats(model: Any, ids: mx.array = IDS) -> mx.array:
    return nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:], reduction="sum")


def gradients(model: Any, loss: Callable[[Any], mx.array] = next_token_nats) -> dict[str, mx.array]:
    found: Any = tree_flatten(nn.value_and_grad(model, lambda: loss(model))()[1])
    mx.eval(found)
    return dict(found)
