"""Mixed precision where a layout stores several matrices as one."""

from pathlib import Path

import pytest
from bases import train_base

from tinytale_mlx import stages
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.recipe.tuning import QuantizeRecipe
from tinytale_mlx.tuning.quantize import format_bits

GPT2 = ["positions=learned", "norm=layernorm", "activation=gelu_tanh", "intermediate_size=256"]


def test_q_k_and_v_get_one_format_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_base(tmp_path, "train.steps=1", *(f"model.{key}" for key in GPT2))
    monkeypatch.chdir(tmp_path)
    sizes = {path: array.size for path, array in named_arrays(stages.load("base").model.parameters())}
    for budget in (5.0, 5.5, 6.0):
        made = stages.quantize_model("base", Path(f"at-{budget}"), QuantizeRecipe(bits=4), budget=budget)
        bits = made["layers"]
        for layer in range(2):
            together = {bits[f"model.layers.{layer}.self_attn.{x}_proj"] for x in "qkv"}
            assert len(together) == 1
        weights = {path: sizes[f"{path}.weight"] for path in bits}
        taken = sum(weights[path] * format_bits(QuantizeRecipe(bits=many)) for path, many in bits.items())
        assert taken <= budget * sum(weights.values())
        assert set(bits.values()) == {4, 8}
        assert stages.load(f"at-{budget}").can_chat
