"""Alignment: a trained model, and what people prefer. What the four kinds of it have in common.

reward   a model that says how good a response is         align_reward.py
dpo      the model learns from pairs of responses         align_preference.py
ppo      it writes responses, and learns from scores      align_policy.py
grpo     the same, with several responses to each prompt  align_policy.py
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import recipe_files, run
from ..recipe import AlignRecipe
from ..run import Run
from ..training.loop import train as run_loop
from .adapting import load_fused, run_of
from .align_policy import PolicySession
from .align_preference import PreferenceSession
from .align_reward import RewardSession
from .align_session import AlignSession
from .finetuning import FinetuneResult
from .sitting import sit_with_base
from .tokenizing import Notify
from .trackers import Tracker


@dataclass
class AlignResult(FinetuneResult):
    """`before` and `figures` are of the same held-out prompts, before and after."""

    kind: str = ""
    before: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """What only this kind has to say."""
    tokens_per_second: float = math.nan
    peak_memory_bytes: int = 0
    """Of the training itself."""

    @property
    def model(self) -> Path:
        return self.run.reward if self.kind == "reward" else super().model

    def to_json(self) -> dict[str, Any]:
        progress = self.progress
        return {
            "run": str(self.run.path),
            "model": str(self.model),
            "kind": self.kind,
            "status": self.status,
            "steps": progress.step,
            **{f"{name}_before": value for name, value in self.before.items() if name not in FROM_BEFORE},
            **{self._after(name): value for name, value in self.figures.items()},
            **self.details,
            "tokens_per_second": self.tokens_per_second,
            "seconds": progress.seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    def _after(self, name: str) -> str:
        """What a figure is called that may have one from before."""
        return f"{name}_after" if name in self.before and name not in FROM_BEFORE else name


FROM_BEFORE = ("kl", "kl_standard_error")
"""Figures that say how far the model is from what it was before."""


# ---------------------------------------------------------------------- which base, with which recipe
def align_recipe(kind: str, base: str | None, overrides: Sequence[str], root: Path = run.ROOT) -> AlignRecipe:
    """A new recipe for the base: by default the latest run, or what that was aligned from. PPO and GRPO get the newest
    reward model of that base, where the overrides name nothing to go by.

    Raises UserError for an unknown key, a value out of range, and where there is no run.
    """
    base = base or _default_base(root)
    this = run_of(base, root)
    if this is not None:
        base = this.name if this.path.resolve().parent == root.resolve() else str(this.path.resolve())
    elif Path(base).is_dir():
        base = str(Path(base).resolve())
    content: dict[str, Any] = {"name": f"{Path(base).name}-{kind}", "base": base}
    scored = any(override.startswith("score") for override in overrides)
    if kind in ("ppo", "grpo") and not scored and (found := _newest_reward(base, root)):
        content["score"] = {"reward_model": found.name}
    return recipe_files.make_align(kind, content, list(overrides))


def _default_base(root: Path) -> str:
    latest = run.find(None, root)
    return latest.align_recipe().base if latest.is_align() else latest.name


def _newest_reward(base: str, root: Path) -> Run | None:
    """Of the finished reward models of this base."""
    found = [Run(path.parent) for path in root.glob("*/reward") if not path.parent.is_symlink()]
    own = [one for one in found if one.kind == "reward" and one.align_recipe().base == base]
    return max(own, key=lambda one: one.reward.stat().st_mtime, default=None)


# ---------------------------------------------------------------------- the stage
def align(
    recipe: AlignRecipe,
    name: str | None = None,
    resume: bool = False,
    root: Path = run.ROOT,
    notify: Notify = lambda event: None,
    stop_requested: Callable[[], bool] = lambda: False,
    force: bool = False,
    trackers: Sequence[Tracker] = (),
) -> AlignResult:
    """Align a model, or train a reward model, or go on with either where its last checkpoint is.

    The same recipe gives the same weights, however often the run was interrupted. Raises UserError for whatever the
    user can mend; a new run that failed before its first checkpoint leaves nothing behind.
    """
    make = partial(SESSIONS[recipe.kind], force=force)
    return sit_with_base(recipe, load_fused, make, _train, name, resume, root, notify, stop_requested, trackers)


SESSIONS: dict[str, type[AlignSession]] = {
    "reward": RewardSession,
    "ppo": PolicySession,
    "dpo": PreferenceSession,
    "grpo": PolicySession,
}


def _train(session: AlignSession, stop_requested: Callable[[], bool]) -> AlignResult:
    train = session.train
    session.loaded.model.recompute(train.gradient_checkpointing, train.gradient_checkpointing_every)
    step, batch_at = session.step()
    session.start()
    mx.reset_peak_memory()
    hooks = session.hooks(stop_requested)
    status = run_loop(step, batch_at, train, session.seed, session.progress, hooks)
    if train.final_model == "best":
        session.take_best()
    session.save_result()
    peak = mx.get_peak_memory()
    details: dict[str, Any] = {}
    if status != "interrupted":
        details = session.details()
        session.look_after()
    result = AlignResult(
        session.run, status, session.progress, session.figures, [], session.recipe.kind, session.before, details,
        session.tokens_per_second, peak,
    )  # fmt: skip
    if status != "interrupted":
        result.samples = session.closing_samples()
    session.log({"event": "end", **result.to_json()})
    return result
