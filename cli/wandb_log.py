"""`tinytale train --wandb PROJECT`: the figures of log.jsonl on a dashboard, for those who want one."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinytale_mlx.errors import UserError

Notify = Callable[[dict[str, Any]], None]


class WandbLog:
    """Hands every event on, and its numbers to Weights & Biases. A resumed run goes on in the same graph."""

    def __init__(self, project: str, notify: Notify):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("--wandb needs one more package: pip install 'tinytale[wandb]'") from None
        self._wandb, self._project, self._notify = wandb, project, notify
        self._run: Any = None

    def notify(self, event: dict[str, Any]) -> None:
        self._notify(event)
        if event["event"] == "start":
            path = Path(event["run"]).resolve()
            identity = hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest()
            self._run = self._wandb.init(
                project=self._project, name=path.name, id=identity, resume="allow", config=event
            )
        elif event["event"] in ("step", "validation"):
            numbers = {name: value for name, value in event.items() if isinstance(value, int | float)}
            self._run.log(numbers, step=event["step"])
        elif event["event"] == "end":
            self._run.finish()
