"""`--wandb PROJECT`, of every command that trains: the figures of log.jsonl on a dashboard, for those who want one.

WANDB_MODE=offline keeps them on this machine. All of Weights & Biases' own files are in the run's folder.
"""

import json
import math
import uuid
from typing import Any

from tinytale_mlx.disk import replacing
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe_files import AnyRecipe
from tinytale_mlx.run import Run


class WandbTracker:
    """A run there for each run here: one that is resumed goes on in the same graph, by the id in its wandb.json.

    With `upload`, the model goes there at the end, or the adapter.
    """

    def __init__(self, project: str, upload: bool = False):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("--wandb needs one more package: pip install 'tinytale[wandb]'") from None
        self._wandb, self._project, self._upload = wandb, project, upload
        self._there: Any = None

    def start(self, run: Run, recipe: AnyRecipe, resumed: bool) -> None:
        self._run = run
        self._there = self._wandb.init(
            project=self._project,
            name=run.name,
            id=_identity(run),
            resume="allow",
            config=recipe.model_dump(mode="json"),
            dir=str(run.path),
        )
        # By our own steps: those of Weights & Biases only count up, and drop what is done again after a crash.
        self._there.define_metric("*", step_metric="step")

    def log(self, event: dict[str, Any]) -> None:
        if event["event"] in ("step", "validation"):
            self._there.log({name: value for name, value in event.items() if _is_finite(value)})
        elif event["event"] == "sample":
            self._there.log({"step": event["step"], "sample": event["text"]})

    def end(self, status: str) -> None:
        self._there.summary["status"] = status
        made = next((one for one in (self._run.model, self._run.adapter) if one.is_dir()), None)
        if self._upload and made is not None and status != "failed":
            model = self._wandb.Artifact(self._run.name, type="model")
            model.add_dir(str(made))
            self._there.log_artifact(model)
        self._there.finish(exit_code=1 if status == "failed" else 0)


def _identity(run: Run) -> str:
    """Of this run over there, for good."""
    path = run.path / "wandb.json"
    if not path.is_file():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"id": uuid.uuid4().hex[:16]}) + "\n", encoding="utf-8")
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
