"""What fine-tuning, fusing and quantizing leave behind, read by mlx-lm: the same greedy tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from bases import train_base, tune_base
from mlx_lm import load as load_with_mlx_lm
from mlx_lm.generate import generate_step

from tinytale_mlx import stages
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.recipe.tuning import QuantizeRecipe

ASKED = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs base, lora and qlora, and the directories fused, refused, unpacked, small and mixed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    train_base(folder, "model.intermediate_size=128", "train.steps=25")
    for name, keys in (("lora", []), ("qlora", ["tune.quantize={}"])):
        tune_base(folder, name, "data.source=identity", "train.steps=12", *keys)
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def ours(loaded: stages.Loaded) -> list[int]:
    return stages.generate(loaded, ASKED, temperature=0, max_new_tokens=10).tokens


def theirs(path: str, prompt: list[int], adapter: str | None = None) -> list[int]:
    found: Any = load_with_mlx_lm(path, adapter_path=adapter)
    steps = generate_step(mx.array(prompt), found[0], max_tokens=10)
    return [int(token) for token, _ in steps]


def prefix_of(short: list[int], long: list[int]) -> bool:
    """Ours end with the answer."""
    return bool(short) and long[: len(short)] == short


def test_mlx_lm_reads_the_adapter():
    loaded = stages.load("lora")
    prompt = loaded.encode(ASKED)
    assert prefix_of(ours(loaded), theirs("runs/base/model", prompt, "runs/lora/adapter"))
    found: Any = load_with_mlx_lm("runs/base/model", adapter_path="runs/lora/adapter")
    ids = mx.array([prompt])
    assert mx.allclose(found[0](ids), loaded.model(ids), atol=1e-4).item()
    assert not mx.allclose(found[0](ids), stages.load("base").model(ids), atol=1e-2).item()


def test_a_fused_model_writes_what_base_and_adapter_write():
    made = stages.fuse_adapter("lora", Path("fused"))
    assert made["changed"] > 0
    assert made["rounded"] < 1e-6
    loaded = stages.load("fused")
    assert loaded.can_chat
    assert ours(loaded) == ours(stages.load("lora"))
    assert prefix_of(ours(loaded), theirs("fused", loaded.encode(ASKED)))
    ids = mx.array([loaded.encode(ASKED)])
    assert mx.allclose(loaded.model(ids), stages.load("lora").model(ids), atol=1e-4).item()


def test_fusing_into_a_quantized_base_says_what_it_costs():
    again = stages.fuse_adapter("qlora", Path("refused"))
    assert again["quantized"]
    assert again["rounded"] > 0.01
    assert "rounding them again by" in again["text"]
    whole = stages.fuse_adapter("qlora", Path("unpacked"), unpack=True)
    assert not whole["quantized"]
    assert whole["rounded"] < 1e-6
    assert ours(stages.load("unpacked")) == ours(stages.load("qlora"))
    for name in ("refused", "unpacked"):
        loaded = stages.load(name)
        assert prefix_of(ours(loaded), theirs(name, loaded.encode(ASKED)))


@pytest.mark.parametrize("form", [{}, {"bits": 8, "group_size": 32}, {"mode": "mxfp4"}, {"mode": "nvfp4"}])
def test_a_quantized_model_loads_in_mlx_lm(form: dict[str, Any]):
    name = "small" + "".join(map(str, form.values()))
    made = stages.quantize_model("base", Path(name), QuantizeRecipe(**form))
    assert made["after"]["bytes"] < 0.5 * made["before"]["bytes"]
    assert made["after"]["perplexity"] == pytest.approx(made["before"]["perplexity"], rel=0.15)
    assert made["before"]["loss"] == pytest.approx(stages.score_held_out("base").loss, abs=1e-6)
    loaded = stages.load(name)
    assert prefix_of(ours(loaded), theirs(name, loaded.encode(ASKED)))


def test_mixed_precision_stays_within_its_budget():
    made = stages.quantize_model("base", Path("mixed"), QuantizeRecipe(bits=2), QuantizeRecipe(bits=8), budget=5.0)
    bits = made["layers"].values()
    assert set(bits) == {2, 8}
    alone = stages.quantize_model("base", Path("two"), QuantizeRecipe(bits=2))
    assert made["after"]["loss"] < alone["after"]["loss"]
    assert prefix_of(ours(stages.load("mixed")), theirs("mixed", stages.load("mixed").encode(ASKED)))


def make_qwen2(path: Path) -> None:
    """A directory of an architecture that tinytale lacks, with the base's tokenizer."""
    from mlx_lm.models.qwen2 import Model, ModelArgs

    config = {
        "model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
        "num_attention_heads": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 512,
        "tie_word_embeddings": True, "max_position_embeddings": 64, "eos_token_id": 3,
    }  # fmt: skip
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(config))
    path.mkdir()
    mx.save_safetensors(str(path / "model.safetensors"), dict(named_arrays(model.parameters())))
    (path / "config.json").write_text(json.dumps(config))
    for file in Path("runs/base/data/tokenizer").iterdir():
        shutil.copy2(file, path)


def test_a_model_of_mlx_lm_is_tuned_fused_and_quantized():
    make_qwen2(Path("qwen2"))
    stages.finetune(stages.finetune_recipe("qwen2", ["data.source=identity", "train.steps=12"]), "on-qwen2")
    loaded = stages.load("on-qwen2")
    assert type(loaded.model).__module__ == "mlx_lm.models.qwen2"
    prompt = loaded.encode(ASKED)
    written = ours(loaded)
    assert prefix_of(written, theirs("qwen2", prompt, "runs/on-qwen2/adapter"))
    stages.fuse_adapter("on-qwen2", Path("qwen2-fused"))
    fused = stages.load("qwen2-fused")
    assert fused.encode(ASKED) == prompt
    assert prefix_of(ours(fused), theirs("qwen2-fused", prompt))
    stages.quantize_model("qwen2-fused", Path("qwen2-small"), QuantizeRecipe())
    assert prefix_of(ours(stages.load("qwen2-small")), theirs("qwen2-small", prompt))
