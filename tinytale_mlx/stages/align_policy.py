"""PPO and GRPO: the model writes, something says how good that is, and the model learns from it."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from ..alignment.actor_critic import ActorCritic
from ..alignment.group_policy import GroupPolicy
from ..alignment.measured import adam
from ..alignment.pairs import ShuffledRows
from ..alignment.policy_trainer import PolicyTrainer
from ..alignment.ppo import PPO, OtherText
from ..alignment.reward_model import RewardModel, ScalarHead, reward_adapter
from ..alignment.rollout import batch_sampler
from ..errors import UserError
from ..models.parameters import named_arrays
from ..randomness import key
from ..recipe import TrainRecipe
from ..recipe.align import GroupRecipe, PPORecipe
from ..recipe.align_run import GroupAlignRecipe, PPOAlignRecipe
from ..training.precision import prepare
from ..training.step import StepResult
from ..tuning import attach
from .adapting import Trained, run_of, tune
from .align_data import Wanted, anything
from .align_session import AlignSession, rated
from .finetune_data import corpus_of
from .judging import Judge, find_scores


class PolicySession(AlignSession):
    """One optimiser step of the loop is one iteration: responses are written, scored, and learned from."""

    recipe: PPOAlignRecipe | GroupAlignRecipe
    trainer: PolicyTrainer

    @staticmethod
    def wanted(recipe: Any) -> Wanted:
        return anything

    @property
    def settings(self) -> PPORecipe | GroupRecipe:
        return self.recipe.ppo if isinstance(self.recipe, PPOAlignRecipe) else self.recipe.grpo

    @property
    def train(self) -> TrainRecipe:
        """As the loop has it. The learning rate that counts is the trainer's."""
        how = {"steps": self.settings.iterations, "learning_rate": self.settings.learning_rate, "schedule": "linear"}
        return TrainRecipe(**how, keep_best=0, **self.recipe.train.model_dump())

    def build(self) -> None:
        recipe, settings = self.recipe, self.settings
        self.scores = find_scores(recipe.score, self.loaded, self.data, settings, self.root)
        self.tuned = tune(self.loaded, recipe, keep_base=True)
        self.judge = Judge(
            self.data.held_prompts, settings, self.tuned.disabled, self.stop, recipe.seed, self.vocabulary,
            self.scores.scorer,
        )  # fmt: skip
        self.look_before()
        model: Any = self.tuned.model
        if isinstance(settings, PPORecipe):
            model = ActorCritic(model, self._critic() if settings.critic == "separate" else self.width)
        prepare(model, "float32")
        self.prepare(recipe.seed, model, Trained(model), rated(recipe, adam))
        self.last: dict[str, Any] = {}
        self._alarmed: set[str] = set()

    @property
    def rows_key(self) -> str:  # type: ignore[override]
        return f"{self.recipe.kind}.micro_batch_size"

    @property
    def rows_at_a_time(self) -> int:
        return self.settings.micro_batch_size

    @property
    def width(self) -> int:
        return self.loaded.model.config.hidden_size

    def _critic(self) -> RewardModel:
        """It begins as the reward model; where functions say what is good, as the base with a head of zeros. Of a
        policy with an adapter it has one as well."""
        if self.scores.reward is not None:
            critic = self.scores.reward.as_critic()
        else:
            with self.tuned.disabled() as base:
                trunk = copy.deepcopy(base, {id(array): array for _, array in named_arrays(base.parameters())})
            critic = RewardModel(trunk, self.width, mx.random.key(0))
            critic.head = ScalarHead(self.width)
        if self.recipe.tune.method != "full":
            adapter = reward_adapter(critic, self.recipe.tune, key(self.recipe.seed, "critic"))
            attach(critic, adapter, any_base=True, keep_base=False)
        return critic

    def step(self) -> tuple[Any, Callable[[int], Any]]:
        settings, recipe = self.settings, self.recipe
        common = (
            self.scores.scorer, self.tuned.disabled, batch_sampler(settings, self.stop, self.vocabulary), self.stop,
            recipe.seed, self.vocabulary,
        )  # fmt: skip
        if isinstance(settings, PPORecipe):
            ptx = self._other_text(settings) if settings.ptx_coefficient else None
            self.trainer = PPO(self.model, settings, *common, ptx=ptx, optimizer=self.optimizer)
        else:
            self.trainer = GroupPolicy(self.model, settings, *common, optimizer=self.optimizer)
        if self.trainer_state is not None:
            self.trainer.restore(self.trainer_state)
        return self._iterate, self._prompts()

    def _other_text(self, settings: PPORecipe) -> OtherText:
        """The text that the model was trained on at first, before anybody tuned it."""
        base = run_of(self.recipe.base, self.root)
        while base is not None and base.has_base():
            base = run_of(base.tuning_recipe().base, self.root)
        batches = corpus_of(base, 1, self.tokenizer, "ppo.ptx_coefficient").batches
        most = -(-settings.batch_size // settings.minibatches)

        def rows(number: int, count: int) -> tuple[np.ndarray, np.ndarray]:
            found = [batches.at(number * most + row) for row in range(count)]
            return np.concatenate([one.tokens for one in found]), np.concatenate([one.weights for one in found])

        return rows

    def _prompts(self) -> Callable[[int], Any]:
        """Those of each iteration: all of them once, in another order, before any comes again."""
        settings, prompts = self.settings, self.data.prompts
        count = settings.batch_size if isinstance(settings, PPORecipe) else settings.prompts
        numbers = np.tile(np.arange(len(prompts)), -(-count // len(prompts)))
        batches = ShuffledRows([numbers], count, self.recipe.seed)
        return lambda number: [prompts[i] for i in batches.at(number)[0]]

    def _iterate(self, batches: Iterable[Any], learning_rate: float, key: mx.array) -> StepResult:
        """What the loop takes for a step: its loss is minus the score."""
        [prompts] = batches
        with self._keeping():
            self.last = self.trainer.iterate(prompts)
        for alarm in {self.last["alarm"]} - {None} - self._alarmed:
            self._alarmed.add(alarm)
            self.warn(f"iteration {self.last['iteration']}: {alarm}")
        count = len(prompts) * getattr(self.settings, "group_size", 1)
        tokens = self.last["response_tokens"] * count
        norm = self.last["grad_norm"] or 0.0
        return StepResult(-self.last["score"] * tokens, tokens, norm, bool(np.isfinite(norm)))

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """What has been learned is not lost where a response can't be scored."""
        try:
            yield
        except UserError as error:
            if not self.progress.step:
                raise
            self.save(self.progress)
            raise UserError(
                f"{error}; all {self.progress.step} iterations before it are saved, and once that is mended "
                f"`{self.run.resume_command}` goes on"
            ) from error

    # ------------------------------------------------------------------ what is said
    def step_figures(self) -> dict[str, Any]:
        return {name: value for name, value in self.last.items() if name != "iteration"}

    def held_out(self) -> dict[str, float]:
        with self._keeping():
            found = self.judge(self.writer)
        return {"val_loss": -found["score"], **found}

    def judge_now(self) -> dict[str, float]:
        return self.judge(self.writer)

    def trainer_json(self) -> dict[str, Any]:
        return self.trainer.to_json()

    def details(self) -> dict[str, Any]:
        target = self.settings.kl_target if isinstance(self.settings, PPORecipe) else None
        return {"kl_target": target, "beta": self.last.get("next_beta", self.trainer.beta)}
