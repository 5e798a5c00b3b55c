"""Whatever the optimiser: compiled or not, saved or not, in 16 bits or frozen in part, each parameter gets its due."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training import checkpoint
from tinytale_mlx.training.optimizers import make_optimizer

RECIPES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw bfloat16": {"optimizer_state": "bfloat16"},
    "adamw int8": {"optimizer_state": "int8"},
    "muon": {"optimizer": "muon"},
    "muon int8": {"optimizer": "muon", "optimizer_state": "int8"},
    "adafactor": {"optimizer": "adafactor"},
    "adafactor relative": {"optimizer": "adafactor", "relative_step": True},
    "lion": {"optimizer": "lion"},
    "adam_mini": {"optimizer": "adam_mini"},
}
every_optimizer = pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES.keys())


class Trained:
    """A model and its optimiser, moved along made-up gradients that are functions of the step."""

    def __init__(self, config: ModelConfig, changes: dict[str, Any], compiled: bool = True, frozen: int = 0):
        self.model = Transformer(config, seed=1)
        for layer in self.model.layers[:frozen]:
            layer.freeze()
        self.optimizer = make_optimizer(TrainRecipe(weight_decay=0.1, **changes))
        self.optimizer.init(self.model.trainable_parameters())
        self._compiled, self._run = compiled, None

    def go(self, first: int, last: int, rate: float = 1e-2) -> "Trained":
        state = [self.model.state, self.optimizer.state]
        if self._run is None:
            self._run = mx.compile(self._step, inputs=state, outputs=state) if self._compiled else self._step
        for step in range(first, last):
            dice = np.random.default_rng(step)
            shapes = [(name, array.shape) for name, array in tree_flatten(self.model.trainable_parameters())]
            flat = [(name, mx.array(dice.normal(size=shape).astype(np.float32))) for name, shape in shapes]
            self._run(tree_unflatten(flat), mx.array(rate / (step + 1)))
            mx.eval(state)
        return self

    def _step(self, gradients: dict, rate: mx.array) -> None:
        self.optimizer.learning_rate = rate
        self.optimizer.update(self.model, gradients)

    def weights(self) -> dict[str, np.ndarray]:
        return {name: np.array(array) for name, array in tree_flatten(self.model.parameters())}

    def everything(self) -> dict[str, list]:
        return {name: array.tolist() for name, array in tree_flatten([self.model.parameters(), self.optimizer.state])}


@every_optimizer
def test_compiled_is_eager_and_again_the_same(changes: dict[str, Any], tiny: Callable[..., ModelConfig]):
    eager, compiled, again = (Trained(tiny(), changes, way).go(0, 4).weights() for way in (False, True, True))
    for name, array in compiled.items():
        assert np.array_equal(again[name], array), name
        assert np.allclose(eager[name], array, atol=2e-5), name


@every_optimizer
def test_a_saved_state_goes_on_bit_for_bit(changes: dict[str, Any], tiny: Callable[..., ModelConfig], tmp_path: Path):
    whole, first, second = (Trained(tiny(), changes) for _ in range(3))
    first.go(0, 3)
    checkpoint.load(checkpoint.save(tmp_path, 3, first.model, first.optimizer, {}), second.model, second.optimizer)
    assert second.go(3, 5).everything() == whole.go(0, 5).everything()


@every_optimizer
def test_every_parameter_moves_unless_it_is_frozen(changes: dict[str, Any], tiny: Callable[..., ModelConfig]):
    trained = Trained(tiny(attention_bias=True), changes, frozen=1)
    before = trained.weights()
    for name, after in trained.go(0, 2).weights().items():
        assert (np.abs(after - before[name]).max() > 1e-6) == ("layers.0." not in name), name


@every_optimizer
def test_the_learning_rate_reaches_every_parameter(changes: dict[str, Any], tiny: Callable[..., ModelConfig]):
    trained = Trained(tiny(), changes)
    before = trained.weights()
    for name, after in trained.go(0, 2, rate=0.0).weights().items():
        assert np.array_equal(after, before[name]), name


@every_optimizer
def test_decay_shrinks_matrices_and_nothing_else(changes: dict[str, Any], tiny: Callable[..., ModelConfig]):
    """Decoupled: by the rate times the decay, whatever the gradients were."""
    model = Transformer(tiny(attention_bias=True), seed=1)
    ones = {name: mx.ones_like(array) for name, array in tree_flatten(model.trainable_parameters())}
    none = {name: mx.zeros_like(array) for name, array in ones.items()}
    optimizer = make_optimizer(TrainRecipe(weight_decay=0.5, **changes))
    optimizer.init(tree_unflatten(list(ones.items())))
    optimizer.learning_rate = 0.1
    moved = optimizer.apply_gradients(tree_unflatten(list(none.items())), tree_unflatten(list(ones.items())))
    for name, array in tree_flatten(moved):
        assert np.allclose(np.array(array), 0.95 if array.ndim == 2 else 1.0, rtol=1e-6), name


@every_optimizer
def test_arithmetic_is_in_32_bits(changes: dict[str, Any]):
    """In float16, these squares and Adam's eps are zero."""
    start = {"layers": [{"proj": {"weight": mx.ones((16, 16), mx.float16)}}], "norm": mx.ones((16,), mx.float16)}
    optimizer = make_optimizer(TrainRecipe(weight_decay=0.0, **changes))
    optimizer.init(start)
    optimizer.learning_rate = 0.1
    small = [("layers.0.proj.weight", 1e-6 * mx.eye(16)), ("norm", mx.full((16,), 1e-6))]
    moved = optimizer.apply_gradients(tree_unflatten([(n, a.astype(mx.float16)) for n, a in small]), start)
    for name, array in tree_flatten(moved):
        assert array.dtype == mx.float16
        diagonal = np.diag(np.array(array)) if array.ndim == 2 else np.array(array)
        assert (diagonal < 0.99).all(), name
        assert np.array(array).min() > 0.4, name
    for name, array in tree_flatten(optimizer.state):
        assert array.dtype not in (mx.float16,), name


