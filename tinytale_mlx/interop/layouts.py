"""Which of mlx-lm's architectures a model is written as.

One table, `LAYOUTS`, decides: a model is written in the first layout that can express it, so that mlx-lm
(and, for Llama, Qwen3 and GPT-2, transformers) runs it without an export step. What no layout can express is
written in our own. What a layout has and the model lacks is written as what it computes, zeros for a bias and
ones for a norm's weight, and dropped again when the model is read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx

from ..models import Transformer
from ..models.parameters import named_arrays
from ..models.positions import Rope, rope_wavelengths
from ..recipe import ModelConfig
from . import spelling
from .spelling import Json, Weights

Shapes = dict[str, tuple[int, ...]]
Requirement = tuple[Callable[[ModelConfig], bool], str]
"""What must hold of a model, and what to say when it does not, after "mlx-lm's Llama has "."""


def _as_it_is(weights: Weights, config: ModelConfig) -> Weights:
    return weights


@dataclass(frozen=True)
class Layout:
    """One spelling of a model: `requirements` say which models it can express, the functions how."""

    name: str
    model_type: str
    architectures: tuple[str, ...] = ()
    """The class of transformers that reads the weights as they are written."""
    requirements: tuple[Requirement, ...] = ()
    describe: Callable[[ModelConfig], Json] = lambda config: {}
    """The layout's own keys of config.json."""
    fields: Callable[[Json], Json] = lambda raw: {}
    """A stranger's config.json to the fields of a ModelConfig, but for vocab_size and tie_embeddings."""
    tied_by_default: bool = False
    rename_out: Callable[[Weights, ModelConfig], Weights] = _as_it_is
    rename_in: Callable[[Weights, ModelConfig], Weights] = _as_it_is
    always: Json = field(default_factory=dict)
    """The fields of ModelConfig that every model of this layout has, whether ours has them or not."""

    def unmet(self, config: ModelConfig) -> list[str]:
        """What keeps `config` from this layout, in words; empty if nothing does."""
        return [text for holds, text in self.requirements if not holds(config)]

    def to_config(self, config: ModelConfig) -> Json:
        """config.json, without the token ids and the dtype, which are not the architecture's business.

        The key "tinytale" holds our whole configuration; with it our loader restores exactly what was saved.
        """
        return {
            "architectures": list(self.architectures),
            "model_type": self.model_type,
            "vocab_size": config.vocab_size,
            "tie_word_embeddings": config.tie_embeddings,  # absent, mlx-lm says true and transformers false
            **self.describe(config),
            "tinytale": config.model_dump(mode="json"),
        }

    def weights_out(self, weights: Weights, config: ModelConfig) -> Weights:
        """Our names and shapes to the layout's, with what it has and the model lacks."""
        dtype = weights["model.embed_tokens.weight"].dtype
        added = {name: mx.full(shape, _filler(name), dtype) for name, shape in self._fillers(config).items()}
        return self.rename_out(weights | added, config)

    def weights_in(self, weights: Weights, config: ModelConfig) -> Weights:
        """The layout's names and shapes to ours. What has no place in the model stays, for a check to find.

        Reads an array only where it should hold a filler.
        """
        found = dict(self.rename_in(weights, config))
        for name in list(found):
            redundant = name == "lm_head.weight" and config.tie_embeddings
            if redundant or name.endswith("rotary_emb.inv_freq"):  # the latter follows from the configuration
                del found[name]
        for name in self._fillers(config):
            if name in found and mx.all(found[name] == _filler(name)).item():
                del found[name]
        return found

    def _fillers(self, config: ModelConfig) -> Shapes:
        full = config.model_copy(update=self.always)
        if full == config:
            return {}
        own = parameter_shapes(config)
        return {name: shape for name, shape in parameter_shapes(full).items() if name not in own}


def parameter_shapes(config: ModelConfig) -> Shapes:
    """Name to shape of every parameter; nothing is evaluated."""
    parameters = dict(named_arrays(Transformer(config).parameters()))
    return {name: tuple(array.shape) for name, array in parameters.items()}


def _filler(name: str) -> float:
    return 1.0 if name.endswith(".weight") else 0.0


def layout_of(config: ModelConfig) -> Layout:
    """The first layout that can express `config`; `OWN` can express anything."""
    return next(layout for layout in LAYOUTS if not layout.unmet(config))


def layout_for_transformers(config: ModelConfig) -> Layout:
    """That which transformers reads, too: `layout_of`, but for the one that it spells otherwise than mlx-lm."""
    layout = layout_of(config)
    if layout.model_type != "nanochat":
        return layout
    return replace(layout, architectures=("NanoChatForCausalLM",), rename_out=spelling.transformers_nanochat_out)


def why_own(config: ModelConfig) -> str:
    """Why only our own layout will do: what the nearest other one lacks; "" if another one will do."""
    *others, _ = LAYOUTS
    nearest = min(others, key=lambda layout: len(layout.unmet(config)))
    unmet = nearest.unmet(config)
    return f"mlx-lm's {nearest.name} has {' and '.join(unmet)}" if unmet else ""


