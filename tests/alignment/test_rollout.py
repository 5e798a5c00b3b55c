"""Where scores come from, and the whole of PPO and of the group methods with a real model and its adapter."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tinytale_mlx.alignment.actor_critic import ActorCritic
from tinytale_mlx.alignment.group_policy import GroupPolicy
from tinytale_mlx.alignment.ppo import PPO
from tinytale_mlx.alignment.reward_model import RewardModel
from tinytale_mlx.alignment.rollout import (
    Responses,
    batch_sampler,
    function_scorer,
    kl_alarm,
    response_metrics,
    scores_of,
)
from tinytale_mlx.alignment.scoring import Rows, lay_out
from tinytale_mlx.errors import UserError
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe.align import GroupRecipe, PPORecipe
from tinytale_mlx.recipe.tuning import TuneRecipe
from tinytale_mlx.tuning.adapters import attach, new_adapter

EOS = 0
PROMPTS = [[1, 5, 9], [7], [3, 3, 4, 5]]
LENGTHS = {"prompt_tokens": 4, "response_tokens": 6}
LEARNING = {"micro_batch_size": 4, "learning_rate": 1e-2, "iterations": 100, "missing_eos": "none"}


def responses(*tokens: list[int]) -> Responses:
    ended = np.array([own[-1] == EOS for own in tokens])
    return Responses([[1, 2]] * len(tokens), list(tokens), ended, lay_out([[1, 2]] * len(tokens), list(tokens), 2, 6))


def decode(ids) -> str:
    return " ".join(map(str, ids))


def test_a_reward_function_sees_the_text_without_its_end():
    seen = []

    def reward(sample) -> float:
        seen.append(sample)
        return len(sample.response) / 2

    scorer = function_scorer(reward, decode, lambda prompt: ("42", {"id": prompt[0]}))
    found = scores_of(scorer, responses([3, 4, EOS], [5, 6]))
    assert found.tolist() == [1.5, 1.5]
    assert [(s.prompt, s.response, list(s.tokens), s.ended) for s in seen] == [
        ("1 2", "3 4", [3, 4, EOS], True),
        ("1 2", "5 6", [5, 6], False),
    ]
    assert (seen[0].answer, seen[0].row) == ("42", {"id": 1})


def test_a_score_that_is_no_number_names_its_response():
    with pytest.raises(UserError, match="on sample 1 "):
        scores_of(function_scorer(lambda s: float("nan") if "5" in s.response else 0, decode), responses([3], [5]))
    with pytest.raises(UserError, match="the score of response 1 is inf"):
        scores_of(lambda _: np.array([0, np.inf]), responses([3], [5]))
    with pytest.raises(ValueError, match="have scores of shape"):
        scores_of(lambda _: np.zeros(3), responses([3], [5]))


def test_when_a_kl_below_zero_is_an_alarm():
    dice = np.random.default_rng(0)
    assert kl_alarm(dice.normal(0.0, 1.0, 200)) is None
    assert kl_alarm(dice.normal(-0.1, 1.0, 200)) is None
    assert "not drawn from the policy" in (kl_alarm(dice.normal(-0.5, 1.0, 200)) or "")
    assert kl_alarm(np.full(4, -1e-7)) is None
    assert kl_alarm(np.array([-1.0])) is None


def test_responses_that_never_end_are_an_alarm():
    """Only where there is something to end with; one that ends is enough; a KL below zero is said beside it."""
    alarm = lambda found, stop, kl=0.0: response_metrics(found, np.zeros(2), np.full(2, kl), stop)["alarm"]  # noqa: E731
    never = responses([3, 4], [5, 6])
    assert "none of 2 responses ended within response_tokens 6" in alarm(never, {EOS})
    assert alarm(never, set()) is None
    assert alarm(responses([3, 4], [5, EOS]), {EOS}) is None
    both = alarm(never, {EOS}, -1.0)
    assert "not drawn from the policy" in both
    assert "none of 2 responses" in both


class Parts:
    """A policy with a fresh adapter, and a reward model."""

    def __init__(self, tiny):
        policy = Transformer(tiny(), seed=1)
        self.tuned = attach(policy, new_adapter(policy, TuneRecipe(rank=4), mx.random.key(0)))
        self.reward_model = RewardModel(Transformer(tiny(), seed=2), 32, mx.random.key(1))
        self.reward_model.head.weight = 10 * self.reward_model.head.weight

    def score(self, found: Responses) -> np.ndarray:
        return self.reward_model.score(found.rows)

    def arrays(self, model) -> dict[str, np.ndarray]:
        return {name: np.array(array) for name, array in tree_flatten(model.parameters())}


@pytest.fixture
def parts(tiny) -> Parts:
    return Parts(tiny)


@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_ppo_of_a_transformer(parts, critic):
    settings = PPORecipe(**LENGTHS, **LEARNING, batch_size=12, minibatches=2, epochs=2)
    model = ActorCritic(parts.tuned.model, parts.reward_model.as_critic() if critic == "separate" else 32)
    frozen = {n for n, _ in tree_flatten(model.parameters())} - {
        n for n, _ in tree_flatten(model.trainable_parameters())
    }
    before, judge = parts.arrays(model), parts.arrays(parts.reward_model)
    sampler = batch_sampler(settings, {EOS}, 36)
    ppo = PPO(model, settings, parts.score, parts.tuned.disabled, sampler, {EOS}, 0, vocabulary=36)
    first = ppo.iterate(PROMPTS * 4)
    assert (first["kl"], first["kl_k3"], first["first_ratio"]) == (0, 0, 1)
    assert first["first_approx_kl"] == pytest.approx(0, abs=1e-10)
    second = ppo.iterate(PROMPTS * 4)
    assert second["kl"] != 0
    assert second["alarm"] is None
    assert (second["value"] == 0) is False
    json.dumps(second, allow_nan=False)
    after = parts.arrays(model)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == before.keys() - frozen
    for name, array in parts.arrays(parts.reward_model).items():
        np.testing.assert_array_equal(array, judge[name])


def test_what_a_shared_critic_learns_moves_the_policy_and_a_separate_one_does_not(parts):
    rows = Rows(*map(mx.array, lay_out(PROMPTS, [[3, EOS]] * 3, 4, 6)))
    for critic in (32, parts.reward_model):
        model = ActorCritic(parts.tuned.model, critic)
        if critic == 32:
            model.value_head.weight = mx.ones(32)
        gradients = nn.value_and_grad(model, lambda model: model(rows)[1].sum())(model)[1]
        moved = any(mx.abs(array).max().item() > 0 for _, array in tree_flatten(gradients["policy"]))
        assert moved == (critic == 32)


@pytest.mark.parametrize("method", ["dr_grpo", "rloo"])
def test_groups_of_a_transformer(parts, method):
    settings = GroupRecipe(**LENGTHS, **LEARNING, method=method, prompts=3, group_size=4, epochs=2)
    sampler = batch_sampler(settings, {EOS}, 36)
    trainer = GroupPolicy(parts.tuned.model, settings, parts.score, parts.tuned.disabled, sampler, {EOS}, 0, 36)
    first, second = (trainer.iterate(PROMPTS) for _ in range(2))
    assert first["kl"] == 0
    assert second["kl"] != 0
    assert second["steps"] == 2
    assert second["score"] != first["score"]


def test_an_iteration_is_a_function_of_seed_and_number(tiny):
    def figures(seed: int) -> list[float]:
        parts = Parts(tiny)
        settings = GroupRecipe(**LENGTHS, **LEARNING, prompts=3, group_size=4)
        sampler = batch_sampler(settings, {EOS})
        trainer = GroupPolicy(parts.tuned.model, settings, parts.score, parts.tuned.disabled, sampler, {EOS}, seed)
        mx.random.seed(seed + 17)
        return [trainer.iterate(PROMPTS)["score"] for _ in range(2)]

    assert figures(0) == figures(0)
    assert figures(0)[0] != figures(1)[0]


@pytest.mark.slow
def test_a_transformer_learns_what_is_rewarded(tiny):
    """A token that the reward function counts becomes more frequent, and PPO with the KL at its target."""
    policy = Transformer(tiny(), seed=1)
    policy.model.embed_tokens.weight = 10 * policy.model.embed_tokens.weight  # so that a head without training can say
    tuned = attach(policy, new_adapter(policy, TuneRecipe(rank=8), mx.random.key(0)))
    count = lambda found: np.array([own.count(11) for own in found.tokens], np.float32)  # noqa: E731
    settings = PPORecipe(
        **LENGTHS, batch_size=96, micro_batch_size=96, sample_batch_size=96, minibatches=2, learning_rate=5e-3,
        iterations=40, epochs=4, critic="shared", kl_target=1.0, kl_horizon=600, beta=1.0, missing_eos="none",
    )  # fmt: skip
    ppo = PPO(ActorCritic(tuned.model, 32), settings, count, tuned.disabled, batch_sampler(settings, {EOS}), {EOS}, 0)
    figures = [ppo.iterate(PROMPTS * 32) for _ in range(40)]
    last = figures[-20:]
    assert np.mean([f["score"] for f in last]) > figures[0]["score"] + 0.5
    assert np.mean([f["kl"] for f in last]) == pytest.approx(1.0, abs=0.25)
    assert not any("the KL is" in (f["alarm"] or "") for f in figures)  # that no answer ends here is said rightly
