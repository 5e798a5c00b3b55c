"""A recipe says everything about a run: data, tokenizer, model, training, generation. Nothing else does.

The sections below are strict pydantic models: a key that is not here is refused with the nearest name that is,
a value of the wrong type is refused too. `recipe_files.py` reads them from YAML and applies `--set a.b=c`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class CleanRecipe(Section):
    """What happens to each document before it is split off and encoded. By default nothing; every step is counted."""

    html: bool = False
    """Tags are taken out, entities such as `&amp;` become characters."""
    wikitext: bool = False
    """WikiText's own spelling is undone: ` @-@ `, ` @,@ `, spaces before punctuation and inside quotes."""
    skip_headings: bool = False
    """Lines such as `= Title =` and blank lines are left out."""
    control: bool = False
    """Control characters but newline and tab are left out."""
    whitespace: bool = False
    """Runs of spaces become one, runs of blank lines one, and none is left at the ends."""
    lowercase: bool = False
    normalize: Literal["NFC", "NFKC"] | None = None
    min_characters: Annotated[int, Field(ge=0)] = 0
    """Shorter documents are left out, and so are those longer than `max_characters`."""
    max_characters: PositiveInt | None = None
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """Which documents are left out because they were there before: equal ones, or also much alike ones."""
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.8
    """For `near`: the share of five-word runs in common (Jaccard) from which on two documents are alike."""


class SourceRecipe(Section):
    """One source of a mixture."""

    source: str
    weight: PositiveFloat | None = None
    """Its share of the training rows, in relation to the other weights; left out for all sources, their sizes."""
    epochs: PositiveInt | None = None
    """Training stops with an error before it shows this source more often."""
    field: str | None = None
    documents: PositiveInt | None = None


class DataRecipe(Section):
    """Where the documents come from and how they become training and validation tokens."""

    source: str | list[str] | list[SourceRecipe] = "tales"
    """`tales` (embedded), a file, a folder, a glob, `-` (standard input), or a Hugging Face data set, as
    `owner/name[:split][:field]`; a list of them, read one after the other; or a mixture, see `SourceRecipe`."""
    temperature: PositiveFloat = 1.0
    """Of a mixture: weights w become w^(1/temperature); above 1, small sources are shown more often."""
    streaming: bool = True
    """Data sets of the hub are read as they arrive; otherwise they are downloaded first, and kept."""
    store: bool = True
    """The tokens are written to disk once; otherwise they are made anew while training, and never stored."""
    documents: PositiveInt | None = None
    """At most this many documents; for `tales`, how many to write."""
    field: str = "text"
    """The field of a JSON, CSV or data-set row that holds the text."""
    skip_bad: bool = False
    """Rows that can't be used are left out and counted, instead of refused."""
    clean: CleanRecipe = CleanRecipe()
    rows: Literal["windows", "documents", "packed"] = "windows"
    """What a training sequence is: any window of the text, one that begins with a document, or as many whole
    documents as fit (best-fit packing)."""
    document_mask: bool = False
    """Whether a token attends to its own document only."""
    validation: Fraction = 0.05
    """Share of the documents held out, chosen by a hash of their text; of a single document, its end."""
    validation_source: str | list[str] | None = None
    """A source of its own for validation; then `validation` is not used."""
    invalid_utf8: Literal["refuse", "replace"] = "refuse"


TOKENIZER_KEYS: dict[str, set[str]] = {
    "bpe": {
        "reserved", "pattern", "normalize", "lowercase", "min_frequency", "max_token_length", "matching"
    },
    "sentencepiece": {"reserved", "algorithm", "normalize", "lowercase"},
    "word": {"reserved", "lowercase", "min_frequency"},
    "char": {"reserved"},
    "gpt2": {"path"},
    "directory": {"path"},
}  # fmt: skip
"""Beside those that all kinds have, the keys that mean something to each kind of tokenizer."""


class TokenizerRecipe(Section):
    kind: Literal["bpe", "sentencepiece", "word", "char", "gpt2", "directory"] = "bpe"
    """Byte-level BPE of our own, Google's SentencePiece, whole words, characters, GPT-2's from its two files, or
    any saved tokenizer."""
    vocab_size: PositiveInt = 4096
    """Special tokens included. A character tokenizer has as many as the text holds."""
    path: str | None = None
    """For `directory`: a folder with a saved tokenizer. For `gpt2`: one with vocab.json and merges.txt."""
    special_tokens: list[str] | None = None
    """Instead of the standard ones (pad, unk, bos, eos, the chat markers and the reserved ones)."""
    reserved: Annotated[int, Field(ge=0)] = 2
    """Spare special tokens among the standard ones, to be given a meaning later."""
    pattern: Literal["gpt2", "gpt4"] = "gpt2"
    """How text is cut into words, inside which BPE may merge."""
    normalize: Literal["NFC", "NFKC"] | None = None
    lowercase: bool | None = None
    """Left out: the word tokenizer lower-cases, the others do not."""
    min_frequency: PositiveInt | None = None
    """How often a pair (or word) must occur to become a token; left out, 2 for BPE and 1 for words."""
    max_token_length: PositiveInt | None = None
    """In bytes."""
    matching: Literal["merges", "longest"] = "merges"
    """How the vocabulary of BPE is used: by its merges, or always the longest token that fits (not BPE any more)."""
    algorithm: Literal["unigram", "bpe"] = "unigram"
    """Of SentencePiece."""

    @model_validator(mode="after")
    def _keys_belong_to_the_kind(self) -> "TokenizerRecipe":
        if (self.path is None) == ("path" in TOKENIZER_KEYS[self.kind]):
            raise ValueError("tokenizer.path goes with tokenizer.kind directory or gpt2, and only with them")
        for key in set().union(*TOKENIZER_KEYS.values()) - TOKENIZER_KEYS[self.kind]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"tokenizer.{key} means nothing to a tokenizer of the kind {self.kind}")
        if self.special_tokens is not None and self.reserved != 2:
            raise ValueError(
                "tokenizer.reserved adds to the standard special tokens, and tokenizer.special_tokens "
                "replaces them; give one of the two"
            )
        return self


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


