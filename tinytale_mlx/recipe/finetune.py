"""A fine-tuning: which model, which examples, what of the model learns, and how."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .generate import GenerateRecipe
from .section import Fraction, PositiveFloat, PositiveInt, Section
from .training import TrainRecipe
from .tuning import TuneRecipe

RATES = {"full": 3e-4, "lora": 2e-3, "dora": 2e-3, "prompt": 3e-2, "prefix": 1e-2}
"""The learning rate of each method where the recipe names none: the fewer weights learn, the faster they have to."""

WARMUP = 10


class ExamplesRecipe(Section):
    """The examples to follow: conversations, of which the answers are trained, or texts, trained whole."""

    source: str | list[str] = "tales"
    """`tales` (the embedded conversations), `identity` (fifty questions about the model itself), `endings` (of embedded
    tales, three in four unkind: something for alignment to mend), files, or a data set, as in `data.source` of a
    training."""
    documents: PositiveInt | None = None
    """At most this many."""
    field: str = "text"
    skip_bad: bool = False
    template: Literal["chatml", "lillm", "question", "alpaca", "plain"] | None = None
    """How a conversation is written; left out, as the base's own template does; without one, ChatML where the tokenizer
    has its markers, else `Question: ...`."""
    context: PositiveInt | None = None
    """Longest example, in tokens; left out, what the model reads, at most 1,024."""
    too_long: Literal["drop", "truncate"] = "drop"
    rows: Literal["binned", "packed"] = "binned"
    """Examples of like length together, or several in one row, each of which sees itself only."""
    validation: Fraction | None = None
    """Share of the examples held out; left out, a twentieth, and nothing of fewer than 200: such a set is to be
    learned by heart. With nothing held out the validation loss is that of the training examples."""
    validation_source: str | list[str] | None = None
    """Examples of their own for validation."""
    replay: Fraction = 0.0
    """Share of the batches that are of the text that the base was trained on, against forgetting it (Rolnick et al.
    2019); the base must be a run."""


class TuneTrainRecipe(TrainRecipe):
    """As in a training, with other defaults."""

    steps: PositiveInt = 300
    warmup_steps: Annotated[int, Field(ge=0)] = WARMUP
    """Left out, no more than a tenth of the steps."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta2: Fraction = 0.99
    learning_rate: PositiveFloat = RATES["lora"]
    """Left out, that of the method."""
    validate_every: PositiveInt = 50
    save_every: PositiveInt = 50
    sample_every: PositiveInt = 100
    final_model: Literal["last", "best"] = "best"

    @model_validator(mode="before")
    @classmethod
    def _few_steps_have_a_short_warmup(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(steps := content.get("steps"), int):
            return {"warmup_steps": min(WARMUP, steps // 10), **content}
        return content


class FinetuneRecipe(Section):
    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    base: str
    """A run, a model directory, or a model of the Hugging Face hub."""
    data: ExamplesRecipe = ExamplesRecipe()
    tune: TuneRecipe = TuneRecipe()
    train: TuneTrainRecipe = TuneTrainRecipe()
    generate: GenerateRecipe | None = None
    """Left out, the base's own settings, and two of the examples as prompts."""

    @model_validator(mode="before")
    @classmethod
    def _what_follows_from_the_others(cls, content: Any) -> Any:
        """The learning rate is that of the method, where none is given."""
        if not isinstance(content, dict) or not isinstance(content.get("train") or {}, dict):
            return content
        tune = content.get("tune") or {}
        method = tune.get("method", "lora") if isinstance(tune, dict) else "lora"
        train = {"learning_rate": RATES.get(str(method), RATES["lora"]), **(content.get("train") or {})}
        return {**content, "train": train}

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "FinetuneRecipe":
        if self.data.rows == "packed" and self.tune.method in ("prompt", "prefix"):
            raise ValueError(
                f"the method {self.tune.method} stands before one text per row; leave out data.rows packed"
            )
        if self.tune.lora_plus_ratio is not None and self.train.optimizer == "muon":
            raise ValueError("tune.lora_plus_ratio goes with optimisers that have one learning rate, and muon has two")
        if self.train.epochs is not None:
            raise ValueError("train.epochs is for training from scratch; give train.steps")
        return self
