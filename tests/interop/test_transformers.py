"""transformers computes the same with our directories, and we with its. Needs torch, which we do not."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx.interop.huggingface import load_model, save_model
from tinytale_mlx.interop.layouts import layout_for_transformers, layout_of
from tinytale_mlx.recipe import GenerateRecipe
from tinytale_mlx.tokenizers import Tokenizer

torch = pytest.importorskip("torch", reason="the comparison with transformers needs torch (extra `peers`)")

IDS = [[1, 5, 9, 33, 2, 7, 7, 21, 30, 12, 39, 0, 16]]


def close(ours: mx.array, theirs) -> bool:
    return bool(np.allclose(np.array(ours), theirs.detach().numpy(), rtol=1e-5, atol=1e-5))


def test_transformers_computes_the_same(sample, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, model = sample
    if name == "own":
        pytest.skip("transformers has no such architecture")
    layout = layout_for_transformers(model.config)
    save_model(tmp_path / "model", model, tokenizer, GenerateRecipe(top_k=0), chat_template=False, layout=layout)
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report.values()), report
    logits = model(mx.array(IDS))
    assert close(logits, theirs(torch.tensor(IDS)).logits)
    assert (theirs.generation_config.top_k, theirs.generation_config.eos_token_id) == (0, 3)
    ids = [tokenizer.bos_id, *tokenizer.encode("a tale.")]
    assert AutoTokenizer.from_pretrained(tmp_path / "model").encode("a tale.") == ids

    theirs.save_pretrained(tmp_path / "copy")
    config = tmp_path / "copy/config.json"
    raw = json.loads(config.read_text())
    assert raw.pop("tinytale"), "transformers keeps keys that it does not know"
    assert close(load_model(tmp_path / "copy")[0](mx.array(IDS)), theirs(torch.tensor(IDS)).logits)
    config.write_text(json.dumps(raw))
    loaded, read = load_model(tmp_path / "copy")
    assert close(loaded(mx.array(IDS)), theirs(torch.tensor(IDS)).logits)
    assert layout_of(read).model_type == name


def random_weights(model) -> None:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)


@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "NanoChat"])
def test_models_made_by_transformers(kind: str, tmp_path: Path) -> None:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, rope_parameters={"rope_type": "default", "rope_theta": 3e4},
    )  # fmt: skip
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    random_weights(theirs)
    theirs.save_pretrained(tmp_path)
    assert close(load_model(tmp_path)[0](mx.array(IDS)), theirs(torch.tensor(IDS)).logits)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"n_inner": 72}])
def test_gpt2_made_by_transformers(changes: dict, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=64, **changes)
    theirs = GPT2LMHeadModel(config)
    random_weights(theirs.eval())
    theirs.save_pretrained(tmp_path)
    assert close(load_model(tmp_path)[0](mx.array(IDS)), theirs(torch.tensor(IDS)).logits)
