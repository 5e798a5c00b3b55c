"""The planner's count of parameters and of the optimiser's state, against the real ones: name by name, byte by byte."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from tinytale_mlx import recipe_files, stages
from tinytale_mlx.errors import UserError
from tinytale_mlx.models.parameters import count_parameters, named_arrays
from tinytale_mlx.models.transformer import Transformer
from tinytale_mlx.planning import state
from tinytale_mlx.planning.parameters import count, parameter_shapes, planned_config, vocabulary
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training.averaging import WeightAverage
from tinytale_mlx.training.optimizers import make_optimizer

SWITCHES: list[dict[str, Any]] = [
    {},
    {"kv_heads": 2},
    {"head_dim": 12},
    {"distinct_layers": 1, "layers": 4},
    *({"positions": name} for name in ("learned", "sinusoidal", "t5", "alibi", "none")),
    {"qk_norm": True},
    {"qk_norm": True, "norm_weight": False},
    {"norm": "layernorm"},
    {"norm": "layernorm", "norm_bias": False},
    {"norm": "layernorm", "norm_weight": False},
    {"norm_placement": "post"},
    {"norm_placement": "post", "norm": "layernorm"},
    {"embedding_norm": True},
    *({"activation": name} for name in ("gelu", "gelu_tanh", "silu", "relu", "relu2")),
    {"attention_bias": True},
    {"mlp_bias": True},
    {"mlp_bias": True, "activation": "relu"},
    {"tie_embeddings": False},
    {"sliding_window": 8},
    {"attention": "manual"},
    {"logit_softcap": 15.0},
]


def real_shapes(model: Transformer) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in named_arrays(model.parameters())}


@pytest.mark.parametrize("name", recipe_files.names())
def test_every_recipe(name: str):
    recipe = recipe_files.load(name)
    config = planned_config(recipe)
    model = stages.blueprint(recipe)
    assert dict(parameter_shapes(config)) == real_shapes(model)
    assert count(config) == count_parameters(model)


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_every_switch(changes: dict[str, Any], tiny: Callable[..., ModelConfig]):
    config = tiny(**changes)
    assert dict(parameter_shapes(config)) == real_shapes(Transformer(config))


def test_every_key_of_the_model_is_a_switch_or_a_size():
    """A new key that changes the model has to come into the list above."""
    named = {key for changes in SWITCHES for key in changes}
    sizes = {"hidden_size", "heads", "context", "intermediate_size", "vocab_size", "layers"}
    without_parameters = {
        "rope_theta", "rope_scaling", "norm_eps", "embedding_dropout", "attention_dropout", "residual_dropout",
        "init", "init_std", "residual_init",
    }  # fmt: skip
    assert set(ModelConfig.model_fields) - named - sizes - without_parameters == set()


def test_without_a_vocabulary(tiny: Callable[..., ModelConfig]):
    with pytest.raises(UserError, match="vocab_size"):
        list(parameter_shapes(tiny(vocab_size=None)))


@pytest.mark.parametrize(
    ("sets", "size", "says"),
    [
        ([], 2048, "tokenizer.vocab_size"),
        (["tokenizer.kind=char", "tokenizer.vocab_size=90"], 90, "as many as the text holds"),
        (["tokenizer.kind=word"], 2048, "fewer"),
        (["tokenizer.kind=gpt2", "tokenizer.path=gpt2"], 50257, "GPT-2's own"),
        (["tokenizer.kind=directory", "tokenizer.path=tok"], 2048, "brings its own"),
        (["model.vocab_size=5000"], 5000, "model.vocab_size"),
    ],
)
def test_where_the_vocabulary_comes_from(sets: list[str], size: int, says: str):
    found, origin = vocabulary(recipe_files.load("tale", sets))
    assert found == size
    assert says in origin


OPTIMIZERS = [
    {"optimizer": name, "optimizer_state": form}
    for name in ("adamw", "muon")
    for form in ("float32", "bfloat16", "int8")
] + [{"optimizer": name} for name in ("adafactor", "lion", "adam_mini")]


@pytest.mark.parametrize("changes", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("shape", [{}, {"norm": "layernorm", "mlp_bias": True, "positions": "t5"}], ids=str)
def test_the_optimizer_s_state(changes: dict[str, Any], shape: dict[str, Any], tiny: Callable[..., ModelConfig]):
    config, train = tiny(tie_embeddings=False, **shape), TrainRecipe(**changes)
    model, optimizer = Transformer(config), make_optimizer(train)
    optimizer.init(model.trainable_parameters())
    arrays = [array for _, array in named_arrays(optimizer.state) if array.ndim]  # without counters and rates
    assert state.optimizer_bytes(config, train) == sum(array.nbytes for array in arrays)


def test_weights_and_their_average(tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny())
    average = WeightAverage(model.trainable_parameters())
    there = sum(array.nbytes for _, array in named_arrays(average.weights))
    assert state.weight_bytes(tiny()) == there
    assert state.average_bytes(tiny(), TrainRecipe(ema=0.9)) == there
    assert state.average_bytes(tiny(), TrainRecipe(average_last=0.5)) == there
    assert state.average_bytes(tiny(), TrainRecipe()) == 0


def test_no_array_is_made():
    """A model of 300 billion parameters is as quick to plan."""
    before = mx.get_active_memory()
    recipe = recipe_files.load("lillm-300m", ["model.layers=2400", "model.hidden_size=4096"])
    assert count(planned_config(recipe)) > 100e9
    assert mx.get_active_memory() == before
