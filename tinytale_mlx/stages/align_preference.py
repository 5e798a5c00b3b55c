"""DPO and its kin: the model learns from pairs of responses, or from single ones with labels, without writing any."""

from typing import Any

import numpy as np

from ..alignment.measured import MeasuredLoss
from ..alignment.pairs import Comparisons, Labels
from ..alignment.preference_tuning import (
    KTOStep,
    Pairs,
    all_pairs,
    kto_loss,
    labelled_rows,
    preference_loss,
    with_reference,
)
from ..recipe.align_run import PreferenceAlignRecipe
from ..training.optimizers import make_optimizer
from ..training.precision import prepare
from .adapting import Trained, tune
from .align_data import Wanted, labels, preferences
from .align_pairs import PairSession
from .align_session import rated, sampling
from .judging import Judge, find_scores


class PreferenceSession(PairSession):
    recipe: PreferenceAlignRecipe

    @staticmethod
    def wanted(recipe: PreferenceAlignRecipe) -> Wanted:
        return labels if recipe.dpo.method == "kto" else preferences

    def build(self) -> None:
        recipe = self.recipe
        self.tuned = tune(self.loaded, recipe, keep_base=True)
        named = recipe.score.reward_model or recipe.score.functions
        scores = find_scores(recipe.score, self.loaded, self.data, recipe.dpo, self.root) if named else None
        self.judge = Judge(
            self.data.held_prompts, sampling(recipe), self.tuned.disabled, self.stop, recipe.seed, self.vocabulary,
            scores and scores.scorer,
        )  # fmt: skip
        self.look_before()
        self.arrays, self.held = self._rows(self.data.train), self._rows(self.data.held)
        prepare(self.tuned.model, "float32")
        self.prepare(
            recipe.seed,
            self.tuned.model,
            Trained(self.tuned.model),
            rated(recipe, lambda: make_optimizer(recipe.train)),
        )
        loss = kto_loss(recipe.dpo) if self.is_kto else preference_loss(recipe.dpo)
        self.loss: MeasuredLoss = loss
        step = self.measured_step(loss)
        self.stepper = KTOStep(step, self.tuned.disabled) if self.is_kto else step

    @property
    def is_kto(self) -> bool:
        return self.recipe.dpo.method == "kto"

    def _rows(self, data: Comparisons | Labels) -> Any:
        """With what the reference thinks of them."""
        size = self.train.batch_size
        if isinstance(data, Labels):
            return labelled_rows(data, self.tuned.disabled, size)
        rows = all_pairs(data)
        return Pairs(*rows, with_reference(rows, self.tuned.disabled, size))

    @property
    def measured(self) -> dict[str, float]:
        return self.stepper.step.measured if isinstance(self.stepper, KTOStep) else self.stepper.measured

    def held_out(self) -> dict[str, float]:
        arrays = [*self.held]
        if isinstance(self.stepper, KTOStep):
            arrays.append(np.full(len(arrays[0]), self.stepper.baseline, np.float32))
        found = self.measure(self.loss, arrays)
        return {"val_loss": found.pop("loss"), **{f"val_{name}": value for name, value in found.items()}}

    def judge_now(self) -> dict[str, float]:
        return self.judge(self.writer)

    def look_after(self) -> None:
        super().look_after()
        with self.averaged():
            self.figures.update(self.judge_now())

    def details(self) -> dict[str, Any]:
        return {"kl_target": None, "beta": self.recipe.dpo.beta}
