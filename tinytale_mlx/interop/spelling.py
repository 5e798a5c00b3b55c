"""How mlx-lm's and transformers' architectures spell a configuration and its weights, in both directions.

Each `*_json` gives the keys of a config.json that state a ModelConfig; each `*_fields` reads such keys,
whoever wrote them, into the fields of a ModelConfig; `*_out` and `*_in` rename and reshape the weights.

Sources: mlx-lm 0.32 `models/{llama,qwen3,gpt2,nanochat,rope_utils}.py`; transformers 5 `configuration_*.py`,
`modeling_rope_utils.py` and `modeling_nanochat.py`.
"""

from typing import Any

import mlx.core as mx

from ..errors import UserError
from ..recipe import ModelConfig

Json = dict[str, Any]
Weights = dict[str, mx.array]


# ---------------------------------------------------------------------- config.json: writing
def llama_json(c: ModelConfig) -> Json:
    return {**_shape_json(c), "mlp_bias": c.mlp_bias, "hidden_act": "silu"}


def qwen3_json(c: ModelConfig) -> Json:
    return {**_shape_json(c), "hidden_act": "silu", "use_sliding_window": False}


def nanochat_json(c: ModelConfig) -> Json:
    return {**_shape_json(c), "hidden_act": "relu2", "final_logit_softcapping": c.logit_softcap}


def gpt2_json(c: ModelConfig) -> Json:
    return {
        "n_embd": c.hidden_size,
        "n_layer": c.layers,
        "n_head": c.heads,
        "n_positions": c.context,
        "n_ctx": c.context,
        "n_inner": c.intermediate_size,
        "layer_norm_epsilon": c.norm_eps,
        "activation_function": "gelu_new",
        "embd_pdrop": c.embedding_dropout,  # absent, transformers trains with 0.1
        "attn_pdrop": c.attention_dropout,
        "resid_pdrop": c.residual_dropout,
    }


def _shape_json(c: ModelConfig) -> Json:
    """What the architectures with Llama's key names have in common.

    RoPE is said twice: mlx-lm's Llama reads `rope_theta` and `rope_scaling` only, transformers 5 writes and
    prefers `rope_parameters`.
    """
    scaling = rope_scaling_json(c)
    parameters = {"rope_theta": c.rope_theta, **(scaling or {"rope_type": "default"})}
    return {
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.layers,
        "intermediate_size": c.intermediate_size,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.size_per_head,
        "max_position_embeddings": c.context,
        "rms_norm_eps": c.norm_eps,
        "attention_bias": c.attention_bias,
        "rope_theta": c.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": parameters,
    }


def rope_scaling_json(c: ModelConfig) -> Json | None:
    scaling = c.rope_scaling
    if scaling is None:
        return None
    found: Json = {"rope_type": scaling.type, "factor": scaling.factor}
    if scaling.type != "linear":
        found["original_max_position_embeddings"] = scaling.original_context
    if scaling.type == "llama3":
        found |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    return found


# ---------------------------------------------------------------------- config.json: reading
def llama_fields(raw: Json) -> Json:
    """Raises UserError for what we have no part for, KeyError for a missing key; so do the other readers."""
    _require(raw, "hidden_act", "silu", "silu", "swish")
    return {**_shape_fields(raw), "mlp_bias": raw.get("mlp_bias", False)}


def qwen3_fields(raw: Json) -> Json:
    _require(raw, "hidden_act", "silu", "silu", "swish")
    _require(raw, "use_sliding_window", False, False)
    return {**_shape_fields(raw), "qk_norm": True}


def nanochat_fields(raw: Json) -> Json:
    _require(raw, "hidden_act", "relu2", "relu2")
    nanochat = {"activation": "relu2", "qk_norm": True, "embedding_norm": True, "norm_weight": False}
    cap = raw.get("final_logit_softcapping", 15.0)
    return {**_shape_fields({"rms_norm_eps": 1e-5, **raw}), **nanochat, "logit_softcap": cap and float(cap)}


