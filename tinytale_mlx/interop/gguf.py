"""Models as one GGUF file, which llama.cpp, Ollama and LM Studio run.

A GGUF file (version 3) is metadata, then arrays. MLX writes it; what stands in it is said here: the arrays of the
Hugging Face layout under llama.cpp's names, the numbers of config.json, and the tokenizer (`gguf_tokenizer.py`).
Sources: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's `conversion/`, `src/models/`.

One difference is not a name. llama.cpp's Llama turns neighbouring elements of a head (0 and 1, 2 and 3, ...), everybody
else's the first half against the second, so the rows of q_proj and k_proj change places. Its Qwen3 turns halves.
"""

from pathlib import Path

import mlx.core as mx

from ..disk import replacing
from ..errors import UserError
from ..models import Transformer
from ..models.parameters import named_arrays
from ..models.positions import rope_wavelengths
from ..recipe import ModelConfig
from ..tokenizers.base import Tokenizer
from .gguf_tokenizer import Metadata, tokenizer_metadata
from .huggingface import check_rows
from .layouts import OWN, Layout, layout_of, why_own
from .quantized import is_quantized
from .spelling import Weights, rename

FILE_TYPES = {mx.float32: 0, mx.float16: 1}
"""The dtypes of matrices that MLX writes, as `general.file_type` numbers them."""
ROPE_SCALING = {"llama": ("linear", "llama3", "yarn"), "qwen3": ("linear", "yarn"), "gpt2": ()}
"""llama.cpp's architectures by the names that they share with the layouts, and the scaled RoPE that each knows."""

# Parts of a dotted name, the layout's and llama.cpp's; a name is looked at with a dot in front.
LLAMA_NAMES = {
    ".model.embed_tokens.": ".token_embd.",
    ".model.norm.": ".output_norm.",
    ".lm_head.": ".output.",
    ".model.layers.": ".blk.",
    ".input_layernorm.": ".attn_norm.",
    ".post_attention_layernorm.": ".ffn_norm.",
    ".self_attn.q_proj.": ".attn_q.",
    ".self_attn.k_proj.": ".attn_k.",
    ".self_attn.v_proj.": ".attn_v.",
    ".self_attn.o_proj.": ".attn_output.",
    ".self_attn.q_norm.": ".attn_q_norm.",
    ".self_attn.k_norm.": ".attn_k_norm.",
    ".mlp.gate_proj.": ".ffn_gate.",
    ".mlp.up_proj.": ".ffn_up.",
    ".mlp.down_proj.": ".ffn_down.",
}
GPT2_NAMES = {
    ".wte.": ".token_embd.",
    ".wpe.": ".position_embd.",
    ".ln_f.": ".output_norm.",
    ".h.": ".blk.",
    ".ln_1.": ".attn_norm.",
    ".ln_2.": ".ffn_norm.",
    ".attn.c_attn.": ".attn_qkv.",
    ".attn.c_proj.": ".attn_output.",
    ".mlp.c_fc.": ".ffn_up.",
    ".mlp.c_proj.": ".ffn_down.",
}


def save_gguf(
    path: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    name: str,
    dtype: mx.Dtype = mx.float32,
    chat_template: str | None = None,
) -> None:
    """Write `path` with matrices in `dtype`, float32 or float16; vectors are float32.

    `name` is for people to read. `chat_template` is the Jinja text of a model that was tuned on conversations.

    Raises:
        UserError: llama.cpp has no such model or tokenizer, the weights are quantized, or the disk refuses.
    """
    layout = _layout(model)
    check_rows(tokenizer, model)
    metadata: Metadata = {"general.architecture": layout.model_type, "general.name": name}
    metadata["general.file_type"] = mx.array(FILE_TYPES[dtype], mx.uint32)
    metadata |= {f"{layout.model_type}.{key}": value for key, value in _numbers(model.config).items()}
    metadata |= tokenizer_metadata(tokenizer, model.config.vocab_size or 0, chat_template)
    arrays = {name: _cast(name, array, dtype) for name, array in _arrays(model, layout).items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            written = temporary.with_suffix(".gguf")  # MLX adds this ending where a name has another
            try:
                mx.save_gguf(str(written), arrays, metadata)
                written.rename(temporary)
            finally:
                written.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"the model could not be written to {path}: {error}") from error