# ---------------------------------------------------------------------- what the layouts can express
def _turns_alike(config: ModelConfig) -> bool:
    """Whether mlx-lm's scaled RoPE has the frequencies and the temperature that ours has.

    So it is for all sensible numbers. For others, such as an original context below the shortest wavelength,
    the published formulas break down, in each implementation in another way.
    """
    if config.positions != "rope" or config.rope_scaling is None or config.rope_scaling.type == "linear":
        return True
    from mlx_lm.models.rope_utils import initialize_rope  # takes a second to import, and is seldom needed

    size, theta = config.size_per_head, config.rope_theta
    theirs: Any = initialize_rope(size, theta, False, spelling.rope_scaling_json(config), config.context)
    ours = rope_wavelengths(size, theta, config.rope_scaling)
    same_temperature = abs(getattr(theirs, "mscale", 1.0) - Rope(config)._temperature) < 1e-6
    return same_temperature and bool(mx.allclose(theirs._freqs, ours, rtol=1e-5, atol=0.0).item())


def _head_dim_follows(config: ModelConfig) -> bool:
    return config.size_per_head * config.heads == config.hidden_size


ALL: tuple[Requirement, ...] = (
    (lambda c: c.num_distinct_layers == c.layers, "no layers that share their weights"),
    (lambda c: c.norm_placement == "pre", "no post-norm"),
    (lambda c: c.sliding_window is None, "no sliding window"),
)
LLAMA_AND_QWEN3: tuple[Requirement, ...] = (
    *ALL,
    (lambda c: c.positions == "rope", "rotary positions only"),
    (_turns_alike, "other frequencies for this rope_scaling"),
    (lambda c: c.norm == "rmsnorm", "RMSNorm only"),
    (lambda c: not c.embedding_norm, "no norm after the embedding"),
    (lambda c: c.activation == "swiglu", "SwiGLU only"),
    (lambda c: c.logit_softcap is None, "no soft cap on the logits"),
)
LLAMA: tuple[Requirement, ...] = (
    *LLAMA_AND_QWEN3,
    (lambda c: not c.qk_norm, "no norm of queries and keys"),
)
QWEN3: tuple[Requirement, ...] = (
    *LLAMA_AND_QWEN3,
    (lambda c: c.qk_norm, "always a norm of queries and keys"),
    (lambda c: not c.attention_bias and not c.mlp_bias, "no biases"),
)
GPT2: tuple[Requirement, ...] = (
    *ALL,
    (lambda c: c.positions == "learned", "learned positions only"),
    (lambda c: c.norm == "layernorm", "LayerNorm only"),
    (lambda c: not c.embedding_norm, "no norm after the embedding"),
    (lambda c: not c.qk_norm, "no norm of queries and keys"),
    (lambda c: c.activation == "gelu_tanh", "gelu_tanh only"),
    (lambda c: c.intermediate_size == 4 * c.hidden_size, "an intermediate_size of 4 x hidden_size only"),
    (lambda c: c.num_kv_heads == c.heads, "no grouped-query attention"),
    (_head_dim_follows, "no head_dim but hidden_size / heads"),
    (lambda c: c.tie_embeddings, "tied embeddings only"),
    (lambda c: c.logit_softcap is None, "no soft cap on the logits"),
)
NANOCHAT: tuple[Requirement, ...] = (
    *ALL,
    (lambda c: c.positions == "rope", "rotary positions only"),
    (lambda c: c.rope_scaling is None, "no rope_scaling"),
    (lambda c: c.norm == "rmsnorm", "RMSNorm only"),
    (lambda c: not c.norm_weight, "no weights in its norms"),
    (lambda c: c.norm_eps == 1e-5, "a norm_eps of 1e-5 only"),
    (lambda c: c.embedding_norm, "always a norm after the embedding"),
    (lambda c: c.qk_norm, "always a norm of queries and keys"),
    (lambda c: c.activation == "relu2", "relu2 only"),
    (lambda c: not c.attention_bias and not c.mlp_bias, "no biases"),
    (_head_dim_follows, "no head_dim but hidden_size / heads"),
    (lambda c: not c.tie_embeddings, "no tied embeddings"),
    (lambda c: c.logit_softcap == 15.0, "always a soft cap of 15 on the logits"),
)

# ---------------------------------------------------------------------- the table
OWN = Layout("own", "tinytale")
LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "Llama", "llama", ("LlamaForCausalLM",), LLAMA, spelling.llama_json, spelling.llama_fields,
        always={"norm_weight": True},
    ),
    Layout(
        "Qwen3", "qwen3", ("Qwen3ForCausalLM",), QWEN3, spelling.qwen3_json, spelling.qwen3_fields,
        always={"norm_weight": True},
    ),
    Layout(
        "GPT-2", "gpt2", ("GPT2LMHeadModel",), GPT2, spelling.gpt2_json, spelling.gpt2_fields,
        tied_by_default=True, rename_out=spelling.gpt2_out, rename_in=spelling.gpt2_in,
        always={"attention_bias": True, "mlp_bias": True, "norm_weight": True, "norm_bias": True},
    ),
    # mlx-lm and transformers name nanochat's weights differently; no one file suits both.
    Layout(
        "nanochat", "nanochat", (), NANOCHAT, spelling.nanochat_json, spelling.nanochat_fields,
        rename_out=spelling.nanochat_out, rename_in=spelling.nanochat_in,
    ),
    OWN,
)  # fmt: skip
