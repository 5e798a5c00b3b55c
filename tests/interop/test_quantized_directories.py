"""Quantized model directories: mlx-lm computes with ours what we do, and we with its."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tinytale_mlx.errors import UserError
from tinytale_mlx.interop.huggingface import load_model, save_model
from tinytale_mlx.interop.layouts import layout_of
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe
from tinytale_mlx.tokenizers import Tokenizer

GENERATION = GenerateRecipe()
PROMPT = [1, 5, 9, 33, 2, 7, 7, 21, 30, 12, 39, 0, 16]
IDS = mx.array([PROMPT])
FORMATS = [("affine", b, 32) for b in (2, 3, 4, 5, 6, 8)] + [("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)]


def near(a: mx.array, b: mx.array, tolerance: float = 1e-5) -> bool:
    return a.shape == b.shape and bool((mx.abs(a - b).max() <= tolerance * mx.abs(a).max()).item())


def greedy(model: Any, count: int) -> list[int]:
    ids = list(PROMPT)
    for _ in range(count):
        ids.append(int(np.argmax(np.array(model(mx.array([ids]))[0, -1]))))
    return ids[-count:]


def quantized(model: Transformer, mode: str = "affine", bits: int = 4, group: int = 32) -> Transformer:
    nn.quantize(model, group, bits, mode=mode, class_predicate=lambda _, m: fits(m, group))
    return model


def fits(layer: Any, group: int) -> bool:
    return hasattr(layer, "to_quantized") and layer.weight.shape[-1] % group == 0


def check(model: Transformer, tokenizer: Tokenizer, directory: Path) -> None:
    """mlx-lm reads the directory with equal logits and tokens; we read it back to the same arrays."""
    save_model(directory, model, tokenizer, GENERATION, chat_template=False)
    theirs, their_tokenizer = mlx_lm.load(str(directory))[:2]
    assert near(model(IDS), theirs(IDS))
    steps = mlx_lm.stream_generate(theirs, their_tokenizer, prompt=PROMPT, max_tokens=12)
    tokens = [step.token for step in steps]
    assert tokens == greedy(model, 12)[: len(tokens)]
    read_back(model, directory)


def read_back(model: Transformer, directory: Path) -> None:
    again = dict(tree_flatten(load_model(directory)[0].parameters()))
    before = dict(tree_flatten(model.parameters()))
    assert again.keys() == before.keys()
    assert all(mx.array_equal(again[name], before[name]).item() for name in before)
    assert mx.array_equal(load_model(directory)[0](IDS), model(IDS)).item()


def test_every_layout(sample, tokenizer: Tokenizer, tmp_path: Path) -> None:
    name, model = sample
    quantized(model)
    if name == "own":
        save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
        read_back(model, tmp_path / "model")
    else:
        check(model, tokenizer, tmp_path / "model")


@pytest.mark.parametrize(("mode", "bits", "group"), FORMATS)
def test_every_format(mode: str, bits: int, group: int, make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    check(quantized(make(intermediate_size=64), mode, bits, group), tokenizer, tmp_path / "model")


@pytest.mark.parametrize("layout", ["llama", "nanochat"])
def test_mixed_formats(layout: str, make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    nanochat = {"activation": "relu2", "qk_norm": True, "embedding_norm": True, "norm_weight": False,
                "tie_embeddings": False, "logit_softcap": 15.0}  # fmt: skip
    model = make(intermediate_size=64, **(nanochat if layout == "nanochat" else {}))
    forms = {"q_proj": ("affine", 8, 32), "up_proj": ("affine", 3, 64), "k_proj": ("mxfp4", 4, 32)}

    def format_of(path: str, layer: Any) -> Any:
        mode, bits, group = forms.get(path.rsplit(".", 1)[-1], ("affine", 4, 32))
        unwanted = path.endswith("layers.0.mlp.down_proj")
        return fits(layer, group) and not unwanted and {"mode": mode, "bits": bits, "group_size": group}

    nn.quantize(model, class_predicate=format_of)
    check(model, tokenizer, tmp_path / "model")
    said = json.loads((tmp_path / "model/config.json").read_text())["quantization"]
    assert {key: said[key] for key in ("mode", "bits", "group_size")} == {"mode": "affine", "bits": 4, "group_size": 32}
    assert len(said) > 3


def test_gpt2_s_stacked_matrices_must_agree(make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    gpt2 = {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "intermediate_size": 128}
    model = make(**gpt2, attention_bias=True, mlp_bias=True)
    assert layout_of(model.config).model_type == "gpt2"
    forms = {True: {"bits": 8, "group_size": 32}, False: {"bits": 4, "group_size": 32}}
    nn.quantize(model, class_predicate=lambda path, layer: fits(layer, 32) and forms["q_proj" in path])
    with pytest.raises(UserError, match=r"q_proj.* are one matrix in the layout GPT-2; quantize them alike"):
        save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)


def test_what_mlx_lm_quantizes_we_read(make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """By its own converter, and without our key in config.json."""
    save_model(tmp_path / "model", make(intermediate_size=64), tokenizer, GENERATION, chat_template=False)
    config = json.loads((tmp_path / "model/config.json").read_text())
    config.pop("tinytale")
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    mlx_lm.convert(
        str(tmp_path / "model"), str(tmp_path / "q"), quantize=True, q_bits=4, q_group_size=32, dtype="float32"
    )
    theirs = mlx_lm.load(str(tmp_path / "q"))[0]
    ours, _ = load_model(tmp_path / "q")
    assert near(ours(IDS), theirs(IDS))
    assert isinstance(ours.model.layers[0].mlp.up_proj, nn.QuantizedLinear)


def test_16_bits(make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make(intermediate_size=64)
    model.set_dtype(mx.bfloat16)
    quantized(model)
    save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
    assert json.loads((tmp_path / "model/config.json").read_text())["dtype"] == "bfloat16"
    read_back(model, tmp_path / "model")


# ---------------------------------------------------------------------- what goes wrong
@pytest.fixture
def saved(make, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save_model(tmp_path / "model", quantized(make()), tokenizer, GENERATION, chat_template=False)
    return tmp_path / "model"


def refusal(directory: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_another_program_s_quantization(saved: Path) -> None:
    edit(saved, quantization=None, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantized by another program than mlx-lm" in refusal(saved)


def test_an_array_of_a_quantized_matrix_is_missing(saved: Path) -> None:
    file = str(saved / "model.safetensors")
    weights: Any = mx.load(file)
    name = "model.layers.1.mlp.up_proj"
    mx.save_safetensors(file, {n: a for n, a in weights.items() if n != f"{name}.biases"})
    assert f"missing: {name}.biases" in refusal(saved)


def test_a_format_that_there_is_not(saved: Path) -> None:
    file = str(saved / "model.safetensors")
    weights: Any = mx.load(file)
    weights["model.layers.1.mlp.up_proj.scales"] = mx.zeros((48, 4))
    mx.save_safetensors(file, weights)
    assert "up_proj is quantized to 4 bits in groups of 8, which MLX can't compute with" in refusal(saved)
