"""A reward model: it learns which of two responses people prefer, and says of a single one how good it is."""

from collections.abc import Iterator
from typing import Any

from ..alignment.comparing import comparison_metrics
from ..alignment.preference_tuning import all_pairs
from ..alignment.reward_model import RewardModel, comparison_loss, reward_adapter, save_reward_model
from ..alignment.scoring import Rows
from ..randomness import key
from ..recipe.align_run import RewardAlignRecipe
from ..training.optimizers import make_optimizer
from ..training.precision import prepare
from ..tuning import attach, fuse
from ..tuning.quantize import dequantize
from .adapting import Trained, quantize_base
from .align_data import Wanted, comparisons
from .align_pairs import PairSession
from .align_session import rated, sampling
from .judging import sample


class RewardSession(PairSession):
    recipe: RewardAlignRecipe

    @staticmethod
    def wanted(recipe: RewardAlignRecipe) -> Wanted:
        return comparisons

    def build(self) -> None:
        recipe = self.recipe
        quantize_base(self.loaded.model, recipe)
        self.sampled = self._sample() if recipe.reward.normalize != "none" else None
        trunk = self.loaded.model
        model = RewardModel(trunk, trunk.config.hidden_size, key(recipe.seed, "head"))
        adapter = reward_adapter(model, recipe.tune, key(recipe.seed, "adapter"))
        self.tuned = attach(model, adapter, keep_base=False)
        prepare(model, "float32")
        self.arrays = self.data.train
        self.pairs = all_pairs(self.data.held)
        self.prepare(recipe.seed, model, Trained(model), rated(recipe, lambda: make_optimizer(recipe.train)))
        self.stepper = self.measured_step(comparison_loss(recipe.reward))

    def _sample(self) -> Rows:
        """Responses of the model that is to be aligned, while it still is that."""
        count = self.recipe.reward.normalize_samples
        prompts = (self.data.prompts * -(-count // len(self.data.prompts)))[:count]
        random = key(self.recipe.seed, "normalize")
        return sample(self.loaded.model, prompts, sampling(self.recipe), self.stop, self.vocabulary, random).rows

    def _scores(self) -> tuple[Any, Any]:
        """Of the chosen and of the rejected responses that are held out."""
        sides = [Rows(*(array[:, side] for array in self.pairs)) for side in (0, 1)]
        chosen, rejected = (self.model.score(rows, self.train.batch_size) for rows in sides)
        return chosen, rejected

    def held_out(self) -> dict[str, float]:
        chosen, rejected = self._scores()
        lengths = self.pairs.mask.sum(axis=-1)
        found = comparison_metrics(chosen, rejected, (lengths[:, 0], lengths[:, 1]))
        return {"val_loss": found.pop("loss"), **found}

    def samples(self, step: int) -> Iterator[str]:
        """What it says of the two responses to some of the held-out prompts."""
        chosen, rejected = self._scores()
        for number in range(min(len(chosen), 2)):
            both = []
            for side, score in enumerate((chosen[number], rejected[number])):
                start, mask = int(self.pairs.starts[number, side]), self.pairs.mask[number, side]
                ids = self.pairs.ids[number, side, start : start + int(mask.sum())]
                said = self.tokenizer.decode([i for i in ids.tolist() if i not in self.stop]).strip()
                both.append(f"{score:+.2f}  {said}")
            yield "\n\n".join(both)

    def save_result(self) -> None:
        """The whole model, whatever of it was trained, with the shift and the unit that make rewards comparable."""
        with self.averaged():
            fuse(self.tuned, dequantize=True)
            dequantize(self.model)
            if self.sampled is not None:
                self.model.normalize(self.sampled, self.recipe.reward.normalize, self.train.batch_size)
            save_reward_model(self.run.reward, self.model)

    def details(self) -> dict[str, Any]:
        found = {"reward_bias": self.model.bias, "reward_gain": self.model.gain}
        if self.sampled is not None:
            scores = self.model.score(self.sampled, self.train.batch_size)
            found |= {"reward_mean": float(scores.mean()), "reward_std": float(scores.std())}
        return found
