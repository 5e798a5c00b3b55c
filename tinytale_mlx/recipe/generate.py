"""How text is written: lengths and sampling. These settings travel with the model."""

from typing import Annotated

from pydantic import Field

from .section import PositiveInt, Section


class GenerateRecipe(Section):
    """Sampling defaults that travel with the model."""

    prompts: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: [""])
    """What the samples shown during and after training start with; an empty prompt starts a new document."""
    max_new_tokens: PositiveInt = 200
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