def gpt2_fields(raw: Json) -> Json:
    _require(raw, "activation_function", "gelu_new", "gelu_new", "gelu_pytorch_tanh")
    _require(raw, "scale_attn_weights", True, True)
    _require(raw, "scale_attn_by_inverse_layer_idx", False, False)
    return {
        "hidden_size": raw["n_embd"],
        "layers": raw["n_layer"],
        "heads": raw["n_head"],
        "context": raw["n_positions"],
        "intermediate_size": raw.get("n_inner") or 4 * raw["n_embd"],
        "norm_eps": float(raw.get("layer_norm_epsilon", 1e-5)),
        "positions": "learned",
        "norm": "layernorm",
        "activation": "gelu_tanh",
        "attention_bias": True,
        "mlp_bias": True,
    }


def _shape_fields(raw: Json) -> Json:
    if set(raw.get("layer_types") or []) - {"full_attention"}:
        raise UserError(f"tinytale has no model with layer_types {sorted(set(raw['layer_types']))}")
    # Early writers use `rope_scaling` and a theta outside, later ones `rope_parameters` for both.
    rope = {**(raw.get("rope_parameters") or {}), **(raw.get("rope_scaling") or {})}
    _require({**raw, **rope}, "partial_rotary_factor", 1.0, 1.0)
    _require(raw, "rope_traditional", False, False)
    return {
        "hidden_size": raw["hidden_size"],
        "layers": raw["num_hidden_layers"],
        "intermediate_size": raw["intermediate_size"],
        "heads": raw["num_attention_heads"],
        "kv_heads": raw.get("num_key_value_heads"),
        "head_dim": raw.get("head_dim"),
        "context": raw.get("max_position_embeddings") or 2048,
        "norm_eps": float(raw.get("rms_norm_eps", 1e-6)),
        "attention_bias": raw.get("attention_bias", False),
        "rope_theta": float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        "rope_scaling": _rope_scaling_fields(rope, raw),
    }


# The knobs of YaRN that we do not have, with the values that we compute with.
YARN_DEFAULTS = {
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1,
    "mscale_all_dim": 0,
    "truncate": True,
    "attention_factor": None,
}


def _rope_scaling_fields(rope: Json, raw: Json) -> Json | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind not in ("linear", "llama3", "yarn"):
        raise UserError(f"tinytale has no RoPE scaling of type {kind!r}")
    for key, value in YARN_DEFAULTS.items():
        if kind == "yarn" and rope.get(key, value) not in (None, value):
            raise UserError(f"tinytale has YaRN with {key} {value} only, not {rope[key]}")
    # "linear" does not depend on the original context, and its writers leave it out.
    context = rope.get("original_max_position_embeddings") or raw.get("max_position_embeddings") or 2048
    factors = {key: float(rope[key]) for key in ("low_freq_factor", "high_freq_factor") if key in rope}
    return {"type": kind, "factor": float(rope["factor"]), "original_context": context, **factors}


def _require(raw: Json, key: str, default: Any, *allowed: Any) -> None:
    value = raw.get(key, default)
    if value not in allowed:
        raise UserError(f"tinytale has no {raw.get('model_type')} model with {key} {value!r}")


