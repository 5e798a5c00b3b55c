"""Exporting a model of an architecture that tinytale lacks: as mlx-lm has it, or not at all."""

import contextlib
import json
from pathlib import Path

import mlx.core as mx
import pytest
from bases import train_base
from test_tuned_models_elsewhere import make_qwen2

from tinytale_mlx import stages
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe.tuning import QuantizeRecipe

IDS = mx.array([[2, 9, 40, 300, 7, 11]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exporting")
    train_base(folder, "train.steps=1")
    with contextlib.chdir(folder):
        make_qwen2(Path("qwen2"))
    return folder


def test_it_is_unpacked_and_in_another_dtype(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    stages.quantize_model("qwen2", Path("small"), QuantizeRecipe(bits=8))
    made = stages.export_model("small", Path("whole"), "hf", dtype="bfloat16", unpack=True)
    assert (made["dtype"], made["quantized"]) == ("bfloat16", False)
    raw = json.loads(Path("whole/config.json").read_text())
    assert (raw["model_type"], raw["dtype"], "quantization" in raw) == ("qwen2", "bfloat16", False)
    small, whole = (stages.load(name).model(IDS).astype(mx.float32) for name in ("small", "whole"))
    assert mx.allclose(small, whole, atol=0.05).item()


def test_a_gguf_file_it_is_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="GGUF files are written of Llama, Qwen3 and GPT-2"):
        stages.export_model("qwen2", Path("qwen2.gguf"))
