"""A run of alignment: which model, which preferences or prompts, what says how good a response is, and the method."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from .align import GroupRecipe, LengthsRecipe, PPORecipe, PreferenceRecipe, RewardRecipe
from .finetune import TuneTrainRecipe
from .generate import GenerateRecipe
from .section import Fraction, PositiveFloat, PositiveInt, Section
from .training import TrainRecipe
from .tuning import TuneRecipe

RATES = {
    "reward": {"full": 1e-2, "lora": 1e-2, "dora": 1e-2},
    "dpo": {"full": 1e-4, "lora": 5e-4, "dora": 5e-4},
    "ppo": {"full": 2e-4, "lora": 3e-3, "dora": 3e-3},
    "grpo": {"full": 2e-4, "lora": 3e-3, "dora": 3e-3},
}
"""Where the recipe names no learning rate: by kind of run and by method, for models of a few million weights. That of a
reward model is for its head alone; with reward.trunk tuned, 2e-3."""


class AlignDataRecipe(Section):
    """Rows of preferences, rankings, labelled responses, or questions with answers; see `data/preferences.py`."""

    source: str | list[str] = "tales"
    """`tales` (two endings of each embedded tale, the kinder one is preferred), `questions` (about embedded tales, with
    answers that can be checked), files, or a data set, as in `data.source` of a training."""
    documents: PositiveInt | None = None
    """At most this many rows."""
    skip_bad: bool = False
    template: Literal["chatml", "lillm", "question", "alpaca", "plain"] | None = None
    """How a dialogue is written; left out, plain text for tales, else ChatML where the tokenizer has its markers."""
    long_prompts: Literal["drop", "shorten"] = "drop"
    """What becomes of rows whose prompt has more than `prompt_tokens`; or they lose their beginning."""
    validation: Fraction = 0.1
    """Share of the prompts that are held out."""
    validation_prompts: PositiveInt = 128
    """So many of those at the most are answered, to see how the model does."""


class ScoreRecipe(Section):
    """What says how good a response is: the sum of all that is named here."""

    reward_model: str | None = None
    """A run of `tinytale rlhf reward`."""
    functions: list[str] = Field(default_factory=list)
    """`length:20`, `contains:smiled`, `regex:^Yes`, `answer`, or FILE.py:FUNCTION."""


class PairTrainRecipe(TuneTrainRecipe):
    """As in a fine-tuning. A batch is of so many prompts, each with all its responses."""

    steps: PositiveInt = 50
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = RATES["reward"]["lora"]
    """Left out, that of the method."""
    beta2: Fraction = 0.999
    eps: PositiveFloat = 1e-5

    @model_validator(mode="after")
    def _computed_in_float32(self) -> "PairTrainRecipe":
        unknown = {
            "precision": self.precision != "float32",
            "loss_chunk_tokens": self.loss_chunk_tokens is not None,
            "epochs": self.epochs is not None,
        }
        for key, given in unknown.items():
            if given:
                raise ValueError(f"train.{key} means nothing to a training on preferences")
        return self


class PreferenceTrainRecipe(PairTrainRecipe):
    """A whole model has more to learn than the head of a reward model."""

    steps: PositiveInt = 100


class WatchRecipe(Section):
    """When iterations of a policy are looked at, and saved."""

    log_every: PositiveInt = 1
    validate_every: PositiveInt = 20
    """How often the held-out prompts are answered."""
    sample_every: PositiveInt = 20
    save_every: PositiveInt = 10
    keep_checkpoints: PositiveInt = 2


class AlignRecipe(Section):
    kind: str
    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    base: str
    """A run or a model directory. Of a run with an adapter, the two as one."""
    data: AlignDataRecipe = AlignDataRecipe()
    tune: TuneRecipe = TuneRecipe()
    train: TrainRecipe | WatchRecipe
    generate: GenerateRecipe | None = None
    """For samples; left out, the base's own settings, and two of the held-out prompts."""

    rated: ClassVar[str]
    """The section with the learning rate."""

    @property
    def method(self) -> LengthsRecipe:
        """The section of the kind's own keys."""
        return getattr(self, self.kind)

    @model_validator(mode="before")
    @classmethod
    def _learning_rate_of_the_method(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not all(isinstance(content.get(k) or {}, dict) for k in ("tune", "train")):
            return content
        section, kind = cls.rated, cls.model_fields["kind"].default
        rate = RATES[kind].get(str((content.get("tune") or {}).get("method", "lora")), RATES[kind]["lora"])
        own = content.get(section) or {}
        return {**content, section: {"learning_rate": rate, **own}} if isinstance(own, dict) else content

    @model_validator(mode="after")
    def _tuned_as_it_can_be(self) -> "AlignRecipe":
        if self.tune.method in ("prompt", "prefix"):
            raise ValueError(f"alignment trains lora, dora or full, and no {self.tune.method}")
        if self.tune.dropout:
            raise ValueError("tune.dropout would make new and old probabilities differ from the first step on")
        return self


class RewardAlignRecipe(AlignRecipe):
    kind: Literal["reward"] = "reward"
    reward: RewardRecipe = RewardRecipe()
    train: PairTrainRecipe = PairTrainRecipe()
    rated = "train"


class PreferenceAlignRecipe(AlignRecipe):
    kind: Literal["dpo"] = "dpo"
    dpo: PreferenceRecipe = PreferenceRecipe()
    train: PreferenceTrainRecipe = PreferenceTrainRecipe()
    score: ScoreRecipe = ScoreRecipe()
    """Not trained with: it says how good responses are before and after."""
    rated = "train"


class PPOAlignRecipe(AlignRecipe):
    kind: Literal["ppo"] = "ppo"
    ppo: PPORecipe = PPORecipe()
    score: ScoreRecipe = ScoreRecipe()
    train: WatchRecipe = WatchRecipe()
    rated = "ppo"


class GroupAlignRecipe(AlignRecipe):
    kind: Literal["grpo"] = "grpo"
    grpo: GroupRecipe = GroupRecipe()
    score: ScoreRecipe = ScoreRecipe()
    train: WatchRecipe = WatchRecipe()
    rated = "grpo"


ALIGNMENTS: dict[str, type[AlignRecipe]] = {
    "reward": RewardAlignRecipe,
    "ppo": PPOAlignRecipe,
    "dpo": PreferenceAlignRecipe,
    "grpo": GroupAlignRecipe,
}
"""By the name of the command."""
