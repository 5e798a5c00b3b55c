"""Adapters on the disk: mlx-lm reads ours and computes the same, we read its, and damage is said in one sentence."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tuned_models import IDS, adapter_for, equal, make_llama, make_model, near, trained_adapter

from tinytale_mlx import disk
from tinytale_mlx.errors import UserError
from tinytale_mlx.interop.huggingface import save_model
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe
from tinytale_mlx.recipe.tuning import QuantizeRecipe
from tinytale_mlx.tokenizers import CharTokenizer
from tinytale_mlx.tuning.adapter_files import load_adapter, save_adapter
from tinytale_mlx.tuning.adapters import attach
from tinytale_mlx.tuning.merging import fuse
from tinytale_mlx.tuning.quantize import quantize, uniform

PROMPT = [1, 5, 9, 33, 2, 7, 7, 21]
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora_last_layers": {"rslora": True, "alpha": 3.0, "layers": 2, "rank": 5},
    "embedding_too": {"targets": ["q_proj", "embed_tokens"], "layers": 1},
    "one_layer_of_three": {"targets": ["model.layers.0.mlp.up_proj"]},
    "dora": {"method": "dora"},
    "dora_embedding": {"method": "dora", "targets": ["*"]},
    "full": {"method": "full"},
    "full_last_layer": {"method": "full", "layers": 1, "train_final_norm": True},
}


@pytest.fixture(scope="module")
def tokenizer() -> CharTokenizer:
    return CharTokenizer.train("abcdefghijklmnopqrstuvwxyz .,!\n?")


def write(directory: Path, model: Transformer, tokenizer: CharTokenizer) -> str:
    save_model(directory, model, tokenizer, GenerateRecipe(), chat_template=False)
    return str(directory)


def greedy(model: Any, count: int = 12) -> list[int]:
    ids = list(PROMPT)
    for _ in range(count):
        ids.append(int(np.argmax(np.array(model(mx.array([ids]))[0, -1]))))
    return ids[-count:]


def mlx_lm_greedy(model: Any, tokenizer: Any, count: int = 12) -> list[int]:
    steps = mlx_lm.stream_generate(model, tokenizer, prompt=PROMPT, max_tokens=count)
    return [step.token for step in steps]


# ---------------------------------------------------------------------- mlx-lm
@pytest.mark.parametrize("name", SETTINGS)
def test_mlx_lm_reads_ours(name: str, tokenizer: CharTokenizer, tmp_path: Path) -> None:
    model = make_model(tie_embeddings="embed" in name)
    path = write(tmp_path / "model", model, tokenizer)
    adapter = trained_adapter(model, **SETTINGS[name])
    save_adapter(tmp_path / "adapter", adapter)
    ours = attach(model, adapter).model
    theirs, their_tokenizer = mlx_lm.load(path, adapter_path=str(tmp_path / "adapter"))[:2]
    assert near(theirs(IDS), ours(IDS), 2e-5)
    tokens = mlx_lm_greedy(theirs, their_tokenizer)
    assert tokens == greedy(ours)[: len(tokens)]
    assert len(tokens) == 12 or tokens[-1] == tokenizer.eos_id


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_mlx_lm_reads_an_adapter_of_a_quantized_base(method: str, tokenizer: CharTokenizer, tmp_path: Path) -> None:
    model = make_model()
    quantize(model, uniform(model, QuantizeRecipe(group_size=32)))
    path = write(tmp_path / "model", model, tokenizer)
    adapter = trained_adapter(model, method=method)
    save_adapter(tmp_path / "adapter", adapter)
    theirs, their_tokenizer = mlx_lm.load(path, adapter_path=str(tmp_path / "adapter"))[:2]
    ours = attach(model, adapter).model
    assert near(theirs(IDS), ours(IDS), 2e-5)
    tokens = mlx_lm_greedy(theirs, their_tokenizer)
    assert tokens == greedy(ours)[: len(tokens)]


@pytest.mark.parametrize("settings", [{"targets": ["q_proj"], "train_final_norm": True}, {"method": "prompt"}])
def test_what_mlx_lm_cannot_express_it_refuses(settings: dict, tokenizer: CharTokenizer, tmp_path: Path) -> None:
    """Rather than to leave out half of it."""
    model = make_model()
    path = write(tmp_path / "model", model, tokenizer)
    save_adapter(tmp_path / "adapter", trained_adapter(model, **settings))
    with pytest.raises((ValueError, AttributeError, KeyError)):
        mlx_lm.load(path, adapter_path=str(tmp_path / "adapter"))


@pytest.mark.parametrize("dora", [False, True])
def test_we_read_mlx_lm_s(dora: bool, tmp_path: Path) -> None:
    """As its trainer writes them: relative keys, the last layers, the scale 20."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model, theirs = make_llama(), make_llama()
    parameters = {"rank": 4, "scale": 20.0, "dropout": 0.1, "keys": ["self_attn.q_proj", "mlp.up_proj"]}
    theirs.freeze()
    linear_to_lora_layers(theirs, 2, parameters, use_dora=dora)
    theirs.eval()
    weights = {
        n: a + 0.02 * mx.random.normal(a.shape) for n, a in dict(tree_flatten(theirs.trainable_parameters())).items()
    }
    theirs.load_weights(list(weights.items()), strict=False)
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), weights)
    config = {"fine_tune_type": "dora" if dora else "lora", "num_layers": 2, "lora_parameters": parameters}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter = load_adapter(tmp_path)
    assert (adapter.rank, adapter.scale, adapter.dropout, len(adapter.paths)) == (4, 20.0, 0.1, 4)
    assert near(attach(model, adapter).model(IDS), theirs(IDS), 2e-5)


