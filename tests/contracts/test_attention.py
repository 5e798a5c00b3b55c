"""Is it still attention? One suite over every kind: its shape, what it sees, what it computes, its gradients.

The reference is plain NumPy in float64, written from the papers. Its derivatives, by finite differences, are
what the gradients are compared with.
"""

import itertools
import math
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tinytale_mlx.models.attention import Attention, manual_attention
from tinytale_mlx.models.cache import KVCache
from tinytale_mlx.recipe import ModelConfig, RopeScaling

BATCH, LENGTH, WINDOW = 2, 9, 4
SCALINGS = {
    "rope-linear": RopeScaling(type="linear", factor=2.0, original_context=16),
    "rope-llama3": RopeScaling(type="llama3", factor=4.0, original_context=64),
    "rope-yarn": RopeScaling(type="yarn", factor=4.0, original_context=64),
}
PATHS = {"fused": ("fused", False), "manual": ("manual", False), "polynomial": ("manual", True)}
"""What a Mac runs; the same spelled out; what an x86 CPU runs."""
KINDS = [
    *itertools.product(("rope", "alibi", "t5", "none"), (4, 2, 1), PATHS, (None, WINDOW), (False, True)),
    *itertools.product(SCALINGS, (2,), ("fused",), (None,), (False,)),
]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(map(str, kind)))
def config(
    request: pytest.FixtureRequest,
    tiny: Callable[..., ModelConfig],
    use_polynomial_exp: Callable[[bool], None],
) -> ModelConfig:
    positions, kv_heads, path, window, qk_norm = request.param
    attention, polynomial = PATHS[path]
    use_polynomial_exp(polynomial)
    return tiny(
        positions=positions.partition("-")[0],
        rope_scaling=SCALINGS.get(positions),
        kv_heads=kv_heads,
        attention=attention,
        sliding_window=window,
        qk_norm=qk_norm,
        attention_bias=qk_norm,  # the two are independent, so one switch tries both
        head_dim=6 if window else None,
    )


@pytest.fixture
def attention(config: ModelConfig, dice: np.random.Generator) -> Attention:
    """With every parameter drawn, so that none can be forgotten unnoticed."""
    module = Attention(config)
    drawn = [
        (name, mx.array(dice.normal(size=array.shape).astype(np.float32) * (0.3 if array.ndim == 2 else 1.0)))
        for name, array in tree_flatten(module.parameters())
    ]
    module.update(tree_unflatten(drawn))
    return module


@pytest.fixture
def x(config: ModelConfig, dice: np.random.Generator) -> np.ndarray:
    return dice.normal(size=(BATCH, LENGTH, config.hidden_size)).astype(np.float32)


def parameters_of(module: Attention) -> dict[str, np.ndarray]:
    return {name: np.array(array, np.float64) for name, array in tree_flatten(module.parameters())}


# ---------------------------------------------------------------------- the reference
def reference(x: np.ndarray, p: dict[str, np.ndarray], config: ModelConfig) -> np.ndarray:
    """Attention over x [B, T, hidden], one head at a time."""
    length = x.shape[1]
    size, shared = config.size_per_head, config.heads // config.num_kv_heads
    distance = np.arange(length)[:, None] - np.arange(length)
    visible = (distance >= 0) & (distance < (config.sliding_window or length))
    projected = {n: x @ p[f"{n}_proj.weight"].T + p.get(f"{n}_proj.bias", 0.0) for n in "qkv"}
    heads = []
    for head in range(config.heads):
        q = prepared(projected["q"][..., head * size : (head + 1) * size], "q", p, config)
        own = slice(head // shared * size, (head // shared + 1) * size)
        k, v = prepared(projected["k"][..., own], "k", p, config), projected["v"][..., own]
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(size) + bias(distance, head, p, config)
        e = np.exp(np.where(visible, scores, -np.inf))
        heads.append(e / e.sum(-1, keepdims=True) @ v)
    return np.concatenate(heads, -1) @ p["o_proj.weight"].T + p.get("o_proj.bias", 0.0)


def prepared(x: np.ndarray, name: str, p: dict[str, np.ndarray], config: ModelConfig) -> np.ndarray:
    """A head's queries or keys [B, T, size], normalised and turned."""
    if config.qk_norm:
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * p[f"{name}_norm.weight"]
    if config.positions != "rope":
        return x
    half = x.shape[-1] // 2
    rates, temperature = rope_rates(config)
    angle = np.arange(x.shape[1])[:, None] * rates
    a, b = temperature * x[..., :half], temperature * x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], -1)


