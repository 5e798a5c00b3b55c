"""With segments, a row of several documents is to the model what each of them is alone."""

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tinytale_mlx.data.batches import Batches, Shuffled, document_batches, make_rows
from tinytale_mlx.data.packing import PackedRows
from tinytale_mlx.evaluation.loss import evaluate
from tinytale_mlx.models import Transformer
from tinytale_mlx.models.transformer import positions_within
from tinytale_mlx.recipe import DataRecipe, ModelConfig
from tinytale_mlx.training.losses import next_token_loss

VARIANTS: dict[str, dict[str, Any]] = {
    **{positions: {"positions": positions} for positions in ("rope", "learned", "sinusoidal", "t5", "alibi", "none")},
    "gqa-window": {"kv_heads": 2, "sliding_window": 4},
    "alibi-window": {"positions": "alibi", "sliding_window": 4, "kv_heads": 2},
    "manual": {"attention": "manual", "kv_heads": 1, "qk_norm": True},
    "post-norm-shared": {"norm_placement": "post", "norm": "layernorm", "layers": 4, "distinct_layers": 2},
}
LENGTHS = [7, 2, 12, 9, 4, 3, 20, 2, 5, 24]
OFFSETS = np.cumsum([0, *LENGTHS])
TEXT = np.random.default_rng(0).integers(1, 40, OFFSETS[-1]).astype(np.uint16)
DOCUMENTS = [TEXT[begin:end] for begin, end in pairwise(OFFSETS)]


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def model(request: pytest.FixtureRequest, tiny: Callable[..., ModelConfig]) -> Transformer:
    """Its weights are large, and none is zero, so that what is seen counts."""
    model = Transformer(tiny(**request.param), seed=1)
    dice = np.random.default_rng(1)
    drawn = [
        (name, 6 * array if array.any() else mx.array(dice.normal(size=array.shape).astype(np.float32)))
        if array.ndim == 2
        else (name, array)
        for name, array in tree_flatten(model.parameters())
    ]
    model.update(tree_unflatten(drawn))
    return model


@pytest.fixture
def rows() -> PackedRows:
    packed = PackedRows(TEXT, OFFSETS, 24, mask=True)
    assert packed.count < len(LENGTHS) / 2
    return packed


@pytest.mark.usefixtures("either_exp")
def test_every_document_has_the_logits_that_it_has_alone(model: Transformer, rows: PackedRows):
    tokens, _, segments = rows.rows(0, np.arange(rows.count))
    assert segments is not None
    together = np.array(model(mx.array(tokens[:, :-1]), segments=mx.array(segments[:, :-1])))
    plain = np.array(model(mx.array(tokens[:, :-1])))
    found = moved = 0
    for row, segment in product(range(rows.count), range(segments.max() + 1)):
        inside = segments[row, :-1] == segment
        ids = tokens[row, :-1][inside]
        if not ids.any():  # padding, or nothing
            continue
        alone = np.array(model(mx.array(ids[None])))[0]
        assert np.allclose(together[row, inside], alone, atol=1e-5 * np.abs(alone).max())
        found += 1
        moved += not np.allclose(plain[row, inside], alone, atol=1e-2 * np.abs(alone).max())
    assert found == len(LENGTHS)
    assert moved == found - rows.count  # all but the first of each row


def test_the_gradient_is_the_sum_over_documents(model: Transformer, rows: PackedRows):
    def loss(parameters: dict, tokens: np.ndarray, weights: np.ndarray, segments: np.ndarray | None) -> mx.array:
        model.update(parameters)
        inside = None if segments is None else mx.array(segments[:, :-1])
        ids = mx.array(tokens.astype(np.int32))
        return next_token_loss(model(ids[:, :-1], segments=inside), ids, mx.array(weights))

    parameters = model.trainable_parameters()
    step = mx.value_and_grad(loss)
    nats, gradients = step(parameters, *rows.rows(0, np.arange(rows.count)))
    alone = [step(parameters, one[None], np.ones((1, len(one) - 1), np.float32), None) for one in DOCUMENTS]
    assert nats.item() == pytest.approx(sum(float(part) for part, _ in alone), rel=1e-5)
    summed: dict[str, np.ndarray] = {}
    for _, part in alone:
        for name, array in tree_flatten(part):
            summed[name] = summed.get(name, 0.0) + np.array(array, np.float64)
    largest = max(np.abs(array).max() for array in summed.values())
    for name, array in tree_flatten(gradients):
        assert np.allclose(np.array(array), summed[name], atol=1e-5 * largest), name


@pytest.mark.parametrize("kind", ["windows", "documents", "packed"])
def test_evaluation_keeps_documents_apart(kind: str, model: Transformer):
    """Where all documents are whole in their rows, the score is that of each on its own."""
    byte_lengths = np.ones(40, np.int32)
    rows = make_rows(DataRecipe(rows=kind, document_mask=True), TEXT, OFFSETS, 24, 0)
    batches = Batches(Shuffled(rows, 0), 1)
    score = evaluate(model, (batches.at(step) for step in range(rows.count)), byte_lengths)
    alone = evaluate(model, document_batches(TEXT, OFFSETS, 24, 2), byte_lengths)
    if kind == "packed":
        assert (score.tokens, score.bytes) == (alone.tokens, alone.bytes) == (len(TEXT) - len(LENGTHS),) * 2
        assert score.nats == pytest.approx(alone.nats, rel=1e-5)
    else:  # windows cut documents, and rows of documents show the beginning of the next one again
        assert score.tokens > 0.5 * alone.tokens
        unmasked = evaluate(
            model, (batches.at(step)._replace(segments=None) for step in range(rows.count)), byte_lengths
        )
        assert score.tokens == unmasked.tokens
        assert abs(score.nats - unmasked.nats) > 0.1


def test_positions_begin_anew_with_each_document():
    segments = mx.array([[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 1, 1]])
    assert positions_within(segments).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]]


def test_segments_and_a_cache_are_a_mistake(tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny())
    with pytest.raises(ValueError, match="segments are for whole rows"):
        model(mx.zeros((1, 3), mx.int32), model.make_cache(), segments=mx.zeros((1, 3), mx.int32))
