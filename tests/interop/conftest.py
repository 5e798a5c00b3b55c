"""A small model for each layout, with weights large enough that a mistake shows in the logits."""

from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig, RopeScaling
from tinytale_mlx.tokenizers import CharTokenizer, Tokenizer

SMALL: dict[str, Any] = {
    "hidden_size": 32, "layers": 2, "heads": 4, "context": 64, "intermediate_size": 48, "vocab_size": 40
}  # fmt: skip
GPT2 = {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "intermediate_size": 128}
NANOCHAT = {"activation": "relu2", "qk_norm": True, "embedding_norm": True, "norm_weight": False,
            "tie_embeddings": False, "logit_softcap": 15.0}  # fmt: skip
BIASES = {"attention_bias": True, "mlp_bias": True}
LLAMA3 = RopeScaling(type="llama3", factor=4.0, original_context=32)
YARN = RopeScaling(type="yarn", factor=2.0, original_context=32)
LINEAR = RopeScaling(type="linear", factor=2.0, original_context=32)

# Name of the layout, then what is special.
SAMPLES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-gqa-untied": {"kv_heads": 2, "tie_embeddings": False, "rope_theta": 50000.0},
    "llama-biases": BIASES,
    "llama-head-dim": {"head_dim": 12, "norm_eps": 1e-3},
    "llama-no-norm-weight": {"norm_weight": False},
    "llama-linear": {"rope_scaling": LINEAR},
    "llama-llama3": {"rope_scaling": LLAMA3},
    "llama-yarn": {"rope_scaling": YARN},
    "qwen3": {"qk_norm": True, "kv_heads": 2, "rope_theta": 50000.0},
    "qwen3-untied-yarn": {"qk_norm": True, "tie_embeddings": False, "rope_scaling": YARN},
    "qwen3-no-norm-weight": {"qk_norm": True, "norm_weight": False},
    "gpt2": GPT2 | BIASES,
    "gpt2-no-biases": GPT2 | {"norm_bias": False},
    "gpt2-no-norm-weight": GPT2 | BIASES | {"norm_weight": False},
    "nanochat": NANOCHAT,
    "nanochat-gqa": NANOCHAT | {"kv_heads": 2, "rope_theta": 50000.0},
    "own-shared": {"distinct_layers": 1},
    "own-alibi": {"positions": "alibi", "sliding_window": 8, "norm_placement": "post"},
}


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> tuple[str, Transformer]:
    """The layout's name and a model that it should be written in."""
    return request.param.split("-")[0], make_model(ModelConfig(**SMALL | SAMPLES[request.param]))


@pytest.fixture
def make():
    """Changes to the smallest Llama; returns the model."""
    return lambda **changes: make_model(ModelConfig(**SMALL | changes))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """40 tokens, the standard special ones among them."""
    return CharTokenizer.train("abcdefghijklmnopqrstuvwxyz .,!\n?")


def make_model(config: ModelConfig) -> Transformer:
    """Every parameter random: biases of 0 and norm weights of 1 would hide mistakes."""
    model = Transformer(config)
    arrays = dict(tree_flatten(model.parameters()))
    keys = mx.random.split(mx.random.key(7), len(arrays))
    weights = []
    for (name, array), key in zip(arrays.items(), keys, strict=True):
        noise = mx.random.normal(array.shape, key=key)
        weights.append((name, 1 + 0.3 * noise if name.endswith("norm.weight") else 0.15 * noise))
    model.load_weights(weights)
    mx.eval(model.parameters())
    return model