StepNumber = Annotated[int, BeforeValidator(lambda key: int(key) if str(key).isdecimal() else key), Field(ge=0)]
"""As the key of a mapping, which is text in JSON and in `--set a.b=c`."""


class TrainRecipe(Section):
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 8
    """Sequences per micro-batch."""
    accumulate: PositiveInt = 1
    """Micro-batches per optimiser step."""
    accumulate_schedule: dict[StepNumber, PositiveInt] = Field(default_factory=dict)
    """How many from which step (counted from 0) on instead: `{1000: 4, 5000: 16}`. So the batch grows with training."""
    optimizer: Literal["adamw", "muon", "adafactor", "lion", "adam_mini"] = "adamw"
    """`muon` moves the matrices inside the blocks by orthogonal steps; everything else stays with AdamW. `adam_mini`
    needs half of AdamW's memory, as does `lion` (at a third of the learning rate or less), `adafactor` next to none."""
    optimizer_state: Literal["float32", "bfloat16", "int8"] = "float32"
    """How AdamW keeps its moments of matrices: in half or, with 8 bits and a scale per 256, a quarter of the memory."""
    relative_step: bool = False
    """Of Adafactor: the learning rate is a share of each tensor's own size, instead of an absolute step."""
    learning_rate: PositiveFloat = 3e-4
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """`wsd`: warm-up, stable, decay. The rate stays at the top but for the last `cooldown_steps`."""
    decay_steps: PositiveInt | None = None
    """Where the schedule reaches its floor; left out, the last step."""
    cooldown_steps: PositiveInt | None = None
    """Of `wsd`; left out, a fifth of the steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled, on matrices only (Loshchilov & Hutter 2019)."""
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    eps: PositiveFloat = 1e-8
    max_grad_norm: PositiveFloat | None = 1.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep an exponential moving average of the weights, with this decay per step, such as 0.999."""
    average_last: Annotated[float, Field(gt=0, le=1)] | None = None
    """Or the plain average over this share of the steps, the last ones."""
    validate_every: PositiveInt = 200
    validation_batches: PositiveInt | None = None
    """Of the validation windows, at most this many batches; left out, all of them."""
    save_every: PositiveInt = 200
    keep_checkpoints: PositiveInt = 2
    sample_every: PositiveInt = 200
    log_every: PositiveInt = 10

    @model_validator(mode="after")
    def _schedule_fits(self) -> "TrainRecipe":
        if self.min_learning_rate > self.learning_rate:
            raise ValueError("train.min_learning_rate is above train.learning_rate")
        if self.warmup_steps >= self.decay_end and self.schedule != "constant":
            raise ValueError(
                f"train.warmup_steps {self.warmup_steps} leaves no step for the {self.schedule} schedule "
                f"that ends at step {self.decay_end}"
            )
        if self.schedule == "wsd" and self.warmup_steps + self.num_cooldown_steps > self.decay_end:
            raise ValueError(
                f"train.warmup_steps {self.warmup_steps} and train.cooldown_steps {self.num_cooldown_steps} "
                f"do not fit into the {self.decay_end} steps of the wsd schedule"
            )
        return self

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "TrainRecipe":
        if self.cooldown_steps and self.schedule != "wsd":
            raise ValueError("train.cooldown_steps goes with train.schedule wsd, and only with it")
        if self.optimizer_state != "float32" and self.optimizer not in ("adamw", "muon"):
            raise ValueError(
                f"train.optimizer_state {self.optimizer_state} goes with train.optimizer adamw or muon, "
                f"not with {self.optimizer}"
            )
        if self.relative_step and self.optimizer != "adafactor":
            raise ValueError("train.relative_step goes with train.optimizer adafactor, and only with it")
        if self.ema and self.average_last:
            raise ValueError("train.ema and train.average_last are two ways of averaging the weights; choose one")
        return self

    @property
    def decay_end(self) -> int:
        """The step by which the learning rate is on its floor."""
        return self.decay_steps or self.steps

    @property
    def num_cooldown_steps(self) -> int:
        return self.cooldown_steps or max(self.decay_end // 5, 1)


class GenerateRecipe(Section):
    """Sampling defaults that travel with the model."""

    prompts: Annotated[list[str], Field(min_length=1)] = [""]
    """What the samples shown during and after training start with; an empty prompt starts a new document."""
    max_new_tokens: PositiveInt = 200
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95


class Recipe(Section):
    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataRecipe = DataRecipe()
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    model: ModelConfig
    train: TrainRecipe = TrainRecipe()
    generate: GenerateRecipe = GenerateRecipe()
