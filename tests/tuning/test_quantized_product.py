"""The product with frozen quantized weights: both ways the same, gradients too, and no matrix outlives its layer."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from tuned_models import IDS, equal, make_llama, make_model, near

from tinytale_mlx.recipe import tuning as recipe
from tinytale_mlx.recipe.tuning import QuantizeRecipe
from tinytale_mlx.tuning import quantized_matmul as product
from tinytale_mlx.tuning.quantize import quantize, uniform

FORMATS = [
    *[("affine", bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)],
    ("mxfp4", 4, 32),
    ("nvfp4", 4, 16),
    ("mxfp8", 8, 32),
]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch):
    """always(True) unpacks first whatever the rows and the backend, always(False) never."""

    def use(unpack: bool) -> None:
        monkeypatch.setattr(product, "DEQUANTIZE_FROM", dict.fromkeys(("cpu", "gpu"), 1 if unpack else None))

    return use


def make_layer(mode: str, bits: int, group: int, dtype: mx.Dtype = mx.float32) -> product.QuantizedLinear:
    layer = nn.Linear(256, 96)
    layer.weight = mx.random.normal((96, 256), key=mx.random.key(1)).astype(dtype)
    layer.bias = mx.random.normal((96,), key=mx.random.key(2)).astype(dtype)
    packed = nn.QuantizedLinear.from_linear(layer, group, bits, mode=mode)
    return product.QuantizedLinear.like(packed)


@pytest.mark.parametrize(("mode", "bits", "group"), FORMATS)
@pytest.mark.parametrize("unpack", [True, False])
def test_product_and_gradient_are_those_of_the_unpacked_layer(
    always: Any, unpack: bool, mode: str, bits: int, group: int
) -> None:
    always(unpack)
    layer = make_layer(mode, bits, group)
    weight = mx.dequantize(
        layer.weight, layer.scales, layer.biases, group_size=group, bits=bits, mode=mode, dtype=mx.float32
    )
    x, ct = (mx.random.normal((2, 9, n), key=mx.random.key(n)) for n in (256, 96))
    [y], [gradient] = mx.vjp(lambda x: layer(x), [x], [ct])
    assert near(y, x @ weight.T + layer.bias)
    assert near(gradient, ct @ weight)
    assert near(product.dequantized(layer), weight, 1e-6)


def test_16_bit_scales_are_not_rounded_twice(always: Any) -> None:
    """x in float32 on a base of 16 bits: the weights are unpacked in float32, as quantized_matmul does it."""
    layer = make_layer("affine", 4, 32, mx.bfloat16)
    x, found = mx.random.normal((4, 256), key=mx.random.key(0)), []
    for unpack in (True, False):
        always(unpack)
        found.append(product.quantized_matmul(x, layer))
    assert found[0].dtype == mx.float32
    assert near(found[0], found[1], 1e-5)


def test_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = "cpu" if mx.default_device() == mx.Device(mx.cpu) else "gpu"
    monkeypatch.setattr(product, "DEQUANTIZE_FROM", {"cpu": None, "gpu": None, backend: 16})
    assert [product.unpacks_first(rows) for rows in (1, 15, 16, 100)] == [False, False, True, True]
    monkeypatch.setattr(product, "DEQUANTIZE_FROM", {"cpu": None, "gpu": None})
    assert not product.unpacks_first(10**6)
    monkeypatch.undo()
    assert product.DEQUANTIZE_FROM["gpu"] is None  # until a Mac's owner has measured


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_quantized_model_computes_in_its_own_dtype(mode: Any, dtype: mx.Dtype) -> None:
    """MLX reads an embedding in a floating-point format in bfloat16, and the whole model follows."""
    model = make_model()
    model.set_dtype(dtype)
    quantize(model, uniform(model, QuantizeRecipe(mode=mode, group_size=32)))
    assert model.model.embed_tokens(IDS).dtype == dtype
    assert model(IDS).dtype == dtype


def test_rows_are_all_axes_but_the_last(always: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(product, "unpacks_first", lambda rows: bool(seen.append(rows)))
    make_layer("affine", 4, 64)(mx.zeros((2, 3, 256)))
    assert seen == [6]


@pytest.mark.parametrize("make", [make_model, make_llama], ids=["ours", "mlx_lm"])
def test_a_whole_model_and_its_head(always: Any, make: Any) -> None:
    model = make()
    nn.quantize(model, 32, 4)
    expected = model(IDS)
    product.use_calibrated_product(model)
    always(False)
    assert equal(model(IDS), expected)
    always(True)
    assert near(model(IDS), expected)
    kinds = {type(m) for m in model.modules() if hasattr(m, "scales")}
    assert kinds == {product.QuantizedLinear, product.QuantizedEmbedding}
    assert not [name for name, _ in nn.utils.tree_flatten(model.trainable_parameters()) if "scales" in name]


@pytest.mark.parametrize("compiled", [False, True])
def test_no_unpacked_matrix_outlives_its_layer(always: Any, compiled: bool) -> None:
    """12 blocks of 3 MB each when unpacked: training on top may need a few of these matrices, and not all.

    Without `mx.depends`, 12 layers cost 36 MB more than 1.
    """
    always(True)
    peaks = [peak(layers, compiled) for layers in (2, 12)]
    assert (peaks[1] - peaks[0]) / 1e6 < 4  # the activations of ten more blocks are 2.6 MB


def peak(layers: int, compiled: bool) -> int:
    """Bytes that forward and backward take beyond what is there before."""
    blocks = []
    for number in range(2 * layers):
        shape = (1024, 256) if number % 2 == 0 else (256, 1024)
        blocks.append(nn.QuantizedLinear(shape[1], shape[0], bias=False, group_size=64, bits=4))
    a = [mx.random.normal((256, 4)) * 0.02 for _ in range(layers)]
    x = mx.random.normal((32, 256))

    def loss(a: list[mx.array]) -> mx.array:
        h = x
        for number in range(layers):
            up, down = blocks[2 * number : 2 * number + 2]
            wide = product.quantized_matmul(h + (h @ a[number]) @ a[number].T, up)
            h = h + product.quantized_matmul(mx.maximum(wide, 0), down)
        return mx.square(h).sum()

    both = mx.value_and_grad(loss)
    both = mx.compile(both) if compiled else both
    mx.eval(x, a, [block.parameters() for block in blocks])
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(both(a))
    return mx.get_peak_memory() - before


# ---------------------------------------------------------------------- calibrating
def test_calibrate_measures_both_ways() -> None:
    timings = product.calibrate(inputs=64, outputs=64, repeats=1)
    assert [timing.rows for timing in timings] == [1, 4, 16, 64, 256, 1024]
    assert all(timing.quantized > 0 and timing.dequantized > 0 for timing in timings)
    lines = product.report(timings).splitlines()
    assert len(lines) == 8
    assert lines[-1].startswith('DEQUANTIZE_FROM["')


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.2, 0.5, 2, 7, 13], 64),
        ([0.2, 2, 0.9, 7, 13], 256),
        ([2, 2, 2, 2, 2], 4),
        ([0.1] * 5, None),
        ([3, 3, 3, 3, 0.9], None),
    ],
)
def test_threshold(ratios: list[float], expected: int | None) -> None:
    rows = [4, 16, 64, 256, 1024]
    assert product.threshold([product.Timing(n, ratio, 1.0) for n, ratio in zip(rows, ratios, strict=True)]) == expected


def test_formats_are_those_that_mlx_has() -> None:
    named = [
        (mode, bits, group) for mode, (every, groups) in recipe.FORMATS.items() for bits in every for group in groups
    ]
    assert set(named) == set(FORMATS)