# ---------------------------------------------------------------------- weights
# Parts of a dotted name, theirs and ours; a name is looked at with a dot in front.
GPT2_NAMES = {
    ".wte.": ".model.embed_tokens.",
    ".wpe.": ".model.embed_positions.",
    ".ln_f.": ".model.norm.",
    ".h.": ".model.layers.",
    ".ln_1.": ".input_layernorm.",
    ".ln_2.": ".post_attention_layernorm.",
    ".attn.c_attn.": ".self_attn.q_proj.",  # and k_proj and v_proj, one below the other
    ".attn.c_proj.": ".self_attn.o_proj.",
    ".mlp.c_fc.": ".mlp.up_proj.",
    ".mlp.c_proj.": ".mlp.down_proj.",
}
NANOCHAT_NAMES = {
    ".transformer.wte.": ".model.embed_tokens.",
    ".transformer.h.": ".model.layers.",
    ".attn.c_q.": ".self_attn.q_proj.",
    ".attn.c_k.": ".self_attn.k_proj.",
    ".attn.c_v.": ".self_attn.v_proj.",
    ".attn.c_proj.": ".self_attn.o_proj.",
    ".mlp.c_fc.": ".mlp.up_proj.",
    ".mlp.c_proj.": ".mlp.down_proj.",
}
# transformers has Llama's names for nanochat but for these.
HF_NANOCHAT_NAMES = {".mlp.fc1.": ".mlp.up_proj.", ".mlp.fc2.": ".mlp.down_proj."}


def rename(name: str, parts: dict[str, str]) -> str:
    name = f".{name}"
    for old, new in parts.items():
        name = name.replace(old, new)
    return name[1:]


def reversed_names(parts: dict[str, str]) -> dict[str, str]:
    return {new: old for old, new in parts.items()}


def gpt2_out(weights: Weights, config: ModelConfig) -> Weights:
    """OpenAI's names and matrices [in, out]: the one spelling that mlx-lm and transformers share."""
    found: Weights = {}
    for name, array in weights.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            array = mx.concatenate([weights[name.replace(".q_proj.", f".{x}_proj.")] for x in "qkv"])
        name = rename(name, reversed_names(GPT2_NAMES))
        found[name] = array.T if ".c_" in name else array
    return found


def gpt2_in(weights: Weights, config: ModelConfig) -> Weights:
    """From the names of OpenAI, transformers ("transformer.") or mlx-lm ("model.", matrices [out, in])."""
    found: Weights = {}
    for name, array in weights.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):  # the causal mask, in old checkpoints
            continue
        if ".c_" in name and not name.startswith("model."):
            array = array.T
        name = rename(name.removeprefix("transformer.").removeprefix("model."), GPT2_NAMES)
        if ".q_proj." in name and array.shape[0] % 3 == 0:
            for letter, part in zip("qkv", mx.split(array, 3), strict=True):
                found[name.replace(".q_proj.", f".{letter}_proj.")] = part
        else:
            found[name] = array
    return found


def nanochat_out(weights: Weights, config: ModelConfig) -> Weights:
    swapped = _swap_halves(weights, config)
    return {rename(name, reversed_names(NANOCHAT_NAMES)): array for name, array in swapped.items()}


def transformers_nanochat_out(weights: Weights, config: ModelConfig) -> Weights:
    swapped = _swap_halves(weights, config)
    return {rename(name, reversed_names(HF_NANOCHAT_NAMES)): array for name, array in swapped.items()}


def nanochat_in(weights: Weights, config: ModelConfig) -> Weights:
    names = NANOCHAT_NAMES | HF_NANOCHAT_NAMES
    return _swap_halves({rename(name, names): array for name, array in weights.items()}, config)


def _swap_halves(weights: Weights, config: ModelConfig) -> Weights:
    """Exchange the halves of each head's rows in q_proj and k_proj; doing it twice changes nothing.

    nanochat turns queries and keys the other way round. RoPE turns the plane of element i of the first half
    and element i of the second; exchanging the axes of a plane reverses the sense, and scores do not depend
    on the order of the elements. That nanochat norms after turning changes nothing: turning keeps the length.
    """
    found = dict(weights)
    for name, array in weights.items():
        turned = name.endswith(("self_attn.q_proj.weight", "self_attn.k_proj.weight"))
        if turned and array.shape[0] % config.size_per_head == 0:
            heads = array.reshape(-1, 2, config.size_per_head // 2, *array.shape[1:])
            found[name] = heads[:, ::-1].reshape(array.shape)
    return found
