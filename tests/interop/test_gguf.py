"""A GGUF file: its arrays and numbers as MLX reads them back, by llama.cpp's names and in its order of rows."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.interop.gguf import save_gguf
from tinytale_mlx.models import Transformer
from tinytale_mlx.models.positions import rope_wavelengths
from tinytale_mlx.tokenizers import ByteBPE
from tinytale_mlx.tokenizers.base import Tokenizer

LLAMA3 = {"type": "llama3", "factor": 4.0, "original_context": 32}
WHOLE = {"llama", "qwen3", "gpt2"}
GPT2 = {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "intermediate_size": 128}


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    with pytest.warns(UserWarning, match="no more pairs"):
        return ByteBPE.train(["the cat went home and the dog went home"] * 2, 290)


def written(path: Path, model: Transformer, tokenizer: Tokenizer, **options: Any) -> tuple[dict, dict]:
    """Arrays, and metadata as plain values."""
    save_gguf(path / "model.gguf", model, tokenizer, name="tale", **options)
    assert [file.name for file in path.iterdir()] == ["model.gguf"]
    arrays, metadata = mx.load(str(path / "model.gguf"), return_metadata=True)  # pyright: ignore
    return arrays, {key: value.tolist() if isinstance(value, mx.array) else value for key, value in metadata.items()}


def test_numbers_of_a_llama(make, bpe: Tokenizer, tmp_path: Path) -> None:
    model = make(vocab_size=300, kv_heads=2, head_dim=12, rope_theta=5e4, norm_eps=1e-3)
    _, found = written(tmp_path, model, bpe)
    assert found["general.architecture"] == "llama"
    assert found["general.name"] == "tale"
    assert found["general.file_type"] == 0
    assert {key.removeprefix("llama."): value for key, value in found.items() if key.startswith("llama.")} == {
        "vocab_size": 300,
        "context_length": 64,
        "embedding_length": 32,
        "block_count": 2,
        "feed_forward_length": 48,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 12,
        "attention.value_length": 12,
        "attention.layer_norm_rms_epsilon": pytest.approx(1e-3),
        "rope.dimension_count": 12,
        "rope.freq_base": 5e4,
    }


def turned(rows: mx.array, positions: mx.array, neighbours: bool) -> np.ndarray:
    """Heads [T, size] turned by RoPE, in pairs of neighbours or of halves."""
    size = rows.shape[1]
    angles = positions[:, None] / rope_wavelengths(size, 1e4, None)
    first, second = (rows[:, 0::2], rows[:, 1::2]) if neighbours else (rows[:, : size // 2], rows[:, size // 2 :])
    parts = first * mx.cos(angles) - second * mx.sin(angles), first * mx.sin(angles) + second * mx.cos(angles)
    return np.array(mx.concatenate(parts, axis=1))


def test_rows_of_a_llama_are_in_the_order_in_which_neighbours_turn(make, bpe: Tokenizer, tmp_path: Path) -> None:
    model = make(vocab_size=300, kv_heads=2, attention_bias=True)
    arrays, _ = written(tmp_path, model, bpe)
    x, positions = mx.random.normal((6, 32), key=mx.random.key(1)), mx.arange(6)
    scores = {}
    for neighbours in (False, True):
        attention: Any = model.model.layers[1].self_attn
        heads = []
        for letter, part in (("q", attention.q_proj), ("k", attention.k_proj)):
            weight, bias = part.weight, part.bias
            if neighbours:
                weight, bias = (arrays[f"blk.1.attn_{letter}.{kind}"] for kind in ("weight", "bias"))
            heads.append(turned((x @ weight.T + bias)[:, 8:16], positions, neighbours))
        scores[neighbours] = heads[0] @ heads[1].T
    assert np.allclose(scores[True], scores[False], atol=1e-5)
    assert mx.array_equal(arrays["blk.1.attn_v.weight"], model.model.layers[1].self_attn.v_proj.weight)


def test_rows_of_a_qwen3_stay(make, bpe: Tokenizer, tmp_path: Path) -> None:
    model = make(vocab_size=300, qk_norm=True, tie_embeddings=False)
    arrays, found = written(tmp_path, model, bpe)
    layer: Any = model.model.layers[0]
    assert found["general.architecture"] == "qwen3"
    for name, array in (
        ("blk.0.attn_q.weight", layer.self_attn.q_proj.weight),
        ("blk.0.attn_k_norm.weight", layer.self_attn.k_norm.weight),
        ("blk.0.ffn_down.weight", layer.mlp.down_proj.weight),
        ("output.weight", model.lm_head.weight),
        ("token_embd.weight", model.model.embed_tokens.weight),
    ):
        assert mx.array_equal(arrays[name], array), name
    assert len(arrays) == 3 + 2 * 11


def test_a_gpt2(make, bpe: Tokenizer, tmp_path: Path) -> None:
    """q, k and v are one matrix [out, in], and what a layer lacks is written as what it computes."""
    model = make(vocab_size=300, norm_bias=False, **GPT2)
    arrays, found = written(tmp_path, model, bpe)
    attention: Any = model.model.layers[0].self_attn
    three = mx.concatenate([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    assert mx.array_equal(arrays["blk.0.attn_qkv.weight"], three)
    assert mx.array_equal(arrays["blk.0.ffn_up.weight"], model.model.layers[0].mlp.up_proj.weight)
    assert mx.array_equal(arrays["position_embd.weight"], model.model.embed_positions.weight)
    assert not mx.any(arrays["output_norm.bias"]).item()
    assert "gpt2.attention.layer_norm_epsilon" in found
    assert not [key for key in found if "rope" in key]


def test_scaled_rope(make, bpe: Tokenizer, tmp_path: Path) -> None:
    arrays, found = written(tmp_path, make(vocab_size=300, rope_scaling=LLAMA3), bpe)
    slower = np.array(arrays["rope_freqs.weight"])
    assert (slower[0], slower[-1]) == (pytest.approx(1.0), pytest.approx(4.0))
    assert "llama.rope.scaling.type" not in found
    _, found = written(tmp_path, make(vocab_size=300, rope_scaling=LLAMA3 | {"type": "yarn"}), bpe)
    assert found["llama.rope.scaling.type"] == "yarn"
    assert (found["llama.rope.scaling.factor"], found["llama.rope.scaling.original_context_length"]) == (4.0, 32)


def test_in_16_bits_vectors_keep_32(make, bpe: Tokenizer, tmp_path: Path) -> None:
    arrays, found = written(tmp_path, make(vocab_size=300, **GPT2), bpe, dtype=mx.float16)
    assert found["general.file_type"] == 1
    for name, array in arrays.items():
        wide = array.ndim == 1 or name.startswith("position_embd")
        assert array.dtype == (mx.float32 if wide else mx.float16), name


def test_what_llama_cpp_lacks_is_said(sample, bpe: Tokenizer, tmp_path: Path) -> None:
    name, model = sample
    if name in WHOLE:
        pytest.skip("llama.cpp has it")
    with pytest.raises(UserError, match=r"GGUF can't express this model: (llama.cpp|mlx-lm's \S+) has no"):
        save_gguf(tmp_path / "model.gguf", model, bpe, name="tale")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"qk_norm": True, "rope_scaling": LLAMA3}, "Qwen3 has no rope_scaling llama3"),
        ({"vocab_size": 270}, "tokens and the model only 270"),
    ],
)
def test_refused(changes: dict, said: str, make, bpe: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        save_gguf(tmp_path / "model.gguf", make(**{"vocab_size": 300, **changes}), bpe, name="tale")


def test_a_disk_that_refuses(make, bpe: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the model could not be written to"):
        save_gguf(tmp_path / "file" / "model.gguf", make(vocab_size=300), bpe, name="tale")