def _layout(model: Transformer) -> Layout:
    config, layout = model.config, layout_of(model.config)
    if layout is OWN:
        raise UserError(f"GGUF can't express this model: {why_own(config)}")
    if layout.model_type not in ROPE_SCALING:
        raise UserError(f"GGUF can't express this model: llama.cpp has no {layout.name}")
    if config.rope_scaling is not None and config.rope_scaling.type not in ROPE_SCALING[layout.model_type]:
        raise UserError(
            f"GGUF can't express this model: llama.cpp's {layout.name} has no rope_scaling {config.rope_scaling.type}"
        )
    if is_quantized(model):
        raise UserError(
            "the weights are quantized in a format of MLX's own, which GGUF lacks; --dequantize unpacks them"
        )
    return layout


# ---------------------------------------------------------------------- numbers
def _numbers(c: ModelConfig) -> Metadata:
    counts = {
        "vocab_size": c.vocab_size,
        "context_length": c.context,
        "embedding_length": c.hidden_size,
        "block_count": c.layers,
        "feed_forward_length": c.intermediate_size,
        "attention.head_count": c.heads,
        "attention.head_count_kv": c.num_kv_heads,
    }
    if c.positions == "rope":
        counts |= dict.fromkeys(
            ("attention.key_length", "attention.value_length", "rope.dimension_count"), c.size_per_head
        )
    kind = "layer_norm_rms_epsilon" if c.norm == "rmsnorm" else "layer_norm_epsilon"
    floats = {f"attention.{kind}": c.norm_eps}
    if c.positions == "rope":
        floats["rope.freq_base"] = c.rope_theta
    said: Metadata = {}
    scaling = c.rope_scaling
    if scaling is not None and scaling.type != "llama3":  # that one is written as an array
        said["rope.scaling.type"] = scaling.type
        floats["rope.scaling.factor"] = scaling.factor
        counts |= {"rope.scaling.original_context_length": scaling.original_context} if scaling.type == "yarn" else {}
    said |= {key: mx.array(value, mx.uint32) for key, value in counts.items()}
    return said | {key: mx.array(value, mx.float32) for key, value in floats.items()}


# ---------------------------------------------------------------------- arrays
def _arrays(model: Transformer, layout: Layout) -> Weights:
    """Those of the layout, by llama.cpp's names; matrices are [out, in]."""
    config = model.config
    weights = layout.weights_out(dict(named_arrays(model.parameters())), config)
    if layout.model_type == "gpt2":
        return {rename(name, GPT2_NAMES): a.T if ".c_" in name else a for name, a in weights.items()}
    if layout.model_type == "llama":
        weights = _neighbours(weights, config.size_per_head)
    arrays = {rename(name, LLAMA_NAMES): array for name, array in weights.items()}
    if config.rope_scaling is not None and config.rope_scaling.type == "llama3":
        wavelengths = [
            rope_wavelengths(config.size_per_head, config.rope_theta, one) for one in (config.rope_scaling, None)
        ]
        arrays["rope_freqs.weight"] = wavelengths[0] / wavelengths[1]
    return arrays


def _neighbours(weights: Weights, size: int) -> Weights:
    """Rows of q_proj and k_proj in the order 0, size/2, 1, size/2 + 1, ... of each head: pairs side by side."""
    found = dict(weights)
    for name, array in weights.items():
        if ".q_proj." in name or ".k_proj." in name:
            halves = array.reshape(-1, 2, size // 2, *array.shape[1:])
            found[name] = halves.swapaxes(1, 2).reshape(array.shape)
    return found


def _cast(name: str, array: mx.array, dtype: mx.Dtype) -> mx.array:
    """llama.cpp computes with vectors, and adds the table of positions, in float32."""
    matrix = array.ndim > 1 and not name.startswith("position_embd")
    return mx.contiguous(array.astype(dtype if matrix else mx.float32))