# ---------------------------------------------------------------------- there and back
@pytest.mark.parametrize("name", SETTINGS)
def test_saved_loaded_merged_unmerged(name: str, tmp_path: Path) -> None:
    model, again = make_model(tie_embeddings="embed" in name), make_model(tie_embeddings="embed" in name)
    tuned = attach(model, trained_adapter(model, **SETTINGS[name]))
    unmerged = tuned.model(IDS)
    save_adapter(tmp_path / "adapter", tuned.adapter())
    loaded = attach(again, load_adapter(tmp_path / "adapter"))
    assert equal(loaded.model(IDS), unmerged)
    assert loaded.adapter().base == tuned.adapter().base is not None
    merged, _ = fuse(loaded)
    assert near(merged(IDS), unmerged, 1e-5)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_learned_prompts_too(method: str, tmp_path: Path) -> None:
    model, again = make_model(), make_model()
    tuned = attach(model, trained_adapter(model, method=method, prompt_length=4))
    save_adapter(tmp_path / "adapter", tuned.adapter())
    assert equal(attach(again, load_adapter(tmp_path / "adapter")).model(IDS), tuned.model(IDS))


def test_an_adapter_for_another_base_is_refused_after_loading(tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", trained_adapter(make_model(seed=1)))
    with pytest.raises(UserError, match="the same shapes and other weights"):
        attach(make_model(seed=2), load_adapter(tmp_path / "adapter"))


def test_equal_adapters_are_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_adapter(tmp_path / name, trained_adapter(make_model()))
    for file in ("adapters.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


# ---------------------------------------------------------------------- what goes wrong
@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_adapter(tmp_path / "adapter", adapter_for(make_model()))
    return tmp_path / "adapter"


def refusal(directory: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_adapter(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)
    return str(caught.value)


def edit(directory: Path, **changes: Any) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("file", ["adapters.safetensors", "adapter_config.json"])
def test_missing_and_damaged(saved: Path, file: str) -> None:
    content = (saved / file).read_bytes()
    (saved / file).write_bytes(content[:50])
    assert "is damaged" in refusal(saved)
    (saved / file).unlink()
    assert f"there is no {file}" in refusal(saved)


def test_a_truncated_file(saved: Path) -> None:
    file = saved / "adapters.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "is damaged" in refusal(saved)


def test_nonsense_in_the_configuration(saved: Path) -> None:
    edit(saved, fine_tune_type="magic")
    assert "'magic' is not one of full, lora, dora, prompt, prefix" in refusal(saved)
    edit(saved, fine_tune_type="lora", lora_parameters={"scale": "much"})
    assert "should be numbers" in refusal(saved)
    (saved / "adapter_config.json").write_text("[]")
    assert "should hold one JSON object" in refusal(saved)


def test_rank_0(saved: Path) -> None:
    mx.save_safetensors(str(saved / "adapters.safetensors"), {"model.norm.weight": mx.ones((32,))})
    assert "has rank 0" in refusal(saved)


def test_pickled_adapters_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "there is no adapters.safetensors" in refusal(tmp_path)


def test_a_second_save_replaces_the_first_and_nothing_else(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_adapter(saved, adapter_for(make_model(), rank=3))
    assert load_adapter(saved).rank == 3
    monkeypatch.setattr(
        disk, "replace_folder", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(UserError, match="could not be written"):
        save_adapter(saved, adapter_for(make_model(), rank=2))
    monkeypatch.undo()
    assert load_adapter(saved).rank == 3
    assert [path.name for path in saved.parent.iterdir()] == ["adapter"]
    (saved.parent / "thesis").mkdir()
    (saved.parent / "thesis/page").write_text("")
    with pytest.raises(UserError, match="holds something that is no adapter"):
        save_adapter(saved.parent / "thesis", adapter_for(make_model()))
