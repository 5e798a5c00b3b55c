"""A recipe says everything about a run: data, tokenizer, model, training, generation. Nothing else does.

Each section has a file here. They are strict pydantic models: a key that is not there is refused with the nearest
name that is, a value of the wrong type is refused too. `recipe_files.py` reads them from YAML and applies
`--set a.b=c`.
"""

from typing import Annotated

from pydantic import Field

from .align_run import ALIGNMENTS, AlignDataRecipe, AlignRecipe
from .data import CleanRecipe, DataRecipe, SourceRecipe
from .finetune import ExamplesRecipe, FinetuneRecipe
from .generate import GenerateRecipe
from .model import ModelConfig, RopeScaling
from .section import Section
from .tokenizer import TokenizerRecipe
from .training import TrainRecipe

__all__ = [
    "ALIGNMENTS",
    "AlignDataRecipe",
    "AlignRecipe",
    "CleanRecipe",
    "DataRecipe",
    "ExamplesRecipe",
    "FinetuneRecipe",
    "GenerateRecipe",
    "ModelConfig",
    "Recipe",
    "RopeScaling",
    "SourceRecipe",
    "TokenizerRecipe",
    "TrainRecipe",
]


class Recipe(Section):
    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataRecipe = DataRecipe()
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    model: ModelConfig
    train: TrainRecipe = TrainRecipe()
    generate: GenerateRecipe = GenerateRecipe()
