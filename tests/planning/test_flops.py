"""Operations per token, counted by hand and by what MLX really multiplies."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from tinytale_mlx.models.transformer import Transformer
from tinytale_mlx.planning.flops import checkpointed_layers, flops_per_token, update_flops
from tinytale_mlx.recipe import ModelConfig, TrainRecipe


def test_by_hand(tiny: Callable[..., ModelConfig]):
    """32 wide, 2 layers, 4 heads, 48 inside, context 24, vocabulary 40."""
    block = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 4 * 32 * 24
    found = flops_per_token(tiny(), TrainRecipe())
    assert found.forward == 2 * block + 2 * 32 * 40
    assert found.training == 3 * found.forward
    assert found.recomputed == 0


def test_kaplan_s_rule(tiny: Callable[..., ModelConfig]):
    """Of a large model with little attention it is 6 N, with N the matrices."""
    config = tiny(hidden_size=1024, intermediate_size=4096, layers=24, context=16, vocab_size=1000)
    matrices = 24 * (4 * 1024**2 + 3 * 1024 * 4096) + 1000 * 1024
    assert flops_per_token(config, TrainRecipe()).training == pytest.approx(6 * matrices, rel=0.005)


@pytest.mark.parametrize(
    "changes",
    [{}, {"kv_heads": 1}, {"head_dim": 16}, {"activation": "gelu"}, {"tie_embeddings": False}, {"distinct_layers": 1}],
    ids=str,
)
def test_by_counting_products(
    changes: dict[str, Any], tiny: Callable[..., ModelConfig], monkeypatch: pytest.MonkeyPatch
):
    """Every matrix product of a forward pass of one row, counted where it happens."""
    config = tiny(attention="manual", attention_dropout=0.1, **changes)
    model, total = Transformer(config), 0

    def counting(multiply: Callable[..., mx.array]) -> Callable[..., mx.array]:
        def count(a: mx.array, b: mx.array) -> mx.array:
            nonlocal total
            result = multiply(a, b)
            total += 2 * result.size * a.shape[-1]
            return result

        return count

    monkeypatch.setattr(mx.array, "__matmul__", counting(mx.array.__matmul__))
    model(mx.zeros((1, config.context), mx.int32), key=mx.random.key(0))
    assert total == config.context * flops_per_token(config, TrainRecipe()).forward


def test_recomputation_is_counted_apart(tiny: Callable[..., ModelConfig]):
    config = tiny(layers=4)
    plain = flops_per_token(config, TrainRecipe())
    head = 2 * 32 * 40
    block = flops_per_token(config, TrainRecipe(gradient_checkpointing="block"))
    assert block.training == plain.training
    assert block.recomputed == plain.forward - head
    attention = flops_per_token(config, TrainRecipe(gradient_checkpointing="attention"))
    assert 0 < attention.recomputed < block.recomputed
    second = TrainRecipe(gradient_checkpointing="block", gradient_checkpointing_every=2)
    assert 2 * flops_per_token(config, second).recomputed == block.recomputed
    assert len(checkpointed_layers(config, second)) == 2


def test_muon_s_iterations(tiny: Callable[..., ModelConfig]):
    """About 4.4 x width / tokens of a step's operations, for a model like GPT-2's small one."""
    config = tiny(hidden_size=768, intermediate_size=3072, heads=12, activation="gelu", context=8)
    assert update_flops(config, TrainRecipe()) == 0
    tokens = 8 * 1024
    share = update_flops(config, TrainRecipe(optimizer="muon")) / (
        flops_per_token(config, TrainRecipe()).training * tokens
    )
    assert share == pytest.approx(4.4 * 768 / tokens, rel=0.1)
