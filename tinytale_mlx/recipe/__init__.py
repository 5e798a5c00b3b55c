"""A recipe says everything about a run: data, tokenizer, model, training, generation. Nothing else does.

Each section has a file here. They are strict pydantic models: a key that is not there is refused with the nearest
name that is, a value of the wrong type is refused too. `recipe_files.py` reads them from YAML and applies
`--set a.b=c`.
"""

from typing import Annotated

from pydantic import Field

from .data import CleanRecipe, DataRecipe, SourceRecipe
from .model import ModelConfig, RopeScaling
from .section import PositiveInt, Section
from .tokenizer import TokenizerRecipe
from .training import TrainRecipe

__all__ = [
    "CleanRecipe",
    "DataRecipe",
    "GenerateRecipe",
    "ModelConfig",
    "Recipe",
    "RopeScaling",
    "SourceRecipe",
    "TokenizerRecipe",
    "TrainRecipe",
]


class GenerateRecipe(Section):
    """Sampling defaults that travel with the model."""

    prompts: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: [""])
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
