"""`tinytale export`, and what it, `fuse` and `quantize` refuse in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from bases import tune_base
from mlx_lm import load as load_with_mlx_lm

from tinytale_mlx import stages
from tinytale_mlx.interop.huggingface import save_model
from tinytale_mlx.models import Transformer

IDS = mx.array([[2, 9, 40, 300, 7, 11]])


def read(path: str) -> tuple[dict[str, mx.array], dict[str, Any]]:
    found: Any = mx.load(path, return_metadata=True)
    return found


def test_without_flags_it_is_a_gguf_file_of_the_latest_run(base: Path, tinytale: Callable[..., Any]):
    made = tinytale("export", "--json").json
    assert made == {
        "model": "runs/base/model.gguf", "format": "gguf", "dtype": "float32", "quantized": False,
        "bytes": Path("runs/base/model.gguf").stat().st_size, "text": "",
    }  # fmt: skip
    arrays, metadata = read("runs/base/model.gguf")
    model: Any = stages.load("base").model
    assert mx.array_equal(arrays["token_embd.weight"], model.model.embed_tokens.weight)
    assert metadata["tokenizer.chat_template"] == Path("runs/base/model/chat_template.jinja").read_text()
    assert len(metadata["tokenizer.ggml.tokens"]) == 512
    assert metadata["general.name"] == "base"
    assert "exists; choose another --output" in tinytale("export").complaint


def test_half_as_large(base: Path, tinytale: Callable[..., Any]):
    said = tinytale("export", "--to", "hf", "--dtype", "float16", "-o", "half")
    assert (said.code, said.out.split(",")[0], "in float16" in said.out) == (0, "half", True)
    before, after = stages.load("base"), stages.load("half")
    assert after.can_chat
    raw = json.loads(Path("half/config.json").read_text())
    assert raw["dtype"] == raw["torch_dtype"] == "float16"
    theirs: Any = load_with_mlx_lm("half")
    for logits in (after.model(IDS), theirs[0](IDS)):
        assert logits.dtype == mx.float16
        assert np.allclose(np.array(logits.astype(mx.float32)), np.array(before.model(IDS)), atol=0.05)
    tinytale("export", "--dtype", "float16", "-o", "half.gguf")
    assert Path("half.gguf").stat().st_size < 0.7 * (Path("runs/base/model/model.safetensors").stat().st_size)


def test_an_adapter_becomes_part_of_the_weights(base: Path, tinytale: Callable[..., Any]):
    tune_base(base, "lora", "data.source=identity", "train.steps=3")
    assert tinytale("export", "lora", "-o", "one.gguf").code == 0
    assert tinytale("export", "base", "--adapter", "lora", "-o", "two.gguf").code == 0
    tinytale("fuse", "lora", "-o", "fused")
    assert tinytale("export", "fused", "-o", "three.gguf").code == 0
    one, two, three = (read(f"{name}.gguf")[0] for name in ("one", "two", "three"))
    name = "blk.1.ffn_down.weight"
    assert all(mx.array_equal(one[key], two[key]) and mx.array_equal(one[key], three[key]) for key in one)
    tinytale("export", "base", "-o", "none.gguf")
    assert not mx.array_equal(one[name], read("none.gguf")[0][name])
    assert tinytale("quantize", "lora", "-o", "small", "--group-size", "32").code == 0
    assert mx.allclose(stages.load("small").model(IDS), stages.load("lora").model(IDS), atol=1.0).item()


def test_quantized_weights_stay_so_or_are_unpacked(base: Path, tinytale: Callable[..., Any]):
    assert tinytale("quantize", "-o", "small", "--bits", "8").code == 0
    assert "which GGUF lacks; --dequantize" in tinytale("export", "small", "-o", "small.gguf").complaint
    kept = tinytale("export", "small", "--to", "hf", "-o", "kept", "--json").json
    assert kept["quantized"]
    assert "only MLX reads" in kept["text"]
    whole = tinytale("export", "small", "--to", "hf", "--dequantize", "-o", "whole", "--json").json
    assert (whole["quantized"], whole["text"]) == (False, "")
    assert "quantization" not in json.loads(Path("whole/config.json").read_text())
    logits = [stages.load(name).model(IDS) for name in ("small", "kept", "whole")]
    assert mx.array_equal(logits[0], logits[1])
    assert mx.allclose(logits[0], logits[2], atol=1e-3).item()
    assert tinytale("export", "small", "--dequantize", "-o", "small.gguf").code == 0


@pytest.mark.parametrize("form", ["hf", "gguf"])
@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"positions": "sinusoidal"}, "rotary positions only"),
        ({"distinct_layers": 1}, "no layers that share their weights"),
    ],
)
def test_what_no_other_program_has(
    form: str, changes: dict[str, Any], lacking: str, base: Path, tinytale: Callable[..., Any]
):
    loaded = stages.load("base")
    config = loaded.model.config.model_copy(update=changes)
    save_model(Path("own"), Transformer(config), loaded.tokenizer, loaded.settings, chat_template=False)
    said = tinytale("export", "own", "--to", form, "-o", "out").complaint
    assert "can't express this model" in said
    assert lacking in said
    assert not Path("out").exists()


def test_a_number_beyond_float16(base: Path, tinytale: Callable[..., Any]):
    loaded = stages.load("base")
    loaded.model.model.norm.weight[3] = 1e6
    save_model(Path("far"), loaded.model, loaded.tokenizer, loaded.settings, chat_template=False)
    for form in ("hf", "gguf"):
        said = tinytale("export", "far", "--to", form, "--dtype", "float16", "-o", "out").complaint
        assert "model.norm.weight holds more than 65,504" in said


REFUSED = [
    (["export", "--to", "onnx"], "there is no format 'onnx' to export to; there are hf and gguf"),
    (["export", "--dtype", "int8"], "there is no dtype 'int8'; there are float32, float16, bfloat16"),
    (["export", "--dtype", "bfloat16"], "MLX writes no bfloat16 into GGUF files; choose float32 or float16"),
    (["export", "nowhere"], "there is no run nowhere"),
    (["export", "--runs", "none"], "there is no run in none/ yet; `tinytale train` makes one"),
    (["export", "runs/base/model"], "is no run that the result could go into; say where with --output"),
    (["export", "--adapter", "nowhere", "-o", "out"], "there is no adapter nowhere"),
    (["export", "-o", "base.yaml/model.gguf"], "the model could not be written to base.yaml/model.gguf"),
    (["export", "--to", "hf", "-o", "base.yaml/model"], "base.yaml/model: Not a directory"),
    (["export", "-o", "base.yaml"], "base.yaml exists; choose another --output"),
    (["fuse", "nowhere"], "there is no run nowhere"),
    (["fuse", "runs/base/model"], "is no run that the result could go into; say where with --output"),
    (["fuse", "-o", "base.yaml"], "base.yaml exists; choose another --output"),
    (["quantize", "nowhere"], "there is no run nowhere"),
    (["quantize", "runs/base/model"], "is no run that the result could go into; say where with --output"),
    (["quantize", "--group-size", "7"], "group_size 7 is not among those of the mode affine: 32, 64, 128"),
    (["quantize", "--mode", "mxfp4", "--bits", "8"], "bits 8 is not among those of the mode mxfp4: 4"),
    (["quantize", "--budget", "nan"], "a budget is a number of bits per weight, and nan is none"),
    (["quantize", "--budget", "-3"], "a budget of -3.0 bits per weight is below the 4.5"),
    (["quantize", "--data", "nowhere.txt"], "nowhere.txt: there is no such file or folder"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=lambda one: " ".join(one) if isinstance(one, list) else "")
def test_refused(words: list[str], said: str, base: Path, tinytale: Callable[..., Any]):
    before = sorted(base.rglob("*"))
    assert said in tinytale(*words).complaint
    assert sorted(base.rglob("*")) == before


def test_what_can_not_be_fused(base: Path, tinytale: Callable[..., Any]):
    tune_base(base, "words", "data.source=identity", "train.steps=1", "tune.method=prompt")
    for command in ("export", "fuse", "quantize"):
        assert "a learned prompt is not part of any matrix" in tinytale(command, "words", "-o", "out").complaint
    tune_base(base, "lora", "data.source=identity", "train.steps=1")
    tune_base(base, "whole", "data.source=identity", "train.steps=2", "tune.method=full")
    for command in ("export", "fuse"):
        said = tinytale(command, "whole", "--adapter", "lora", "-o", "out").complaint
        assert "was trained on a model with the same shapes and other weights" in said
    assert not Path("out").exists()
