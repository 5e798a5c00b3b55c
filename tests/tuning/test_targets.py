"""What a name, a path or a pattern means, on our models and on mlx-lm's."""

from typing import Any

import pytest
from tuned_models import make_llama, make_model

from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe.tuning import QuantizeRecipe
from tinytale_mlx.tuning import targets
from tinytale_mlx.tuning.quantize import quantize, uniform


def suffixes(found: dict[str, Any]) -> set[str]:
    return {path.split(".", 3)[-1] for path in found}


EVERY = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}  # fmt: skip


@pytest.mark.parametrize("make", [make_model, make_llama], ids=["ours", "mlx_lm"])
def test_all_linear_is_every_matrix_inside_the_blocks(make: Any) -> None:
    found = targets.match_targets(make(), "all-linear")
    assert suffixes(found) == EVERY
    assert len(found) == 21
    assert "lm_head" not in targets.match_targets(make_model(tie_embeddings=False), "all-linear")


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("q_proj", 3),
        ("self_attn.q_proj", 3),
        ("model.layers.1.mlp.up_proj", 1),
        ("*.mlp.*", 9),
        ("model.layers.[02].self_attn.?_proj", 8),
        ("embed_tokens", 1),
        ("model.embed_tokens", 1),
        ("lm_head", 1),
    ],
)
def test_names_paths_and_patterns(target: str, count: int) -> None:
    for model in (make_model(tie_embeddings=False), make_llama(tied=False)):
        assert len(targets.match_targets(model, [target])) == count


def test_a_name_is_not_the_end_of_a_longer_name() -> None:
    with pytest.raises(UserError):
        targets.match_targets(make_model(), ["proj"])


def test_the_last_layers() -> None:
    found = targets.match_targets(make_model(), "all-linear", layers=2)
    assert {path.split(".")[2] for path in found} == {"1", "2"}
    assert len(targets.match_targets(make_model(), ["q_proj", "embed_tokens"], layers=1)) == 2
    assert list(targets.match_targets(make_model(distinct_layers=1), ["q_proj"], layers=1)) == [
        "model.layers.0.self_attn.q_proj"
    ]


def test_zero_layers_is_not_all_layers() -> None:
    """mlx-lm's `--num-layers 0` means all of them (spec 1.3, defect 12); the recipe refuses it, and so does a model
    with fewer layers."""
    with pytest.raises(UserError, match="the last 4 layers were asked for, and the model has 3"):
        targets.match_targets(make_model(), "all-linear", layers=4)


def test_what_matches_nothing_lists_what_there_is() -> None:
    with pytest.raises(UserError) as caught:
        targets.match_targets(make_model(), ["q_proj", "query"])
    assert str(caught.value) == (
        "no layer matches the target 'query'; there are embed_tokens, mlp.down_proj, mlp.gate_proj, mlp.up_proj, "
        "self_attn.k_proj, self_attn.o_proj, self_attn.q_proj, self_attn.v_proj"
    )
    with pytest.raises(UserError, match=r"'model.layers.0.mlp.up_proj' in the last 1 layers; there are"):
        targets.match_targets(make_model(), ["model.layers.0.mlp.up_proj"], layers=1)


def test_layer_2_comes_before_layer_10() -> None:
    found = targets.match_targets(make_model(layers=12), ["q_proj"])
    assert [int(path.split(".")[2]) for path in found] == list(range(12))


@pytest.mark.parametrize("tied", [True, False])
def test_parts_outside_the_blocks(tied: bool) -> None:
    for model in (make_model(tie_embeddings=tied), make_llama(tied)):
        assert list(targets.embeddings(model)) == ["model.embed_tokens"]
        assert list(targets.final_norm(model)) == ["model.norm"]
        assert list(targets.head(model)) == ["model.embed_tokens" if tied else "lm_head"]
        assert targets.is_tied(model) is tied
        assert targets.token_embedding(model)[0] == "model.embed_tokens"
        quantize(model, uniform(model, QuantizeRecipe(group_size=32)))
        assert list(targets.head(model)) == ["model.embed_tokens" if tied else "lm_head"]


def test_learned_positions_are_an_embedding_but_not_the_tokens() -> None:
    model = make_model(positions="learned")
    assert list(targets.embeddings(model)) == ["model.embed_positions", "model.embed_tokens"]
    assert targets.token_embedding(model)[0] == "model.embed_tokens"