def test_the_recipe_reaches_the_optimizer():
    common: dict[str, Any] = {"learning_rate": 0.5, "weight_decay": 0.3, "beta1": 0.8, "beta2": 0.7, "eps": 1e-3}
    of = lambda **changes: make_optimizer(TrainRecipe(**common, **changes))  # noqa: E731
    for changes in RECIPES.values():
        made = of(**changes)
        for optimizer in getattr(made, "optimizers", [made]):
            assert optimizer.learning_rate.item() == 0.5
            assert optimizer.weight_decay == 0.3
            assert tuple(getattr(optimizer, "betas", (0.8, 0.7))) == (0.8, 0.7)
            assert getattr(optimizer, "eps", 1e-3) == 1e-3
    assert of(optimizer="adafactor", relative_step=True).relative_step
    assert not of(optimizer="adafactor").relative_step
    assert [of(optimizer_state=form).form for form in ("bfloat16", "int8")] == ["bfloat16", "int8"]


@pytest.mark.parametrize(
    ("name", "share"),
    [("adamw", 1.0), ("muon", 0.75), ("lion", 0.51), ("adam_mini", 0.52), ("adafactor", 0.04), ("adamw bfloat16", 0.51),
     ("adamw int8", 0.27)],
)  # fmt: skip
def test_memory_for_the_state(name: str, share: float, tiny: Callable[..., ModelConfig]):
    """As a share of AdamW's in float32, at most."""
    config = tiny(hidden_size=128, intermediate_size=384, vocab_size=512)
    size = {
        n: sum(a.nbytes for _, a in tree_flatten(Trained(config, RECIPES[n]).optimizer.state)) for n in (name, "adamw")
    }
    assert size[name] <= share * size["adamw"]


@pytest.mark.parametrize("optimizer", ["adafactor", "lion", "adam_mini"])
@pytest.mark.parametrize("state", ["bfloat16", "int8"])
def test_few_bits_are_for_adamw(optimizer: Any, state: Any):
    with pytest.raises(ValueError, match=f"optimizer_state {state} goes with .* adamw or muon, not with {optimizer}"):
        TrainRecipe(optimizer=optimizer, optimizer_state=state)


def test_the_relative_step_is_for_adafactor():
    with pytest.raises(ValueError, match=r"train\.relative_step goes with train\.optimizer adafactor"):
        TrainRecipe(relative_step=True)


# ---------------------------------------------------------------------- who moves what
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": {"attention_bias": True, "mlp_bias": True, "norm": "layernorm", "positions": "learned"},
    "untied": {"tie_embeddings": False, "qk_norm": True, "kv_heads": 2},
    "t5": {"positions": "t5"},
    "post-norm": {"norm_placement": "post", "distinct_layers": 1},
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS.keys())
def test_every_parameter_has_exactly_one_optimizer(changes: dict[str, Any], tiny: Callable[..., ModelConfig]):
    parameters = Transformer(tiny(**changes)).trainable_parameters()
    optimizer = make_optimizer(TrainRecipe(optimizer="muon"))
    muon, adamw = optimizer._split_dictionary(parameters)  # type: ignore[attr-defined]
    by_muon = {name for name, _ in tree_flatten(muon)}
    by_adamw = {name for name, _ in tree_flatten(adamw)}
    assert not by_muon & by_adamw
    assert by_muon | by_adamw == {name for name, _ in tree_flatten(parameters)}
    for name, array in tree_flatten(parameters):
        if array.ndim == 1 or "layers." not in name:
            assert name in by_adamw
        elif name.endswith("proj.weight"):
            assert name in by_muon
