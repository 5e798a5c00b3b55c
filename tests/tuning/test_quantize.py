"""Weights in few bits: which layers, how many bits, and which of them hurt."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from tuned_models import IDS, equal, make_llama, make_model, near

from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe.tuning import FORMATS, QuantizeRecipe
from tinytale_mlx.tuning.quantize import (
    bits_per_weight,
    dequantize,
    format_bits,
    mixed,
    packed,
    quantizable,
    quantize,
    sensitivities,
    uniform,
)  # fmt: skip

ALL = [
    QuantizeRecipe(mode=mode, bits=bits, group_size=group)  # pyright: ignore[reportArgumentType]
    for mode, (every, groups) in FORMATS.items()
    for bits in every
    for group in groups
    if group <= 32
]
LOW, HIGH = QuantizeRecipe(bits=2, group_size=32), QuantizeRecipe(bits=8, group_size=32)


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_every_format(settings: QuantizeRecipe) -> None:
    """As MLX's own nn.quantize does it, on every layer; the norms stay."""
    model, reference = make_model(tie_embeddings=False), make_model(tie_embeddings=False)
    quantize(model, uniform(model, settings))
    nn.quantize(reference, settings.weights_per_group, settings.num_bits, mode=settings.mode)
    ours, theirs = (dict(tree_flatten(m.parameters())) for m in (model, reference))
    assert ours.keys() == theirs.keys()
    assert all(equal(ours[name], theirs[name]) for name in ours)
    assert sum(name.endswith(".scales") for name in ours) == 23


def test_more_bits_are_closer() -> None:
    exact, far = make_model()(IDS), []
    for bits in (2, 3, 4, 5, 6, 8):
        model = make_model()
        quantize(model, uniform(model, QuantizeRecipe(bits=bits, group_size=32)))
        far.append(float(mx.abs(model(IDS) - exact).mean()))
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.05 * far[0]


def test_layers_that_do_not_fit_stay() -> None:
    model = make_model(intermediate_size=48)
    plan = uniform(model, QuantizeRecipe(group_size=32))
    assert not [path for path in plan if "down_proj" in path]
    quantize(model, plan)
    assert isinstance(model.model.layers[0].mlp.down_proj, nn.Linear)
    with pytest.raises(UserError, match="in groups of 64: no width is a multiple of it"):
        uniform(make_model(intermediate_size=48), QuantizeRecipe())
    with pytest.raises(UserError, match="or they are quantized already"):
        quantize(make_llama(), uniform(model, QuantizeRecipe(group_size=32)))


@pytest.mark.parametrize("settings", [QuantizeRecipe(group_size=32), QuantizeRecipe(mode="mxfp8")], ids=str)
def test_dequantized_is_an_ordinary_model_again(settings: QuantizeRecipe) -> None:
    model = make_model(attention_bias=True)
    names = {name for name, _ in tree_flatten(model.parameters())}
    quantize(model, uniform(model, settings))
    expected = model(IDS)
    dequantize(model)
    assert near(model(IDS), expected)
    assert {name for name, _ in tree_flatten(model.trainable_parameters())} == names


def test_bits_per_weight() -> None:
    """The same count as mlx-lm's."""
    from mlx_lm.utils import compute_bits_per_weight

    model = make_llama()
    assert bits_per_weight(model) == 32.0
    quantize(model, uniform(model, QuantizeRecipe(group_size=32)))
    assert bits_per_weight(model) == pytest.approx(compute_bits_per_weight(model))
    model.set_dtype(mx.bfloat16)
    assert bits_per_weight(model) == pytest.approx(4 + 32 / 32, abs=0.1)
    formats = [QuantizeRecipe(), LOW, QuantizeRecipe(mode="mxfp4"), QuantizeRecipe(mode="nvfp4")]
    assert [format_bits(settings) for settings in formats] == [4.5, 3.0, 4.25, 4.5]


# ---------------------------------------------------------------------- mixed precision
def test_sensitivity_is_the_divergence_when_one_layer_alone_is_quantized() -> None:
    model = make_model()
    before, names = model(IDS), [name for name, _ in tree_flatten(model.parameters())]
    hurt = sensitivities(model, [IDS[:1], IDS[1:]], LOW)
    assert equal(model(IDS), before)
    assert [name for name, _ in tree_flatten(model.parameters())] == names
    assert hurt.keys() == quantizable(model, 32).keys()
    layer = model.model.layers[1].mlp
    layer.up_proj = packed(layer.up_proj, LOW)
    p, q = mx.softmax(before, axis=-1), mx.softmax(model(IDS), axis=-1)
    expected = float((p * mx.log(p / q)).sum()) / IDS.size
    assert hurt["model.layers.1.mlp.up_proj"] == pytest.approx(expected, rel=1e-4)
    assert all(nats > 0 for nats in hurt.values())
    with pytest.raises(UserError, match="at least one batch of text"):
        sensitivities(model, [], LOW)


def test_mixed_spends_the_budget_where_it_hurts() -> None:
    model = make_model()
    hurt = dict.fromkeys(quantizable(model, 32), 1e-3)
    worst = ["model.layers.2.mlp.down_proj", "model.layers.0.self_attn.k_proj"]
    hurt |= dict.fromkeys(worst, 1.0)
    plan = mixed(model, hurt, LOW, HIGH, budget=4.0)
    assert all(plan[path] == HIGH for path in worst)
    used = sum(format_bits(plan[path]) * layer.weight.size for path, layer in quantizable(model, 32).items())
    weights = sum(layer.weight.size for layer in quantizable(model, 32).values())
    assert 3.5 < used / weights <= 4.0
    assert set(mixed(model, hurt, LOW, HIGH, budget=9.0).values()) == {HIGH}
    assert set(mixed(model, hurt, LOW, HIGH, budget=3.0).values()) == {LOW}
    with pytest.raises(UserError, match=r"a budget of 2.5 bits per weight is below the 3 that the low format takes"):
        mixed(model, hurt, LOW, HIGH, budget=2.5)


def test_measured_is_better_than_the_contrary() -> None:
    """At the same size, bits where they were measured to help give closer predictions than bits elsewhere."""
    hurt = sensitivities(make_model(), [IDS], LOW)
    exact, far = make_model()(IDS), []
    for sign in (1, -1):
        model = make_model()
        quantize(model, mixed(model, {path: sign * nats for path, nats in hurt.items()}, LOW, HIGH, budget=5.0))
        p, q = (nn.log_softmax(x, axis=-1) for x in (exact, model(IDS)))
        far.append(float((mx.exp(p) * (p - q)).sum()))
    assert far[0] < 0.7 * far[1]
