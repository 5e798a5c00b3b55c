"""`--tensorboard`, of every command that trains: the figures of log.jsonl for TensorBoard, in the run's folder.

`tensorboard --logdir runs` then shows all runs.
"""

import math
from typing import Any

from tinytale_mlx import recipe_files
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe_files import AnyRecipe
from tinytale_mlx.run import Run

FOLDERS = {"step": "train", "validation": "validation"}
"""Under which heading the figures of an event stand."""


class TensorBoardTracker:
    """A graph per figure; a resumed run goes on in the same ones, from the step of its checkpoint."""

    def __init__(self) -> None:
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("--tensorboard needs one more package: pip install 'tinytale[tensorboard]'") from None
        self._make_writer: Any = SummaryWriter
        self._writer: Any = None

    def start(self, run: Run, recipe: AnyRecipe, resumed: bool) -> None:
        self._folder, self._recipe, self._resumed = run.path / "tensorboard", recipe, resumed

    def log(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "start":
            # What a killed session logged after that checkpoint is struck out.
            purge = event["step"] + 1 if self._resumed else None
            self._writer = self._make_writer(str(self._folder), purge_step=purge)
            if not self._resumed:
                self._writer.add_text("recipe", _verbatim(recipe_files.dump(self._recipe)))
        elif kind in FOLDERS:
            for name, value in event.items():
                if isinstance(value, int | float) and math.isfinite(value) and name not in ("step", "time"):
                    tag = f"{FOLDERS[kind]}/{name.removeprefix('val_')}"
                    self._writer.add_scalar(tag, value, event["step"])
        elif kind == "sample":
            self._writer.add_text("sample", _verbatim(event["text"]), event["step"])
        if kind in ("validation", "sample"):
            self._writer.flush()

    def end(self, status: str) -> None:
        if self._writer is not None:
            self._writer.close()


def _verbatim(text: str) -> str:
    """Markdown that shows the text as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
