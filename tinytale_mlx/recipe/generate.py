"""How text is written: lengths, sampling and where it ends. These settings travel with the model."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from .section import PositiveFloat, PositiveInt, Section


def _numbers(bias: Any) -> Any:
    """JSON and YAML may have written the ids as text."""
    if not isinstance(bias, dict):
        return bias
    return {int(key) if isinstance(key, str) and key.isdecimal() else key: value for key, value in bias.items()}


def _listed(texts: Any) -> Any:
    return [texts] if isinstance(texts, str) else texts


Texts = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[dict[Annotated[int, Field(ge=0)], float], BeforeValidator(_numbers)]


class GenerateRecipe(Section):
    """Sampling defaults that travel with the model.

    In the order in which they act on the next token's logits: `logit_bias`, the penalties, `no_repeat_ngram`,
    `min_new_tokens`, then `temperature`, and on what that has shaped `top_k`, `top_p`, `min_p` and `typical_p`.
    The penalties and `no_repeat_ngram` look at all the text so far, the prompt included.
    """

    prompts: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: [""])
    """What the samples shown during and after training start with; an empty prompt starts a new document."""
    max_new_tokens: PositiveInt = 200
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """The text does not end before so many tokens."""
    stop: Texts = Field(default_factory=list)
    """Texts that end the answer, one or a list; they are not part of it."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Leave out tokens with less than this share of the likeliest token's probability; 0 leaves all in."""
    typical_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Choose among the tokens nearest to the expected surprise that sum to p; 1 is all."""
    repetition_penalty: PositiveFloat = 1.0
    """Above 1, tokens of the text so far become less likely; 1 changes nothing."""
    frequency_penalty: Penalty = 0.0
    """Taken from a token's logit for each time it is in the text so far."""
    presence_penalty: Penalty = 0.0
    """Taken from a token's logit once if it is in the text so far."""
    no_repeat_ngram: Annotated[int, Field(ge=0)] = 0
    """No sequence of so many tokens comes twice; 0 allows all."""
    logit_bias: Bias = Field(default_factory=dict)
    """Token id: what is added to its logit; -100 rules it out."""
    beams: PositiveInt = 1
    """Above 1, beam search: the likeliest text found with so many beams, not drawn by chance."""
    length_penalty: float = 1.0
    """Beams are compared by log-probability / tokens ** length_penalty; higher prefers longer texts."""

    @model_validator(mode="after")
    def _a_text_may_end(self) -> "GenerateRecipe":
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens {self.min_new_tokens} is more than max_new_tokens {self.max_new_tokens}")
        return self
