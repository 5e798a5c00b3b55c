"""A small trained base, for tests of what is made of it."""

import contextlib
from pathlib import Path

from tinytale_mlx import recipe_files, stages

BASE = """
name: base
data: {source: tales, documents: 200, validation: 0.05}
tokenizer: {kind: bpe, vocab_size: 512}
model: {hidden_size: 64, layers: 2, heads: 2, intermediate_size: 64, context: 64}
train: {steps: 10, batch_size: 4, learning_rate: 3e-3, save_every: 10}
generate: {max_new_tokens: 12}
"""


def train_base(folder: Path, *changes: str, recipe: str = BASE) -> None:
    """Train the recipe, with these overrides, as a run in `folder`."""
    (folder / "base.yaml").write_text(recipe)
    with contextlib.chdir(folder):
        stages.train(recipe_files.load("base.yaml", list(changes)))


def tune_base(folder: Path, name: str, *changes: str) -> None:
    """Fine-tune the run `base` in `folder`, as a run of that name."""
    with contextlib.chdir(folder):
        stages.finetune(stages.finetune_recipe("base", list(changes)), name)
