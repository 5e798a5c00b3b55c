"""Model directories: mlx-lm computes with them what we do, and we get back what we saved."""

import json
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tinytale_mlx.errors import UserError
from tinytale_mlx.interop import huggingface
from tinytale_mlx.interop.huggingface import load_config, load_model, save_model
from tinytale_mlx.interop.layouts import layout_of
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe
from tinytale_mlx.tokenizers import CharTokenizer, Tokenizer, load_tokenizer

GENERATION = GenerateRecipe(max_new_tokens=9, temperature=0.7, top_k=5, top_p=0.9)
PROMPT = [1, 5, 9, 33, 2, 7, 7, 21, 30, 12, 39, 0, 16]
IDS = mx.array([PROMPT])


@pytest.fixture
def saved(tmp_path: Path, make, tokenizer: Tokenizer) -> Path:
    """A Llama."""
    save_model(tmp_path / "model", make(), tokenizer, GENERATION, chat_template=False)
    return tmp_path / "model"


def edit(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; a value of None removes the key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def same(a: mx.array, b: mx.array, tolerance: float = 1e-5) -> bool:
    """Up to this share of the largest element."""
    return a.shape == b.shape and bool((mx.abs(a - b).max() <= tolerance * mx.abs(a).max()).item())


def stored(directory: Path) -> dict[str, mx.array]:
    found = mx.load(str(directory / "model.safetensors"))
    assert isinstance(found, dict)
    return found


def greedy(model: Transformer, ids: list[int], count: int) -> list[int]:
    for _ in range(count):
        ids = [*ids, int(np.argmax(np.array(model(mx.array([ids]))[0, -1])))]
    return ids[-count:]


# ---------------------------------------------------------------------- every layout
def test_mlx_lm_computes_the_same(sample, tokenizer: Tokenizer, tmp_path: Path) -> None:
    name, model = sample
    if name == "own":
        pytest.skip("mlx-lm has no such architecture")
    assert layout_of(model.config).model_type == name
    save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
    theirs, their_tokenizer = mlx_lm.load(str(tmp_path / "model"))[:2]
    assert same(model(IDS), theirs(IDS))
    steps = mlx_lm.stream_generate(theirs, their_tokenizer, prompt=PROMPT, max_tokens=12)
    tokens = [step.token for step in steps]
    assert tokens == greedy(model, PROMPT, 12)[: len(tokens)]
    assert len(tokens) == 12 or tokens[-1] == tokenizer.eos_id


def test_we_get_back_what_we_saved(sample, tokenizer: Tokenizer, tmp_path: Path) -> None:
    _, model = sample
    save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
    loaded, config = load_model(tmp_path / "model")
    assert config == model.config == loaded.config == load_config(tmp_path / "model")
    before, after = dict(tree_flatten(model.parameters())), dict(tree_flatten(loaded.parameters()))
    assert before.keys() == after.keys()
    assert all(mx.array_equal(before[name], after[name]).item() for name in before)
    assert load_tokenizer(tmp_path / "model").fingerprint == tokenizer.fingerprint


def test_a_stranger_s_directory_computes_the_same(sample, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Without our own key, the configuration is read from the layout's keys."""
    name, model = sample
    save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
    edit(tmp_path / "model/config.json", tinytale=None)
    if name == "own":
        with pytest.raises(UserError, match='model_type tinytale goes with a key "tinytale"'):
            load_model(tmp_path / "model")
        return
    loaded, config = load_model(tmp_path / "model")
    assert load_config(tmp_path / "model") == config
    assert same(model(IDS), loaded(IDS), 1e-6)
    assert layout_of(config).model_type == name


def test_16_bit_weights_stay_so(make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make()
    model.set_dtype(mx.bfloat16)
    save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
    assert json.loads((tmp_path / "model/config.json").read_text())["dtype"] == "bfloat16"
    weights = dict(tree_flatten(load_model(tmp_path / "model")[0].parameters()))
    assert {array.dtype for array in weights.values()} == {mx.bfloat16}


# ---------------------------------------------------------------------- other writers
def test_transformers_5_writes_rope_parameters_only(make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make(rope_theta=50000.0)
    save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
    edit(tmp_path / "model/config.json", tinytale=None, rope_theta=None)
    assert load_config(tmp_path / "model").rope_theta == 50000.0


@pytest.mark.parametrize("tied", [True, False])
def test_weights_say_whether_they_are_tied(make, tokenizer: Tokenizer, tmp_path: Path, tied: bool) -> None:
    save_model(tmp_path / "model", make(tie_embeddings=tied), tokenizer, GENERATION, chat_template=False)
    edit(tmp_path / "model/config.json", tinytale=None, tie_word_embeddings=None)
    assert load_model(tmp_path / "model")[1].tie_embeddings is tied
    assert load_config(tmp_path / "model").tie_embeddings is tied


@pytest.mark.parametrize("prefix", ["transformer.", "model."])
def test_gpt2_with_the_names_of_transformers_and_of_mlx_lm(sample_gpt2, prefix: str) -> None:
    directory, model = sample_gpt2
    file = directory / "model.safetensors"
    weights = {
        prefix + name: array.T if prefix == "model." and ".c_" in name else array
        for name, array in stored(directory).items()
    }
    weights[f"{prefix}h.0.attn.bias"] = mx.zeros((1, 1, 64, 64))  # the mask, as early checkpoints have it
    mx.save_safetensors(str(file), weights)
    assert same(model(IDS), load_model(directory)[0](IDS), 1e-6)


@pytest.fixture
def sample_gpt2(tmp_path: Path, make, tokenizer: Tokenizer) -> tuple[Path, Transformer]:
    model = make(positions="learned", norm="layernorm", activation="gelu_tanh", intermediate_size=128)
    save_model(tmp_path / "model", model, tokenizer, GENERATION, chat_template=False)
    return tmp_path / "model", model


def test_redundant_arrays_of_llama_are_passed_over(saved: Path) -> None:
    before = load_model(saved)[0](IDS)
    weights = stored(saved)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = mx.ones((4,))
    mx.save_safetensors(str(saved / "model.safetensors"), weights)
    assert mx.array_equal(load_model(saved)[0](IDS), before).item()


@pytest.mark.parametrize("index", [True, False])
def test_shards(saved: Path, index: bool) -> None:
    before = load_model(saved)[0](IDS)
    weights = stored(saved)
    names, shards = sorted(weights), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for shard, part in zip(shards, (names[:5], names[5:]), strict=True):
        mx.save_safetensors(str(saved / shard), {name: weights[name] for name in part})
    (saved / "model.safetensors").unlink()
    if index:
        where = {name: shards[position >= 5] for position, name in enumerate(names)}
        (saved / huggingface.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert mx.array_equal(load_model(saved)[0](IDS), before).item()
    (saved / shards[1]).unlink()
    with pytest.raises(UserError, match="safetensors is missing" if index else "missing: model"):
        load_model(saved)


def test_mlx_lm_s_own_copy_is_read(sample_gpt2, tmp_path: Path) -> None:
    """`utils.save` is what its convert and fuse end with; it renames GPT-2's weights and keeps our key."""
    directory, model = sample_gpt2
    theirs, tokenizer, config = mlx_lm.load(str(directory), return_config=True)  # type: ignore[misc]
    mlx_lm.utils.save(tmp_path / "copy", directory, theirs, tokenizer, config)
    assert same(model(IDS), load_model(tmp_path / "copy")[0](IDS), 1e-6)
    assert load_config(tmp_path / "copy") == model.config


# ---------------------------------------------------------------------- the other files
def test_plain_model_s_files(saved: Path, tokenizer: Tokenizer) -> None:
    names = {file.name for file in saved.iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                     "tokenizer_config.json"}  # fmt: skip
    generation = json.loads((saved / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "do_sample": True,
                          "temperature": 0.7, "top_k": 5, "top_p": 0.9, "max_new_tokens": 9}  # fmt: skip
    config = json.loads((saved / "config.json").read_text())
    assert config["vocab_size"] == tokenizer.vocab_size == 40
    assert (config["eos_token_id"], config["dtype"], config["torch_dtype"]) == (3, "float32", "float32")
    assert (config["tie_word_embeddings"], config["rope_theta"]) == (True, 10000.0)
    assert json.loads((saved / "tokenizer_config.json").read_text())["model_max_length"] == 64


def test_chat_model_ends_at_the_end_of_its_turn(make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    greedy_decoding = GenerateRecipe(temperature=0.0)
    save_model(tmp_path / "model", make(), tokenizer, greedy_decoding, chat_template=True)
    generation = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert generation["eos_token_id"] == [3, tokenizer.special_ids["<|im_end|>"]]
    assert generation["do_sample"] is False
    assert "temperature" not in generation
    _, theirs = mlx_lm.load(str(tmp_path / "model"))[:2]
    assert theirs.eos_token_ids == {3, 5}
    messages = [{"role": "user", "content": "hi"}]
    assert "<|im_start|>user\nhi" in theirs.apply_chat_template(messages, tokenize=False)


def test_a_chat_model_needs_the_markers(make, tmp_path: Path) -> None:
    plain = CharTokenizer.train("abc", special_tokens=[])
    with pytest.raises(UserError, match=r"no <\|im_end\|> token"):
        save_model(tmp_path / "model", make(), plain, GENERATION, chat_template=True)
    assert not list(tmp_path.iterdir())
