"""The model: its shape."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Fraction, PositiveFloat, PositiveInt, Section


class RopeScaling(Section):
    """Stretches RoPE beyond the trained context (Chen et al. 2023, linear; Llama 3; Peng et al. 2023, YaRN)."""

    type: Literal["linear", "llama3", "yarn"]
    factor: Annotated[float, Field(gt=1)]
    original_context: PositiveInt
    low_freq_factor: PositiveFloat = 1.0
    high_freq_factor: PositiveFloat = 4.0

    @model_validator(mode="after")
    def _low_is_below_high(self) -> "RopeScaling":
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError("model.rope_scaling.low_freq_factor is not below high_freq_factor")
        return self


class ModelConfig(Section):
    """The shape of a decoder-only transformer. `vocab_size` is filled in from the tokenizer when left out."""

    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    context: PositiveInt
    intermediate_size: PositiveInt
    vocab_size: PositiveInt | None = None
    kv_heads: PositiveInt | None = None
    """Fewer than `heads` is grouped-query attention (Ainslie et al. 2023); left out, as many as `heads`."""
    head_dim: PositiveInt | None = None
    distinct_layers: PositiveInt | None = None
    """Parameter sharing across depth (Lan et al. 2019): layer i uses block i mod `distinct_layers`."""

    positions: Literal["rope", "learned", "sinusoidal", "t5", "alibi", "none"] = "rope"
    rope_theta: Annotated[float, Field(gt=1)] = 10000.0
    rope_scaling: RopeScaling | None = None

    attention: Literal["fused", "manual"] = "fused"
    """`manual` is the same mathematics spelled out; with attention dropout it is used in training either way."""
    qk_norm: bool = False
    sliding_window: PositiveInt | None = None
    """Each token sees itself and the `sliding_window - 1` before it."""

    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_placement: Literal["pre", "post"] = "pre"
    norm_eps: PositiveFloat = 1e-5
    norm_weight: bool = True
    norm_bias: bool = True
    """For LayerNorm only; RMSNorm has none."""
    embedding_norm: bool = False

    activation: Literal["swiglu", "gelu", "gelu_tanh", "silu", "relu", "relu2"] = "swiglu"
    attention_bias: bool = False
    mlp_bias: bool = False

    embedding_dropout: Fraction = 0.0
    attention_dropout: Fraction = 0.0
    residual_dropout: Fraction = 0.0

    tie_embeddings: bool = True
    logit_softcap: PositiveFloat | None = None

    init: Literal["normal", "fan_in"] = "normal"
    """Every matrix from N(0, `init_std`²), or from N(0, 1/fan-in)."""
    init_std: PositiveFloat = 0.02
    residual_init: Literal["scaled", "same", "zero"] = "scaled"
    """Output projections: `init_std`/√(2·layers) (GPT-2), like the other matrices, or zero."""

    @property
    def num_kv_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def size_per_head(self) -> int:
        return self.head_dim or self.hidden_size // self.heads

    @property
    def num_distinct_layers(self) -> int:
        return self.distinct_layers or self.layers

    @model_validator(mode="after")
    def _shapes_agree(self) -> "ModelConfig":
        if self.head_dim is None and self.hidden_size % self.heads:
            raise ValueError(
                f"model.hidden_size {self.hidden_size} is not divisible by model.heads {self.heads}; "
                f"the nearest widths that are: {self._nearest_widths()}"
            )
        if self.heads % self.num_kv_heads:
            raise ValueError(f"model.heads {self.heads} is not a multiple of model.kv_heads {self.kv_heads}")
        if self.positions == "rope" and self.size_per_head % 2:
            raise ValueError(f"RoPE needs an even head size, and this one is {self.size_per_head}")
        if self.rope_scaling and self.positions != "rope":
            raise ValueError(f"model.rope_scaling needs model.positions: rope, not {self.positions}")
        if self.layers % self.num_distinct_layers:
            raise ValueError(
                f"model.layers {self.layers} is not a multiple of model.distinct_layers {self.distinct_layers}"
            )
        return self

    def _nearest_widths(self) -> str:
        below = self.hidden_size // self.heads * self.heads
        return " and ".join(str(width) for width in (below, below + self.heads) if width)
