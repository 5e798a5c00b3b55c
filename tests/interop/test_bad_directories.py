"""What goes wrong with a model directory is said in one sentence, and nothing is lost by it."""

import json
from pathlib import Path

import mlx.core as mx
import pytest

from tinytale_mlx import disk
from tinytale_mlx.errors import UserError
from tinytale_mlx.interop import huggingface
from tinytale_mlx.interop.huggingface import load_config, load_model, save_model
from tinytale_mlx.recipe import GenerateRecipe
from tinytale_mlx.tokenizers import Tokenizer

GENERATION = GenerateRecipe()


@pytest.fixture
def saved(tmp_path: Path, make, tokenizer: Tokenizer) -> Path:
    save_model(tmp_path / "model", make(), tokenizer, GENERATION, chat_template=False)
    return tmp_path / "model"


def refusal(directory: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(directory)
    message = str(caught.value)
    assert "\n" not in message
    assert str(directory) in message
    return message


def change_weights(directory: Path, **changes: mx.array | None) -> None:
    file = str(directory / "model.safetensors")
    loaded = mx.load(file)
    assert isinstance(loaded, dict)
    weights = {**loaded, **{name.replace("__", "."): array for name, array in changes.items()}}
    mx.save_safetensors(file, {name: array for name, array in weights.items() if array is not None})


# ---------------------------------------------------------------------- reading
def test_no_such_directory(tmp_path: Path) -> None:
    assert "holds no model: there is no config.json" in refusal(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"there is no config\.json"):
        load_config(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"llama"'])
def test_damaged_config(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text)
    assert "config.json is damaged" in refusal(saved)


@pytest.mark.parametrize("own", [{}, {"hidden_size": 32}, [], {"layres": 3}])
def test_damaged_configuration_of_ours(saved: Path, own: object) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "tinytale": own}))
    assert "config.json: " in refusal(saved)


def test_unknown_architecture(saved: Path) -> None:
    (saved / "config.json").write_text('{"model_type": "mamba"}')
    assert "'mamba'; supported are llama, qwen3, gpt2, nanochat" in refusal(saved)
    (saved / "config.json").write_text("{}")
    assert "tinytale has no architecture None" in refusal(saved)


def test_quantized(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "quantization": {"bits": 4, "group_size": 32}}))
    assert "quantized" in refusal(saved)


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_truncated_weights(saved: Path, kept: int) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert "model.safetensors can't be read" in refusal(saved)


def test_no_weights_and_pickled_ones(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert "holds no weights" in refusal(saved)
    (saved / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    assert "are pickled, and reading those can run any code" in refusal(saved)


def test_weights_that_do_not_fit(saved: Path) -> None:
    many = {f"more__{i}": mx.zeros((1,)) for i in range(6)}
    change_weights(saved, model__norm__weight=None, model__embed_tokens__weight=mx.zeros((41, 32)), **many)
    message = refusal(saved)
    assert "missing: model.norm.weight;" in message
    assert "unexpected: more.0, more.1, more.2, more.3 and 2 more;" in message
    assert message.endswith("of the wrong shape: model.embed_tokens.weight is [41, 32] instead of [40, 32]")


@pytest.mark.parametrize("kind", ["gpt2", "nanochat"])
def test_wrong_shapes_of_rearranged_weights(kind: str, make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    gpt2 = {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "intermediate_size": 128}
    nanochat = {"activation": "relu2", "qk_norm": True, "embedding_norm": True, "norm_weight": False,
                "tie_embeddings": False, "logit_softcap": 15.0}  # fmt: skip
    model = make(**{"gpt2": gpt2, "nanochat": nanochat}[kind])
    save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
    name = {"gpt2": "h__0__attn__c_attn__weight", "nanochat": "transformer__h__0__attn__c_q__weight"}[kind]
    change_weights(tmp_path / "model", **{name: mx.zeros((31, 31))})
    assert "q_proj.weight is [31, 31] instead of [32, 32]" in refusal(tmp_path / "model")


def test_a_bias_that_is_not_zero_is_not_dropped(make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Somebody trained the biases that we wrote as zeros: our configuration without them no longer holds."""
    model = make(positions="learned", norm="layernorm", activation="gelu_tanh", intermediate_size=128)
    save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
    change_weights(tmp_path / "model", h__1__mlp__c_fc__bias=mx.ones((128,)))
    assert "unexpected: model.layers.1.mlp.up_proj.bias" in refusal(tmp_path / "model")


def test_an_index_cannot_point_outside(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").rename(tmp_path / "secret.safetensors")
    (saved / huggingface.INDEX).write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    assert "secret.safetensors is missing" in refusal(saved)
    (saved / huggingface.INDEX).write_text('{"weight_map": {"a": 3}}')
    assert "damaged" in refusal(saved)


# ---------------------------------------------------------------------- writing
def test_every_file_is_flushed_before_the_swap(
    make, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(disk, "flush", lambda path: flushed.append(path.name))
    save_model(tmp_path / "model", make(), tokenizer, GENERATION, chat_template=True)
    assert {path.name for path in (tmp_path / "model").iterdir()} <= set(flushed[:-2])
    assert flushed[-2:] == [".model.tmp", tmp_path.name]


def test_a_second_save_replaces_the_first(saved: Path, make, tokenizer: Tokenizer) -> None:
    save_model(saved, make(qk_norm=True), tokenizer, GENERATION, chat_template=True)
    assert load_config(saved).qk_norm
    save_model(saved, make(), tokenizer, GENERATION, chat_template=False)
    assert not (saved / "chat_template.jinja").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("culprit", ["save_safetensors", "rename", "fsync"])
def test_a_full_disk_leaves_the_old_model(
    saved: Path, make, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, culprit: str
) -> None:
    original = getattr(mx if culprit == "save_safetensors" else disk.os, culprit)

    def fail(*args: object, **kwargs: object) -> None:
        if culprit == "rename" and Path(str(args[0])).name != ".model.tmp":
            return original(*args)
        if culprit == "save_safetensors":
            Path(str(args[0])).write_bytes(b"half")
            raise RuntimeError("[write] Unable to write 20092 bytes to file.")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mx if culprit == "save_safetensors" else disk.os, culprit, fail)
    with pytest.raises(UserError, match=r"the model could not be written to .*model: "):
        save_model(saved, make(qk_norm=True), tokenizer, GENERATION, chat_template=False)
    monkeypatch.undo()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert not load_model(saved)[1].qk_norm


def test_other_people_s_files_are_not_replaced(make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    save_model(tmp_path / "thesis", make(), tokenizer, GENERATION, chat_template=False)  # empty: fine
    (tmp_path / "thesis/config.json").write_text("{}")
    with pytest.raises(UserError, match="holds something that tinytale did not write"):
        save_model(tmp_path / "thesis", make(), tokenizer, GENERATION, chat_template=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="holds something that tinytale did not write"):
        save_model(tmp_path / "file", make(), tokenizer, GENERATION, chat_template=False)


def test_more_tokens_than_rows(make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer has 40 tokens and the model only 39"):
        save_model(tmp_path / "model", make(vocab_size=39), tokenizer, GENERATION, chat_template=False)
