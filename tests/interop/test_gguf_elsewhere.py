"""A GGUF file read by the package `gguf`, and run by transformers. Needs them, which we do not (extra `peers`)."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.interop.gguf import save_gguf
from tinytale_mlx.tokenizers import ByteBPE

gguf: Any = pytest.importorskip("gguf", reason="reading GGUF files elsewhere needs the package gguf (extra `peers`)")

IDS = [[1, 5, 9, 33, 2, 7, 7, 21, 30, 12, 39, 0, 16]]
# transformers reads no biases of a Llama, no head_dim of a Qwen3 and no context of a GPT-2.
RUN: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-gqa-untied": {"kv_heads": 2, "tie_embeddings": False, "rope_theta": 50000.0},
    "llama-head-dim": {"head_dim": 12, "norm_eps": 1e-3},
    "qwen3": {"qk_norm": True, "head_dim": 128},
    "gpt2": {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "intermediate_size": 128,
             "context": 1024, "attention_bias": True, "mlp_bias": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def bpe() -> ByteBPE:
    with pytest.warns(UserWarning, match="no more pairs"):
        return ByteBPE.train(["the cat went home and the dog went home"] * 2, 290)


def test_the_package_gguf_reads_it(make, bpe: ByteBPE, tmp_path: Path) -> None:
    model = make(vocab_size=300)
    save_gguf(tmp_path / "m.gguf", model, bpe, name="tale", dtype=mx.float16, chat_template="{{ messages }}")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    found = {name: field.contents() for name, field in reader.fields.items()}
    kinds = {name: [kind.name for kind in field.types] for name, field in reader.fields.items()}
    assert found["GGUF.version"] == 3
    assert kinds["general.architecture"] == ["STRING"]
    assert kinds["llama.block_count"] == ["UINT32"]
    assert kinds["llama.rope.freq_base"] == ["FLOAT32"]
    assert kinds["tokenizer.ggml.add_bos_token"] == ["BOOL"]
    assert kinds["tokenizer.ggml.tokens"] == kinds["tokenizer.ggml.merges"] == ["ARRAY", "STRING"]
    assert kinds["tokenizer.ggml.token_type"] == ["ARRAY", "INT32"]
    assert len(found["tokenizer.ggml.tokens"]) == len(found["tokenizer.ggml.token_type"]) == 300
    assert found["tokenizer.chat_template"] == "{{ messages }}"
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    expected = {known.get_name(name, (".weight",)) for name, _ in _named(model)}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert set(tensors) == expected
    embedding = tensors["token_embd.weight"]
    assert embedding.tensor_type.name == "F16"
    assert embedding.data_offset % 32 == 0
    weights: Any = model
    assert np.array_equal(embedding.data, np.array(weights.model.embed_tokens.weight.astype(mx.float16)))


def _named(model: Any) -> list[tuple[str, mx.array]]:
    from tinytale_mlx.models.parameters import named_arrays

    return named_arrays(model.parameters())


@pytest.mark.parametrize("name", RUN)
def test_transformers_computes_the_same(name: str, make, bpe: ByteBPE, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the comparison with transformers needs torch (extra `peers`)")
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate (extra `peers`)")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = make(vocab_size=300, **RUN[name])
    save_gguf(tmp_path / "m.gguf", model, bpe, name=name)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf")
    logits = theirs(torch.tensor(IDS)).logits.detach().numpy()
    assert np.allclose(np.array(model(mx.array(IDS))), logits, rtol=1e-5, atol=2e-5)
    if not name.startswith("gpt2"):  # of which it reads no tokenizer
        tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
        assert tokenizer.encode("the cat!  12", add_special_tokens=False) == bpe.encode("the cat!  12")