def rope_rates(config: ModelConfig) -> tuple[np.ndarray, float]:
    """Radians per position of each plane, and YaRN's temperature; plane by plane, as the papers have it."""
    size, theta, scaling = config.size_per_head, config.rope_theta, config.rope_scaling
    rates = []
    for i in range(size // 2):
        rate = theta ** (-2 * i / size)
        if scaling is not None:
            turns = scaling.original_context * rate / (2 * math.pi)
            slow = rate / scaling.factor
            if scaling.type == "linear":
                rate = slow
            elif scaling.type == "llama3":
                keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
                keep = min(max(keep, 0.0), 1.0)
                rate = keep * rate + (1 - keep) * slow
            else:
                rotations = [32.0, 1.0]
                low, high = (
                    size * math.log(scaling.original_context / (r * 2 * math.pi)) / (2 * math.log(theta))
                    for r in rotations
                )
                low, high = max(math.floor(low), 0), min(math.ceil(high), size - 1)
                ramp = min(max((i - low) / (high - low), 0.0), 1.0)
                rate = ramp * slow + (1 - ramp) * rate
        rates.append(rate)
    yarn = scaling is not None and scaling.type == "yarn"
    return np.array(rates), (0.1 * math.log(scaling.factor) + 1 if scaling and yarn else 1.0)


def bias(distance: np.ndarray, head: int, p: dict[str, np.ndarray], config: ModelConfig) -> np.ndarray:
    if config.positions == "alibi":
        return -(2.0 ** (-8 * (head + 1) / config.heads)) * np.abs(distance)
    if config.positions == "t5":
        bucket = np.vectorize(t5_bucket)(np.maximum(distance, 0))
        return p["relative_bias.weight"][bucket, head]
    return np.zeros(distance.shape)


def t5_bucket(distance: int) -> int:
    """Raffel et al. 2020: 32 buckets, one for each distance up to 15, then logarithmically up to 128."""
    if distance < 16:
        return distance
    return min(16 + int(math.log(distance / 16) / math.log(128 / 16) * 16), 31)


# ---------------------------------------------------------------------- the suite
def test_it_computes_what_the_reference_does(attention: Attention, config: ModelConfig, x: np.ndarray):
    y = attention(mx.array(x))
    assert y.shape == x.shape
    expected = reference(x.astype(np.float64), parameters_of(attention), config)
    assert np.allclose(np.array(y), expected, atol=2e-4 * np.abs(expected).max())


def test_no_token_sees_another_document(attention: Attention, config: ModelConfig, x: np.ndarray):
    """With segments, each document of a row gets what the reference computes for it alone."""
    lengths = [[4, 5], [1, 6, 2]]
    segments = np.array([np.repeat(np.arange(len(row)), row) for row in lengths])
    y = np.array(attention(mx.array(x), segments=mx.array(segments)))
    p = parameters_of(attention)
    for row, documents in enumerate(lengths):
        for place, end in zip(np.cumsum([0, *documents]), np.cumsum(documents), strict=False):
            expected = reference(x[row : row + 1, place:end].astype(np.float64), p, config)[0]
            assert np.allclose(y[row, place:end], expected, atol=2e-4 * np.abs(expected).max())


def test_no_token_sees_a_later_one(attention: Attention, x: np.ndarray, dice: np.random.Generator):
    """To the bit: what comes later changes nothing before it, and something from there on."""
    y = np.array(attention(mx.array(x)))
    for position in (1, LENGTH // 2, LENGTH - 1):
        other = x.copy()
        other[:, position] += dice.normal(size=other[:, position].shape)
        z = np.array(attention(mx.array(other)))
        assert np.array_equal(y[:, :position], z[:, :position])
        assert np.abs(y - z)[:, position].max() > 1e-3


def test_no_token_sees_past_the_window(attention: Attention, config: ModelConfig, x: np.ndarray):
    other = x.copy()
    other[:, 0] += 1.0
    same = np.isclose(np.array(attention(mx.array(x))), np.array(attention(mx.array(other))), atol=1e-5).all(
        axis=(0, 2)
    )
    reach = config.sliding_window or LENGTH
    assert not same[:reach].any()
    assert same[reach:].all()


@pytest.mark.parametrize("pieces", [[1] * LENGTH, [5, 1, 3], [1, LENGTH - 1], [LENGTH - 1, 1], [3, 3, 3]], ids=str)
def test_reading_in_pieces_is_reading_at_once(attention: Attention, x: np.ndarray, pieces: list[int]):
    """Prefill, token by token, or mixed, with what came before kept in a cache."""
    whole = np.array(attention(mx.array(x)))
    cache, outputs, start = KVCache(), [], 0
    for piece in pieces:
        outputs.append(np.array(attention(mx.array(x[:, start : start + piece]), cache)))
        start += piece
    assert cache.offset == LENGTH
    assert np.allclose(np.concatenate(outputs, 1), whole, atol=1e-4 * np.abs(whole).max())


def test_gradients(attention: Attention, config: ModelConfig, x: np.ndarray, dice: np.random.Generator):
    """Along a random direction of every parameter and of x, against a finite difference of the reference."""
    cotangent = dice.normal(size=x.shape)
    p = parameters_of(attention)

    def loss(parameters: dict, inputs: mx.array) -> mx.array:
        attention.update(parameters)
        return (attention(inputs) * mx.array(cotangent.astype(np.float32))).sum()

    gradients, x_gradient = mx.grad(loss, argnums=(0, 1))(attention.trainable_parameters(), mx.array(x))
    given = {name: np.array(array, np.float64) for name, array in tree_flatten(gradients)}
    given["x"] = np.array(x_gradient, np.float64)
    assert set(given) == {*p, "x"}

    def reference_loss(name: str, step: np.ndarray) -> float:
        inputs = x + step if name == "x" else x.astype(np.float64)
        changed = {**p, name: p[name] + step} if name in p else p
        return float((reference(inputs, changed, config) * cotangent).sum())

    for name, gradient in given.items():
        direction = dice.normal(size=gradient.shape)
        h = 1e-4
        expected = (reference_loss(name, h * direction) - reference_loss(name, -h * direction)) / (2 * h)
        tolerance = 1e-4 * np.linalg.norm(gradient) * np.linalg.norm(direction) + 1e-3
        assert (gradient * direction).sum() == pytest.approx(expected, abs=tolerance), name


# ---------------------------------------------------------------------- the two paths
@pytest.mark.parametrize("mask_kind", ["causal", "none", "visible", "bias", "row-visible", "row-bias"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("queries", [7, 3, 1])
@pytest.mark.usefixtures("either_exp")
def test_manual_equals_fused(mask_kind: str, kv_heads: int, queries: int, dice: np.random.Generator):
    """`manual_attention` and MLX's kernel, asked directly, for queries that are the last of 7 keys."""
    shapes = [(2, 4, queries, 8), (2, kv_heads, 7, 8), (2, kv_heads, 7, 8)]
    q, k, v = (mx.array(dice.normal(size=shape).astype(np.float32)) for shape in shapes)
    seen = dice.random((4, queries, 7)) < 0.7
    seen[..., 0] = True
    biases = np.where(seen, dice.normal(size=seen.shape), -np.inf).astype(np.float32)
    masks = {"causal": "causal", "none": None, "visible": mx.array(seen[0]), "bias": mx.array(biases)}
    rows = mx.array(np.stack([seen[:1], seen[1:2]])), mx.array(np.stack([biases, biases[::-1]]))
    masks |= {"row-visible": rows[0], "row-bias": rows[1]}  # [2, 1, queries, 7] and [2, 4, queries, 7]
    mask = masks[mask_kind]
    fused = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=mask)
    assert np.allclose(np.array(manual_attention(q, k, v, 0.3, mask)), np.array(fused), atol=1e-5)


@pytest.mark.parametrize("positions", ["rope", "alibi", "t5", "none"])
@pytest.mark.parametrize("path", ["fused", "manual"])
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.usefixtures("either_exp")
def test_16_bit(
    positions: str, path: str, dtype: mx.Dtype, tiny: Callable[..., ModelConfig], dice: np.random.Generator
):
    """Half the bits in, half the bits out, and about the same values, with a window or without."""
    for window in (None, WINDOW):
        module = Attention(tiny(positions=positions, attention=path, kv_heads=2, qk_norm=True, sliding_window=window))
        x = mx.array(dice.normal(size=(BATCH, LENGTH, 32)).astype(np.float32))
        expected = module(x)
        module.set_dtype(dtype)
        y = module(x.astype(dtype))
        assert y.dtype == dtype
        assert np.allclose(np.array(y.astype(mx.float32)), np.array(expected), atol=0.03)


def test_alibi_slopes_for_any_number_of_heads():
    """Press et al. 2022: a geometric series; between powers of two, every other one of the next power's."""
    from tinytale_mlx.models.positions import alibi_slopes

    assert alibi_slopes(1) == [2**-8]
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(6) == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]
    assert alibi_slopes(12)[8:] == [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]


def test_t5_buckets_far_away(tiny: Callable[..., ModelConfig]):
    """Every distance up to three times the farthest that has a bucket of its own."""
    from tinytale_mlx.models.positions import T5Bias

    module = T5Bias(tiny(positions="t5"))
    module.weight = mx.broadcast_to(mx.arange(32.0)[:, None], (32, 4))
    distances = np.arange(-5, 400)
    expected = [t5_bucket(max(d, 0)) for d in distances.tolist()]
    assert np.array(module(mx.array(distances)[None]))[:, 0].tolist() == [expected] * 4


def test_attention_dropout(tiny: Callable[..., ModelConfig], dice: np.random.Generator):
    """With a key it drops, the same way each time; without one it does not; on average it changes nothing."""
    module = Attention(tiny(attention_dropout=0.5, positions="none"))
    x = mx.array(dice.normal(size=(1, 6, 32)).astype(np.float32))
    plain = Attention(tiny(positions="none"))
    plain.update(module.parameters())
    expected = np.array(plain(x))
    assert np.allclose(np.array(module(x)), expected, atol=1e-6)
    one = np.array(module(x, key=mx.random.key(1)))
    assert np.array_equal(one, np.array(module(x, key=mx.random.key(1))))
    assert not np.allclose(one, np.array(module(x, key=mx.random.key(2))), atol=1e-4)
    many = np.array(module(mx.repeat(x, 4000, axis=0), key=mx.random.key(3)))
    error = many.std(0) / math.sqrt(4000)
    assert (np.abs(many.mean(0) - expected[0]) < 6 * error + 1e-6).all()
