"""Tuning a model that is trained already: which method, on which layers, on top of what."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Fraction, PositiveFloat, PositiveInt, Section

FORMATS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((4, 2, 3, 5, 6, 8), (64, 32, 128)),
    "mxfp4": ((4,), (32,)),
    "nvfp4": ((4,), (16,)),
    "mxfp8": ((8,), (32,)),
}
"""Of each mode of quantization the bits per weight and the group sizes that MLX has, the usual one first."""

METHOD_KEYS: dict[str, set[str]] = {
    "full": set(),
    "lora": {"rank", "alpha", "scale", "dropout", "targets", "rslora", "lora_plus_ratio", "quantize"},
    "dora": {"rank", "alpha", "scale", "dropout", "targets", "rslora", "lora_plus_ratio", "quantize"},
    "prompt": {"prompt_length", "prompt_text", "quantize"},
    "prefix": {"prompt_length", "prompt_text", "quantize"},
}
"""Beside those that all methods have, the keys that mean something to each."""


class QuantizeRecipe(Section):
    """How a matrix is kept in few bits: `bits` per weight, and for each group of a row a scale (affine: and a zero)."""

    mode: Literal["affine", "mxfp4", "nvfp4", "mxfp8"] = "affine"
    """Integers with a scale and an offset per group, or the small floating-point formats of the OCP and of NVIDIA."""
    bits: int | None = None
    """Left out, 4, or what the mode has."""
    group_size: int | None = None
    """Weights per scale; left out, 64, or what the mode has."""

    @property
    def num_bits(self) -> int:
        return self.bits or FORMATS[self.mode][0][0]

    @property
    def weights_per_group(self) -> int:
        return self.group_size or FORMATS[self.mode][1][0]

    @model_validator(mode="after")
    def _there_is_such_a_format(self) -> "QuantizeRecipe":
        bits, groups = FORMATS[self.mode]
        for key, value, known in (("bits", self.bits, bits), ("group_size", self.group_size, groups)):
            if value is not None and value not in known:
                raise ValueError(f"{key} {value} is not among those of the mode {self.mode}: {_listed(known)}")
        return self


class TuneRecipe(Section):
    method: Literal["full", "lora", "dora", "prompt", "prefix"] = "lora"
    """All weights; low-rank updates of matrices (Hu et al. 2021), also with a magnitude per row (DoRA, Liu et al.
    2024); learned tokens before the text (Lester et al. 2021), or learned keys and values (Li & Liang 2021)."""
    rank: int = 8
    alpha: PositiveFloat | None = None
    """The update is multiplied by alpha / rank. Left out, and `scale` too, alpha is twice the rank."""
    scale: PositiveFloat | None = None
    """Or the multiplier itself, which is mlx-lm's way."""
    rslora: bool = False
    """alpha / √rank instead (Kalajdzievski 2023): the update does not shrink as the rank grows."""
    dropout: Fraction = 0.0
    """On what goes into the adapter, apart from the dropout of the model."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Every matrix inside the blocks, or names (q_proj), paths (model.layers.3.mlp.up_proj), patterns (*.mlp.*)."""
    layers: PositiveInt | None = None
    """Only the last so many blocks; left out, all."""
    lora_plus_ratio: Annotated[float, Field(ge=1)] | None = None
    """How much faster B learns than A (LoRA+, Hayou et al. 2024: 16)."""
    quantize: QuantizeRecipe | None = None
    """Keep the frozen model in few bits (QLoRA, Dettmers et al. 2023)."""
    prompt_length: PositiveInt = 20
    """Learned tokens, of the methods prompt and prefix."""
    prompt_text: str | None = None
    """What they say at the beginning, repeated or cut to the length; left out, words drawn from the vocabulary."""
    train_embeddings: bool = False
    train_final_norm: bool = False
    train_head: bool = False

    @property
    def multiplier(self) -> float:
        """What the product of A and B is multiplied by."""
        if self.scale is not None:
            return self.scale
        return (self.alpha or 2.0 * self.rank) / (self.rank**0.5 if self.rslora else self.rank)

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "TuneRecipe":
        if self.rank < 1:
            raise ValueError(f"tune.rank {self.rank} leaves nothing to learn; it must be at least 1")
        if self.alpha is not None and self.scale is not None:
            raise ValueError("tune.alpha and tune.scale say the same thing in two ways; give one of them")
        if self.rslora and self.scale is not None:
            raise ValueError("tune.rslora divides tune.alpha by the root of the rank; tune.scale is not divided at all")
        if self.targets == []:
            raise ValueError('tune.targets is empty; "all-linear" means every matrix inside the blocks')
        for key in sorted(set().union(*METHOD_KEYS.values()) - METHOD_KEYS[self.method]):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"tune.{key} means nothing to the method {self.method}")
        if self.layers is not None and self.method in ("prompt", "prefix"):
            raise ValueError(f"tune.layers means nothing to the method {self.method}")
        return self


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, sorted(values)))
