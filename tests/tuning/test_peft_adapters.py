"""PEFT's files: names, shapes, scales.

By hand, with PEFT 0.21.2 and transformers 5.23 in float32: it loads all six kinds of adapters of `test_there_and_back`
that we export, with logits within 7e-6 of ours; we load seven that it writes (LoRA, DoRA, rsLoRA, patterns, embedding,
modules_to_save, prompt) with logits within 9e-6 of its own.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tuned_models import IDS, equal, make_model, near, trained_adapter

from tinytale_mlx.errors import UserError
from tinytale_mlx.tuning.adapters import attach
from tinytale_mlx.tuning.peft import export_peft, import_peft

PATH = "model.layers.1.self_attn.q_proj"


def write(directory: Path, weights: dict[str, mx.array], **config: Any) -> Path:
    directory.mkdir(exist_ok=True)
    mx.save_safetensors(str(directory / "adapter_model.safetensors"), weights)
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 8, **config}))
    return directory


def normal(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": "dora"},
        {"rslora": True, "rank": 5, "alpha": 7.0},
        {"targets": ["q_proj", "embed_tokens", "lm_head"]},
        {"targets": ["q_proj"], "train_head": True, "train_final_norm": True},
        {"method": "prompt", "prompt_length": 6},
    ],
)
def test_there_and_back(settings: dict, tmp_path: Path) -> None:
    model = make_model(tie_embeddings=False)
    adapter = trained_adapter(model, **settings)
    export_peft(tmp_path / "peft", adapter, model, "my-model")
    config = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "my-model"
    again = import_peft(tmp_path / "peft", model)
    assert again.method == adapter.method
    assert again.weights.keys() == adapter.weights.keys()
    assert all(equal(again.weights[name], adapter.weights[name]) for name in adapter.weights)
    tuned = attach(model, adapter)
    logits = tuned.model(IDS)
    tuned.use(again)
    assert near(tuned.model(IDS), logits, 1e-6)


def test_names_and_shapes_are_peft_s(tmp_path: Path) -> None:
    model = make_model(tie_embeddings=False)
    adapter = trained_adapter(model, method="dora", rank=3, targets=["q_proj", "embed_tokens"])
    export_peft(tmp_path / "peft", adapter, model)
    found: Any = mx.load(str(tmp_path / "peft/adapter_model.safetensors"))
    shapes = {name: tuple(array.shape) for name, array in found.items() if "layers.1" in name or "embed" in name}
    assert shapes == {
        f"base_model.model.{PATH}.lora_A.weight": (3, 32),
        f"base_model.model.{PATH}.lora_B.weight": (32, 3),
        f"base_model.model.{PATH}.lora_magnitude_vector": (32,),
        "base_model.model.model.embed_tokens.lora_embedding_A": (3, 48),
        "base_model.model.model.embed_tokens.lora_embedding_B": (32, 3),
        "base_model.model.model.embed_tokens.lora_magnitude_vector": (48,),
    }


@pytest.mark.parametrize("rslora", [False, True])
def test_the_formula(rslora: bool, tmp_path: Path) -> None:
    """W + alpha / r B A, or alpha / √r, with an alpha and a rank of their own for some layers."""
    a, b, a2, b2 = normal(4, 32), normal(32, 4), normal(2, 32), normal(64, 2)
    up = "model.layers.0.mlp.up_proj"
    weights = {
        f"base_model.model.{PATH}.lora_A.weight": a,
        f"base_model.model.{PATH}.lora_B.weight": b,
        f"base_model.model.{up}.lora_A.weight": a2,
        f"base_model.model.{up}.lora_B.weight": b2,
    }
    config = {"r": 4, "use_rslora": rslora, "rank_pattern": {"up_proj": 2}, "alpha_pattern": {"up_proj": 6}}
    model, expected = make_model(), make_model()
    power = 0.5 if rslora else 1.0
    q, wide = expected.model.layers[1].self_attn.q_proj, expected.model.layers[0].mlp.up_proj
    q.weight = q.weight + 8 / 4**power * b @ a
    wide.weight = wide.weight + 6 / 2**power * b2 @ a2
    adapter = import_peft(write(tmp_path / "peft", weights, **config), model)
    assert near(attach(model, adapter).model(IDS), expected(IDS), 2e-5)
    assert adapter.rank == 4


def test_the_frozen_table_that_peft_writes_with_an_adapted_embedding_is_left_out(tmp_path: Path) -> None:
    name, model = "base_model.model.model.embed_tokens", make_model(tie_embeddings=False)
    weights = {f"{name}.lora_embedding_A": normal(2, 48), f"{name}.lora_embedding_B": normal(32, 2)}
    table = {f"{name}.base_layer.weight": model.model.embed_tokens.weight}
    adapter = import_peft(write(tmp_path / "peft", weights | table), model)
    assert set(adapter.weights) == {"model.embed_tokens.lora_a", "model.embed_tokens.lora_b"}
    expected = make_model(tie_embeddings=False)
    moved = expected.model.embed_tokens
    moved.weight = moved.weight + 8 / 2 * (weights[f"{name}.lora_embedding_B"] @ weights[f"{name}.lora_embedding_A"]).T
    assert near(attach(model, adapter).model(IDS), expected(IDS), 2e-5)


def test_tied_embeddings_are_refused(tmp_path: Path) -> None:
    """PEFT adapts the lookup and not the head that shares its table: other logits, silently."""
    untied, tied = make_model(tie_embeddings=False), make_model()
    adapter = trained_adapter(untied, targets=["embed_tokens"])
    export_peft(tmp_path / "peft", adapter, untied)
    with pytest.raises(UserError, match="PEFT adapts only the lookup"):
        import_peft(tmp_path / "peft", tied)
    with pytest.raises(UserError, match="PEFT adapts only the lookup"):
        export_peft(tmp_path / "other", trained_adapter(tied, targets=["embed_tokens"]), tied)


def test_what_we_lack_is_said(tmp_path: Path) -> None:
    weights = {
        f"base_model.model.{PATH}.lora_A.weight": normal(4, 32),
        f"base_model.model.{PATH}.lora_B.weight": normal(32, 4),
    }
    model = make_model()
    for wrong in ({"peft_type": "IA3"}, {"bias": "all"}, {"fan_in_fan_out": True}, {"alora_invocation_tokens": [3]}):
        with pytest.raises(UserError, match="tinytale"):
            import_peft(write(tmp_path / "peft", weights, **wrong), model)
    with pytest.raises(UserError, match="has no update in it"):
        import_peft(write(tmp_path / "peft", {"x": mx.ones((1,))}), model)
    with pytest.raises(UserError, match=r"there is no adapter_config\.json"):
        import_peft(tmp_path / "nowhere", model)
    for method in ("full", "prefix"):
        with pytest.raises(UserError, match=f"no adapters of the method {method}"):
            export_peft(tmp_path / "out", trained_adapter(model, method=method), model)
