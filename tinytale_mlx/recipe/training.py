"""The training: steps, batches, optimiser, schedule, and what happens how often."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from .section import Fraction, PositiveFloat, PositiveInt, Section

StepNumber = Annotated[int, BeforeValidator(lambda key: int(key) if str(key).isdecimal() else key), Field(ge=0)]
"""As the key of a mapping, which is text in JSON and in `--set a.b=c`."""


Precision = Literal["float32", "bfloat16", "float16"]


class TrainRecipe(Section):
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 8
    """Sequences per micro-batch."""
    accumulate: PositiveInt = 1
    """Micro-batches per optimiser step."""
    accumulate_schedule: dict[StepNumber, PositiveInt] = Field(default_factory=dict)
    """How many from which step (counted from 0) on instead: `{1000: 4, 5000: 16}`. So the batch grows with training."""
    epochs: PositiveFloat | None = None
    """Instead of `steps`: how often to go through the data, rounded down to whole steps. Of a mixture an epoch is as
    many rows as its sources have together. `steps` is filled in once the data is prepared."""
    precision: Precision = "float32"
    """What the model computes in. Weights and optimiser stay in float32, and so do losses, softmax and norms."""
    loss_scale: PositiveFloat = 2.0**16
    """Of float16, at the start; it is halved where gradients overflow (Micikevicius et al. 2018)."""
    loss_scale_window: PositiveInt = 1000
    """After so many steps without overflow it is doubled."""
    gradient_checkpointing: Literal["none", "attention", "block"] = "none"
    """What of a block is computed again on the way back, instead of being kept (Chen et al. 2016)."""
    gradient_checkpointing_every: PositiveInt = 1
    """In every block, or only in every second one, third one, ..."""
    loss_chunk_tokens: PositiveInt | None = None
    """The logits of so many tokens at a time exist; left out, those of the whole micro-batch, or where the head is
    frozen, as under an adapter, of a few."""
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
    skip_nonfinite: Annotated[int, Field(ge=0)] = 0
    """How many steps in a row may be left out, because a loss or gradient is not finite, before training stops."""
    early_stopping: PositiveInt | None = None
    """Stop when so many validations in a row have not brought a lower loss."""
    validate_every: PositiveInt = 200
    validation_batches: PositiveInt | None = None
    """Of the validation windows, at most this many batches; left out, all of them."""
    save_every: PositiveInt = 200
    keep_checkpoints: PositiveInt = 2
    """The newest ones."""
    keep_best: Annotated[int, Field(ge=0)] = 1
    """And those with the lowest validation loss."""
    final_model: Literal["last", "best"] = "last"
    """Which weights the model directory gets at the end."""
    sample_every: PositiveInt = 200
    log_every: PositiveInt = 10

    @model_validator(mode="after")
    def _schedule_fits(self) -> "TrainRecipe":
        if self.min_learning_rate > self.learning_rate:
            raise ValueError("train.min_learning_rate is above train.learning_rate")
        if self.epochs is not None:
            return self  # how many steps these are is not known yet; then this is asked again
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
