"""What a frozen model spares a training: logits of all tokens at once, and several copies of a quantized head."""

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.models import Transformer
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.recipe import ModelConfig
from tinytale_mlx.recipe.tuning import QuantizeRecipe, TuneRecipe
from tinytale_mlx.training import losses
from tinytale_mlx.tuning import attach, new_adapter
from tinytale_mlx.tuning.quantize import quantize, uniform

VOCABULARY, TOKENS = 4096, 512


def tuned(bits: int | None) -> Transformer:
    config = ModelConfig(
        hidden_size=64, layers=1, heads=2, intermediate_size=64, context=TOKENS, vocab_size=VOCABULARY
    )  # fmt: skip
    model = Transformer(config, seed=1)
    if bits:
        quantize(model, uniform(model, QuantizeRecipe(bits=bits)))
    return attach(model, new_adapter(model, TuneRecipe(rank=2), mx.random.key(0))).model


def gradients(model: Transformer) -> tuple[dict[str, np.ndarray], int]:
    """Of one row, by name, and the bytes that it took at the peak."""
    tokens = mx.array(np.random.default_rng(0).integers(0, VOCABULARY, (1, TOKENS + 1)).astype(np.int32))

    weights = mx.ones((1, TOKENS))

    def both(key: mx.array) -> dict:
        parameters = model.trainable_parameters()

        def loss(parameters: dict) -> mx.array:
            model.update(parameters)
            return losses.token_loss(model, [tokens, weights], key)[0]

        found = mx.grad(loss)(parameters)
        model.update(parameters)
        return found

    mx.eval(model.parameters())
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    found = mx.compile(both, inputs=[model.state])(mx.random.key(0))
    mx.eval(found)
    return {name: np.array(array) for name, array in named_arrays(found)}, mx.get_peak_memory() - before


@pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="a GPU has no fixed peak")
@pytest.mark.parametrize("bits", [None, 4])
def test_a_frozen_head_never_has_all_logits(bits: int | None, monkeypatch: pytest.MonkeyPatch):
    few, least = gradients(tuned(bits))
    monkeypatch.setattr(losses, "FROZEN_HEAD_CHUNK", TOKENS)
    whole, most = gradients(tuned(bits))
    assert few.keys() == whole.keys()
    for name, gradient in whole.items():
        assert np.abs(few[name] - gradient).max() <= 1e-4 * np.abs(gradient).max() + 1e-9, name
    assert least < 0.75 * most
