"""The section of a recipe on tuning: strict, and contradictions said in a sentence."""

from typing import Any

import pytest
from pydantic import ValidationError

from tinytale_mlx.recipe.tuning import QuantizeRecipe, TuneRecipe


def refusal(kind: Any = TuneRecipe, **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    return caught.value.errors()[0]["msg"].removeprefix("Value error, ")


def test_defaults() -> None:
    recipe = TuneRecipe()
    assert (recipe.method, recipe.rank, recipe.multiplier, recipe.targets) == ("lora", 8, 2.0, "all-linear")
    assert TuneRecipe.model_validate(recipe.model_dump(mode="json")) == recipe
    qlora = TuneRecipe(quantize=QuantizeRecipe(mode="nvfp4"), targets=["q_proj"])
    assert TuneRecipe.model_validate_json(qlora.model_dump_json()) == qlora


@pytest.mark.parametrize(
    ("fields", "multiplier"),
    [
        ({"alpha": 32.0}, 4.0),
        ({"scale": 20.0}, 20.0),
        ({"rank": 16, "alpha": 32.0, "rslora": True}, 8.0),
        ({"rank": 16, "rslora": True}, 8.0),
    ],
)
def test_multiplier(fields: dict[str, Any], multiplier: float) -> None:
    assert TuneRecipe(**fields).multiplier == multiplier


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rank": 0}, "tune.rank 0 leaves nothing to learn; it must be at least 1"),
        ({"alpha": 1.0, "scale": 2.0}, "say the same thing in two ways"),
        ({"rslora": True, "scale": 2.0}, "tune.rslora divides tune.alpha"),
        ({"targets": []}, "tune.targets is empty"),
        ({"layers": 0}, "greater than 0"),
        ({"dropout": 1.0}, "less than 1"),
        ({"lora_plus_ratio": 0.5}, "greater than or equal to 1"),
        ({"method": "full", "rank": 4}, "tune.rank means nothing to the method full"),
        ({"method": "full", "quantize": {}}, "tune.quantize means nothing to the method full"),
        ({"method": "prompt", "dropout": 0.1}, "tune.dropout means nothing to the method prompt"),
        ({"method": "prefix", "layers": 2}, "tune.layers means nothing to the method prefix"),
        ({"prompt_text": "Hello"}, "tune.prompt_text means nothing to the method lora"),
        ({"rnk": 4}, "Extra inputs"),
        ({"rank": "8"}, "valid integer"),
    ],
)
def test_refusals(fields: dict[str, Any], said: str) -> None:
    assert said in refusal(**fields)


def test_formats() -> None:
    assert (QuantizeRecipe().num_bits, QuantizeRecipe().weights_per_group) == (4, 64)
    assert (QuantizeRecipe(mode="mxfp8").num_bits, QuantizeRecipe(mode="mxfp8").weights_per_group) == (8, 32)
    assert QuantizeRecipe(bits=3, group_size=128).num_bits == 3
    assert refusal(QuantizeRecipe, bits=7) == "bits 7 is not among those of the mode affine: 2, 3, 4, 5, 6, 8"
    assert refusal(QuantizeRecipe, mode="mxfp4", group_size=64).endswith("of the mode mxfp4: 32")
    assert refusal(QuantizeRecipe, mode="nvfp4", bits=8).endswith("of the mode nvfp4: 4")
