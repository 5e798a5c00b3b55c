"""The table of layouts: each requirement matters and has the right words; strangers' config.json."""

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.rope_utils import initialize_rope

from tinytale_mlx.errors import UserError
from tinytale_mlx.interop.huggingface import from_config
from tinytale_mlx.interop.layouts import GPT2, LAYOUTS, LLAMA, NANOCHAT, OWN, QWEN3, layout_of, why_own
from tinytale_mlx.interop.spelling import rope_scaling_json
from tinytale_mlx.models.positions import Rope
from tinytale_mlx.recipe import ModelConfig, RopeScaling

BASE: dict[str, Any] = {
    "hidden_size": 32, "layers": 2, "heads": 4, "context": 64, "intermediate_size": 48, "vocab_size": 40,
}  # fmt: skip
NEAREST = {
    "llama": BASE,
    "qwen3": BASE | {"qk_norm": True},
    "gpt2": BASE | {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "intermediate_size": 128},
    "nanochat": BASE
    | {"activation": "relu2", "qk_norm": True, "embedding_norm": True, "norm_weight": False}
    | {"tie_embeddings": False, "logit_softcap": 15.0},
}
BROKEN_YARN = RopeScaling(type="yarn", factor=2.0, original_context=1)


def broken(kind: str, **changes: Any) -> ModelConfig:
    return ModelConfig(**NEAREST[kind] | changes)


# What is changed, and what is then said; the change leaves the model one step away from that layout only.
VIOLATIONS: list[tuple[str, dict, str]] = [
    ("llama", {"distinct_layers": 1}, "Llama has no layers that share their weights"),
    ("llama", {"norm_placement": "post"}, "Llama has no post-norm"),
    ("llama", {"sliding_window": 8}, "Llama has no sliding window"),
    ("llama", {"positions": "t5"}, "Llama has rotary positions only"),
    ("llama", {"positions": "none"}, "Llama has rotary positions only"),
    ("llama", {"rope_scaling": BROKEN_YARN, "rope_theta": 10.0},
     "Llama has other frequencies for this rope_scaling"),
    ("llama", {"norm": "layernorm"}, "Llama has RMSNorm only"),
    ("llama", {"embedding_norm": True}, "Llama has no norm after the embedding"),
    ("llama", {"activation": "silu"}, "Llama has SwiGLU only"),
    ("llama", {"logit_softcap": 30.0}, "Llama has no soft cap on the logits"),
    ("llama", {"sliding_window": 8, "logit_softcap": 30.0},
     "Llama has no sliding window and no soft cap on the logits"),
    ("qwen3", {"attention_bias": True}, "Llama has no norm of queries and keys"),
    ("gpt2", {"distinct_layers": 1}, "GPT-2 has no layers that share their weights"),
    ("gpt2", {"norm_placement": "post"}, "GPT-2 has no post-norm"),
    ("gpt2", {"sliding_window": 8}, "GPT-2 has no sliding window"),
    ("gpt2", {"positions": "sinusoidal"}, "GPT-2 has learned positions only"),
    ("gpt2", {"norm": "rmsnorm"}, "GPT-2 has LayerNorm only"),
    ("gpt2", {"embedding_norm": True}, "GPT-2 has no norm after the embedding"),
    ("gpt2", {"qk_norm": True}, "GPT-2 has no norm of queries and keys"),
    ("gpt2", {"activation": "gelu"}, "GPT-2 has gelu_tanh only"),
    ("gpt2", {"intermediate_size": 64}, "GPT-2 has an intermediate_size of 4 x hidden_size only"),
    ("gpt2", {"kv_heads": 2}, "GPT-2 has no grouped-query attention"),
    ("gpt2", {"head_dim": 16}, "GPT-2 has no head_dim but hidden_size / heads"),
    ("gpt2", {"tie_embeddings": False}, "GPT-2 has tied embeddings only"),
    ("gpt2", {"logit_softcap": 30.0}, "GPT-2 has no soft cap on the logits"),
    ("nanochat", {"distinct_layers": 1}, "nanochat has no layers that share their weights"),
    ("nanochat", {"norm_placement": "post"}, "nanochat has no post-norm"),
    ("nanochat", {"sliding_window": 8}, "nanochat has no sliding window"),
    ("nanochat", {"positions": "alibi"}, "nanochat has rotary positions only"),
    ("nanochat", {"rope_scaling": RopeScaling(type="linear", factor=2.0, original_context=32)},
     "nanochat has no rope_scaling"),
    ("nanochat", {"norm": "layernorm"}, "nanochat has RMSNorm only"),
    ("nanochat", {"norm_weight": True}, "nanochat has no weights in its norms"),
    ("nanochat", {"norm_eps": 1e-6}, "nanochat has a norm_eps of 1e-5 only"),
    ("nanochat", {"embedding_norm": False}, "nanochat has always a norm after the embedding"),
    ("nanochat", {"qk_norm": False}, "nanochat has always a norm of queries and keys"),
    ("nanochat", {"activation": "relu"}, "nanochat has relu2 only"),
    ("nanochat", {"mlp_bias": True}, "nanochat has no biases"),
    ("nanochat", {"head_dim": 16}, "nanochat has no head_dim but hidden_size / heads"),
    ("nanochat", {"tie_embeddings": True}, "nanochat has no tied embeddings"),
    ("nanochat", {"logit_softcap": 30.0}, "nanochat has always a soft cap of 15 on the logits"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "words"), VIOLATIONS)
