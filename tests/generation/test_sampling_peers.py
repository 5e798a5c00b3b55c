"""The same logits as Hugging Face's transformers leaves in, where that is installed."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.generation.sampling import Sampler
from tinytale_mlx.recipe import GenerateRecipe

torch = pytest.importorskip("torch", reason="torch is not installed")
theirs = pytest.importorskip("transformers", reason="transformers is not installed")

NEUTRAL = {"temperature": 1.0, "top_p": 1.0}
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("RepetitionPenaltyLogitsProcessor", (1.3,), {"repetition_penalty": 1.3}),
    ("RepetitionPenaltyLogitsProcessor", (0.7,), {"repetition_penalty": 0.7}),
    ("NoRepeatNGramLogitsProcessor", (2,), {"no_repeat_ngram": 2}),
    ("NoRepeatNGramLogitsProcessor", (3,), {"no_repeat_ngram": 3}),
    ("TemperatureLogitsWarper", (0.7,), {"temperature": 0.7}),
    ("TopKLogitsWarper", (7,), {"top_k": 7}),
    ("TopPLogitsWarper", (0.9,), {"top_p": 0.9}),
    ("TopPLogitsWarper", (0.3,), {"top_p": 0.3}),
    ("MinPLogitsWarper", (0.1,), {"min_p": 0.1}),
    ("TypicalLogitsWarper", (0.9,), {"typical_p": 0.9}),
    ("TypicalLogitsWarper", (0.2,), {"typical_p": 0.2}),
]


@pytest.mark.parametrize(("name", "arguments", "settings"), CASES, ids=[f"{c[0]}{c[1]}" for c in CASES])
def test_the_same_logits(name: str, arguments: tuple[Any, ...], settings: dict[str, Any], dice: np.random.Generator):
    logits = (dice.normal(size=(40, 60)) * 2).astype(np.float32)
    history = dice.integers(0, 12, (40, 30))
    expected = getattr(theirs, name)(*arguments)(torch.tensor(history), torch.tensor(logits)).numpy()
    sampler = Sampler(GenerateRecipe(**{**NEUTRAL, **settings}), 40)
    ours = np.array(sampler.shaped(mx.array(logits), mx.array(history)))
    assert np.array_equal(np.isfinite(ours), np.isfinite(expected))
    assert ours == pytest.approx(expected, rel=1e-5)
    assert not np.array_equal(ours, logits)
