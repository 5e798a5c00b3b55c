"""Adapters written into the weights, and added up."""

from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from tuned_models import IDS, equal, make_model, near, trained_adapter

from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe.tuning import QuantizeRecipe
from tinytale_mlx.tuning.adapters import attach
from tinytale_mlx.tuning.lora import LoRA
from tinytale_mlx.tuning.merging import combine, fuse
from tinytale_mlx.tuning.quantize import quantize, uniform

METHODS: list[dict[str, Any]] = [{}, {"method": "dora"}, {"targets": ["*"]}, {"method": "dora", "targets": ["*"]}]


@pytest.mark.parametrize("settings", METHODS)
def test_fused_computes_the_same(any_model: Any, settings: dict) -> None:
    names = [name for name, _ in tree_flatten(any_model.parameters())]
    trainable = [name for name, _ in tree_flatten(any_model.trainable_parameters())]
    tuned = attach(any_model, trained_adapter(any_model, **settings))
    expected = tuned.model(IDS)
    fused, said = fuse(tuned)
    assert near(fused(IDS), expected)
    assert [name for name, _ in tree_flatten(fused.parameters())] == names
    assert [name for name, _ in tree_flatten(fused.trainable_parameters())] == trainable
    assert not any(isinstance(module, LoRA) for module in fused.modules())
    assert said.layers > 0
    assert said.changed > 0.01
    assert said.rounded < 1e-6


def test_16_bits_round() -> None:
    model = make_model()
    model.set_dtype(mx.bfloat16)
    _, said = fuse(attach(model, trained_adapter(model)))
    assert model.model.layers[0].mlp.up_proj.weight.dtype == mx.bfloat16
    assert 1e-4 < said.rounded < 1e-2


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "nvfp4", "mxfp8"])
@pytest.mark.parametrize("settings", METHODS)
def test_back_into_a_quantized_base_with_the_error_stated(mode: Any, settings: dict) -> None:
    recipe = QuantizeRecipe(mode=mode, group_size=32 if mode == "affine" else None)

    def tuned_model() -> Any:
        model = make_model()
        quantize(model, uniform(model, recipe))
        return attach(model, trained_adapter(model, **settings))

    tuned = tuned_model()
    expected = tuned.model(IDS)
    exact, said = fuse(tuned, dequantize=True)
    assert near(exact(IDS), expected, 2e-5)
    assert said.rounded < 1e-6
    packed, said = fuse(tuned_model())
    layer = packed.model.layers[0].mlp.up_proj
    assert (layer.mode, layer.bits, layer.weight.dtype) == (mode, recipe.num_bits, mx.uint32)
    assert (0.005 if mode == "mxfp8" else 0.05) < said.rounded < (0.05 if mode == "mxfp8" else 0.2)
    assert f"rounding them again by {said.rounded:.2%}" in str(said)
    assert not near(packed(IDS), expected, 1e-3)


def test_a_prompt_cannot_be_fused() -> None:
    model = make_model()
    with pytest.raises(UserError, match="not part of any matrix"):
        fuse(attach(model, trained_adapter(model, method="prefix")))


# ---------------------------------------------------------------------- several
def test_weighted_sum_of_updates() -> None:
    """Of different ranks, scales and layers: the weights are W + 0.7 D1 - 0.5 D2."""
    model = make_model()
    one = trained_adapter(model, 1, rank=2, targets=["q_proj", "up_proj"], alpha=3.0)
    two = trained_adapter(model, 2, rank=5, targets=["up_proj", "embed_tokens"], alpha=1.0)
    plain = dict(tree_flatten(make_model().parameters()))
    deltas = []
    for adapter in (one, two):
        moved = make_model()
        fuse(attach(moved, adapter))
        deltas.append({n: a - plain[n] for n, a in tree_flatten(moved.parameters())})
    expected = make_model()
    expected.load_weights([(n, a + 0.7 * deltas[0][n] - 0.5 * deltas[1][n]) for n, a in plain.items()])
    both = combine([(one, 0.7), (two, -0.5)])
    assert near(attach(model, both).model(IDS), expected(IDS))
    assert both.rank == 7
    assert both.base == one.base
    assert {a.shape[1] for n, a in both.weights.items() if n.endswith("lora_a")} == {7}  # mlx-lm has one rank


def test_the_whole_of_one_is_that_one() -> None:
    model = make_model()
    one, two = trained_adapter(model, 1), trained_adapter(model, 2)
    expected = attach(model, one)
    logits = expected.model(IDS)
    expected.use(combine([(one, 1.0), (two, 0.0)]))
    assert near(expected.model(IDS), logits)
    expected.use(combine([(two, 1.0), (one, 0.0)]))
    assert not equal(expected.model(IDS), logits)


def test_what_does_not_add_up() -> None:
    model = make_model()
    lora = trained_adapter(model)
    for other in ({"method": "dora"}, {"method": "prompt"}, {"targets": ["q_proj"], "train_final_norm": True}):
        with pytest.raises(UserError, match="only LoRA adapters"):
            combine([(lora, 1.0), (trained_adapter(model, **other), 1.0)])
    with pytest.raises(UserError, match="trained on different models"):
        combine([(lora, 1.0), (trained_adapter(make_model(seed=3)), 1.0)])
    with pytest.raises(UserError, match="nothing to combine"):
        combine([])