def test_each_violation_is_named(kind: str, changes: dict, words: str) -> None:
    config = broken(kind, **changes)
    assert layout_of(config) is OWN
    assert why_own(config) == f"mlx-lm's {words}"


def test_every_requirement_has_its_case() -> None:
    said = " | ".join(words for _, _, words in VIOLATIONS)
    for name, requirements in (("Llama", LLAMA), ("GPT-2", GPT2), ("nanochat", NANOCHAT)):
        for _, text in requirements:
            assert f"{name} has {text}" in said, (name, text)
    # A model that lacks one of these is as near to Llama as to Qwen3, and Llama is named.
    own_to_qwen3 = {text for _, text in QWEN3} - {text for _, text in LLAMA}
    assert own_to_qwen3 == {"always a norm of queries and keys", "no biases"}


@pytest.mark.parametrize("kind", NEAREST)
def test_the_layout_itself_needs_no_excuse(kind: str) -> None:
    assert layout_of(broken(kind)).model_type == kind
    assert why_own(broken(kind)) == ""


def test_what_only_training_sees_does_not_matter() -> None:
    config = broken("llama", attention="manual", residual_dropout=0.1, init="fan_in", residual_init="zero")
    assert layout_of(config).model_type == "llama"


def test_model_types_are_distinct_and_own_comes_last() -> None:
    assert len({layout.model_type for layout in LAYOUTS}) == len(LAYOUTS)
    assert LAYOUTS[-1] is OWN


SCALINGS = [
    *(RopeScaling(type="linear", factor=f, original_context=c) for f in (2.0, 3.5) for c in (16, 2048)),
    *(RopeScaling(type="llama3", factor=f, original_context=c) for f in (2.0, 8.0) for c in (32, 512, 8192)),
    *(RopeScaling(type="yarn", factor=f, original_context=c) for f in (2.0, 16.0) for c in (32, 512, 8192)),
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: f"{s.type}-{s.factor}-{s.original_context}")
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_scaled_rope_turns_as_mlx_lm_s_does(scaling: RopeScaling, theta: float) -> None:
    """The table trusts `linear` and measures the others; here all are turned for real."""
    config = broken("llama", hidden_size=256, rope_scaling=scaling, rope_theta=theta)
    assert layout_of(config).model_type == "llama"
    theirs = initialize_rope(64, theta, False, rope_scaling_json(config), 64)
    x = mx.random.normal((1, 4, 50, 64), key=mx.random.key(0))
    assert mx.allclose(Rope(config)(x, 7), theirs(x, offset=7), atol=1e-5).item()


# ---------------------------------------------------------------------- strangers' config.json
LLAMA_JSON = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64, "vocab_size": 40,
    "hidden_act": "silu", "rms_norm_eps": 1e-6,
}  # fmt: skip
YARN_JSON = {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 32}


def test_llama_in_the_manner_of_transformers_4() -> None:
    scaling = {"type": "linear", "factor": 2}
    config = from_config({**LLAMA_JSON, "rope_theta": 50000, "rope_scaling": scaling})
    assert config == ModelConfig(
        hidden_size=32, layers=2, heads=4, kv_heads=2, context=64, intermediate_size=48, vocab_size=40,
        norm_eps=1e-6, rope_theta=50000.0, tie_embeddings=False,
        rope_scaling=RopeScaling(type="linear", factor=2.0, original_context=64),
    )  # fmt: skip


def test_llama_in_the_manner_of_transformers_5() -> None:
    config = from_config({**LLAMA_JSON, "rope_parameters": {**YARN_JSON, "rope_theta": 50000.0}})
    assert config.rope_theta == 50000.0
    assert config.rope_scaling == RopeScaling(type="yarn", factor=2.0, original_context=32)


def test_gpt2_as_openai_wrote_it() -> None:
    config = from_config({"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_ctx": 64,
                          "n_positions": 64, "vocab_size": 40, "layer_norm_epsilon": 1e-5})  # fmt: skip
    assert config.tie_embeddings
    assert (config.intermediate_size, config.positions, config.attention_bias) == (128, "learned", True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba"}, "no architecture 'mamba'; supported are llama, qwen3, gpt2, nanochat"),
        ({"hidden_size": None}, "a llama model needs the key 'hidden_size', which is missing"),
        ({"vocab_size": None}, "a llama model needs the key 'vocab_size'"),
        ({"hidden_size": "32"}, "hidden_size: Input should be a valid integer"),
        ({"num_key_value_heads": 3}, "model.heads 4 is not a multiple of model.kv_heads 3"),
        ({"hidden_act": "gelu"}, "no llama model with hidden_act 'gelu'"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "no model with layer_types"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "no RoPE scaling of type 'dynamic'"),
        ({"rope_scaling": {**YARN_JSON, "beta_fast": 16}}, "has YaRN with beta_fast 32 only, not 16"),
        ({"rope_scaling": "linear"}, "a value has the wrong type"),
        ({"partial_rotary_factor": 0.5}, "no llama model with partial_rotary_factor 0.5"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "no qwen3 model with use_sliding_window True"),
    ],
)
def test_what_tinytale_does_not_have_is_refused(changes: dict, words: str) -> None:
    raw = {key: value for key, value in (LLAMA_JSON | changes).items() if value is not None}
    with pytest.raises(UserError) as caught:
        from_config(raw)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
