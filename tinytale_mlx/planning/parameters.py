"""Every array that a model will have, from its config alone: no array is made, so it costs nothing to ask.

`tests/planning/test_parameters.py` holds it against the real model, name by name and shape by shape.
"""

import math
from collections.abc import Iterator

from ..errors import UserError
from ..recipe import ModelConfig, Recipe

Shape = tuple[int, ...]

T5_BUCKETS = 32
GPT2_TOKENS = 50257


def vocabulary(recipe: Recipe) -> tuple[int, str]:
    """The number of tokens to reckon with, and where it comes from: the tokenizer itself is not trained yet."""
    if recipe.model.vocab_size is not None:
        return recipe.model.vocab_size, "model.vocab_size"
    match recipe.tokenizer.kind:
        case "char":
            return recipe.tokenizer.vocab_size, "tokenizer.vocab_size; a char tokenizer has as many as the text holds"
        case "gpt2":
            return GPT2_TOKENS, "GPT-2's own"
        case "directory":
            return (
                recipe.tokenizer.vocab_size,
                "tokenizer.vocab_size, though a tokenizer that is loaded brings its own; set it, or model.vocab_size",
            )
        case "word":
            return recipe.tokenizer.vocab_size, "tokenizer.vocab_size; a word tokenizer may find fewer in the text"
    return recipe.tokenizer.vocab_size, "tokenizer.vocab_size"


def planned_config(recipe: Recipe, vocab_size: int | None = None) -> ModelConfig:
    """The model's config with a vocabulary: the one given, where the tokenizer is there already, or the recipe's."""
    return recipe.model.model_copy(update={"vocab_size": vocab_size or vocabulary(recipe)[0]})


def parameter_shapes(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    """(path, shape) of every parameter; a block that several layers share counts once.

    Raises UserError without a vocabulary.
    """
    if config.vocab_size is None:
        raise UserError("model.vocab_size is not known; it comes from the tokenizer")
    width = config.hidden_size
    yield "model.embed_tokens.weight", (config.vocab_size, width)
    if config.positions == "learned":
        yield "model.embed_positions.weight", (config.context, width)
    for number in range(config.num_distinct_layers):
        for name, shape in block_shapes(config):
            yield f"model.layers.{number}.{name}", shape
    if config.norm_placement == "pre":
        yield from _norm("model.norm", config)
    if not config.tie_embeddings:
        yield "lm_head.weight", (config.vocab_size, width)


def block_shapes(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    """(path, shape) of every parameter of one block."""
    width, size, inner = config.hidden_size, config.size_per_head, config.intermediate_size
    heads, kv_heads = config.heads * size, config.num_kv_heads * size
    for name, outputs, inputs in (
        ("q_proj", heads, width),
        ("k_proj", kv_heads, width),
        ("v_proj", kv_heads, width),
        ("o_proj", width, heads),
    ):
        yield from _linear(f"self_attn.{name}", outputs, inputs, config.attention_bias)
    if config.qk_norm and config.norm_weight:
        yield "self_attn.q_norm.weight", (size,)
        yield "self_attn.k_norm.weight", (size,)
    if config.positions == "t5":
        yield "self_attn.relative_bias.weight", (T5_BUCKETS, config.heads)
    if config.activation == "swiglu":
        yield from _linear("mlp.gate_proj", inner, width, config.mlp_bias)
    yield from _linear("mlp.up_proj", inner, width, config.mlp_bias)
    yield from _linear("mlp.down_proj", width, inner, config.mlp_bias)
    yield from _norm("input_layernorm", config)
    yield from _norm("post_attention_layernorm", config)


def _linear(name: str, outputs: int, inputs: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    if config.norm_weight:
        yield f"{name}.weight", (config.hidden_size,)
        if config.norm == "layernorm" and config.norm_bias:
            yield f"{name}.bias", (config.hidden_size,)


def count(config: ModelConfig) -> int:
    """Numbers that are trained."""
    return sum(math.prod(shape) for _, shape in parameter_shapes(config))


def count_embeddings(config: ModelConfig) -> int:
    """Of those, the tables that are only looked up in: no multiplication comes from them (Kaplan et al. 2020).

    A tied table is looked up in and multiplied with, as the head; that is then not one of them.
    """
    tables = 0 if config.tie_embeddings else (config.vocab_size or 0) * config.hidden_size
    return tables + (config.context * config.hidden_size if config.positions == "learned" else 0)
