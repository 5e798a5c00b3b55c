"""PPO reaches the policy that is known to be best, its KL the target, and its figures say what happened."""

import json
import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from enumerable import (
    BEGIN,
    EOS,
    REWARDS,
    STATES,
    Table,
    all_rows,
    best,
    divergence,
    fixed,
    probabilities,
    sampler,
    scorer,
)

from tinytale_mlx.alignment.actor_critic import ActorCritic
from tinytale_mlx.alignment.measured import MeasuredStep
from tinytale_mlx.alignment.ppo import PPO, ppo_losses
from tinytale_mlx.alignment.rollout import kl_alarm, penalized
from tinytale_mlx.alignment.scoring import Rows, response_logps
from tinytale_mlx.recipe.align import PPORecipe

START = probabilities(Table())


def trainer(scores=scorer, seed: int = 0, ptx=None, **changes) -> PPO:
    given = {
        "prompt_tokens": 1, "response_tokens": 3, "iterations": 150, "batch_size": 256, "minibatches": 2,
        "micro_batch_size": 128, "learning_rate": 0.05, "kl_target": None, "beta": 0.3, "critic": "shared",
        "missing_eos": "none", "epochs": 4, "value_clip": 0.2, "kl_horizon": 2000,
    }  # fmt: skip
    settings = PPORecipe(**{**given, **changes})
    return PPO(ActorCritic(Table(), STATES), settings, scores, fixed(Table()), sampler, {EOS}, seed, ptx=ptx)


def run(ppo: PPO) -> list[dict]:
    return [ppo.iterate([[BEGIN]] * ppo.settings.batch_size) for _ in range(ppo.settings.iterations - ppo.iteration)]


def policy(ppo: PPO) -> np.ndarray:
    return probabilities(ppo.model.policy)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_policy_becomes_the_best_one(beta):
    ppo = trainer(beta=beta)
    figures = run(ppo)
    found, wanted = policy(ppo), best(START, beta)
    assert divergence(START, wanted) > 0.1
    assert divergence(found, wanted) < 0.005
    assert found @ REWARDS == pytest.approx(wanted @ REWARDS, abs=0.01)
    assert figures[-1]["explained_variance"] > 0.9
    assert figures[-1]["kl"] == pytest.approx(divergence(wanted, START), abs=4 * figures[-1]["kl_standard_error"])


@pytest.mark.slow
def test_adaptive_kl_settles_on_its_target():
    ppo = trainer(beta=0.2, kl_target=0.5, iterations=300)
    figures = run(ppo)[-100:]
    betas = np.linspace(0.2, 1.0, 2000)
    right = betas[np.abs([divergence(best(START, b), START) - 0.5 for b in betas]).argmin()]
    assert np.mean([f["kl"] for f in figures]) == pytest.approx(0.5, rel=0.05)
    assert np.mean([f["beta"] for f in figures]) == pytest.approx(right, rel=0.05)


def test_the_first_iteration_starts_from_the_reference():
    ppo = trainer()
    figures = ppo.iterate([[BEGIN]] * 256)
    assert figures["kl"] == 0
    assert figures["kl_k3"] == 0
    assert figures["first_ratio"] == 1
    assert figures["first_approx_kl"] == 0
    assert figures["alarm"] is None
    assert figures["value"] == 0
    assert figures["rlhf_reward"] == figures["score"]
    assert figures["approx_kl"] > 0
    assert (figures["steps"], figures["epochs"]) == (8, 4)
    json.dumps(figures, allow_nan=False)


def test_a_rollout_pays_for_its_kl_and_not_for_its_padding():
    ppo = trainer()
    ppo.model.policy.table = mx.array(np.random.default_rng(5).normal(size=(STATES, 5)), mx.float32)
    ppo.model.value_head.weight = mx.array(np.random.default_rng(6).normal(size=STATES), mx.float32)
    rollout = ppo.rollout([[BEGIN]] * 256)
    outside = rollout.responses.rows.mask == 0
    assert outside.any()
    np.testing.assert_allclose(rollout.rewards.sum(axis=1), rollout.scores - 0.3 * rollout.kl, atol=1e-5)
    for array in (rollout.logps, rollout.rewards, rollout.advantages, rollout.returns, rollout.entropy):
        assert not array[outside].any()
    inside = ~outside
    raw = (rollout.returns - rollout.values)[inside]
    np.testing.assert_allclose(rollout.advantages[inside], (raw - raw.mean()) / raw.std(), atol=1e-4)
    assert rollout.advantages[inside].mean() == pytest.approx(0, abs=1e-5)
    assert rollout.advantages[inside].std() == pytest.approx(1, abs=1e-4)
    assert (rollout.entropy[inside] > 0).all()


# ---------------------------------------------------------------------- negative controls
def test_a_reward_that_says_nothing_teaches_nothing():
    ppo = trainer(scores=lambda responses: np.full(len(responses.tokens), 0.7, np.float32), iterations=40)
    run(ppo)
    assert divergence(policy(ppo), START) < 0.01


def test_kl_that_costs_nothing_is_spent():
    ppo = trainer(beta=0.0, iterations=80)
    figures = run(ppo)
    assert policy(ppo).argmax() == REWARDS.argmax() or figures[-1]["score"] > 0.9 * REWARDS.max()
    assert figures[-1]["kl"] > 2
    assert figures[-1]["entropy"] < 0.3 * figures[0]["entropy"]


def test_a_price_beyond_all_rewards_keeps_the_reference():
    ppo = trainer(beta=100.0, iterations=20, learning_rate=0.01)
    run(ppo)
    assert divergence(policy(ppo), START) < 0.001


def test_the_wrong_policy_is_noticed():
    """Responses that another policy drew: their KL is far below 0."""
    ppo = trainer()
    other = Table(seed=9)
    ppo.sampler = lambda model, *rest: sampler(other, *rest)
    ppo.model.policy.table = -other.table
    assert "not drawn from the policy" in ppo.iterate([[BEGIN]] * 256)["alarm"]
    assert kl_alarm(np.array([-1.0, 2.0, -0.5, 0.1])) is None


def test_a_policy_that_never_ends_is_noticed():
    ppo = trainer()
    ppo.sampler = lambda model, prompts, *_: [[1, 2, 3]] * len(prompts)
    assert "none of 256 responses ended" in ppo.iterate([[BEGIN]] * 256)["alarm"]


# ---------------------------------------------------------------------- the value function
def test_values_become_expected_rewards():
    """Of a policy that stands still, at every beginning: the mean reward of what may follow."""
    ppo = trainer(value_clip=None, value_coefficient=1.0, beta=0.0, iterations=60)
    ppo.model.freeze()
    ppo.model.value_head.unfreeze()
    ppo.step = MeasuredStep(ppo.model, ppo.step.measure)
    assert run(ppo)[-1]["kl"] == 0
    rows = all_rows()
    values = np.array(ppo.model(Rows(*map(mx.array, rows)))[1])
    states = np.array(ppo.model.policy.hidden(mx.array(rows.ids))).argmax(axis=-1)[:, :3]
    inside, weights = rows.mask > 0, np.broadcast_to(START[:, None], (len(START), 3))
    total, reward = np.zeros(STATES), np.zeros(STATES)
    np.add.at(total, states[inside], weights[inside])
    np.add.at(reward, states[inside], (weights * REWARDS[:, None])[inside])
    expected = (reward / total)[states]
    error = np.average((values - expected)[inside] ** 2, weights=weights[inside])
    variance = np.cov(expected[inside], aweights=weights[inside])
    assert error < 2e-3
    assert 1 - error / variance > 0.9


# ---------------------------------------------------------------------- rules
def test_missing_ends():
    ended, scores = np.array([True, False]), np.array([2.0, 3.0], np.float32)
    rule = lambda name: penalized(scores, ended, PPORecipe(missing_eos=name, missing_eos_penalty=1.5)).tolist()  # noqa: E731
    assert rule("subtract") == [2.0, 1.5]
    assert rule("replace") == [2.0, -1.5]
    assert rule("none") == [2.0, 3.0]


def test_an_end_that_pays_is_learned():
    """The score is at the last token, wherever that is, and a penalty for no end brings ends."""
    none = lambda responses: np.zeros(len(responses.tokens), np.float32)  # noqa: E731
    ppo = trainer(scores=none, missing_eos="subtract", missing_eos_penalty=2.0, beta=0.2, iterations=40)
    figures = run(ppo)
    assert figures[0]["ended"] < 0.6
    assert figures[-1]["ended"] > 0.95


def test_an_epoch_stops_when_the_policy_has_gone_far():
    ppo = trainer(learning_rate=0.5, stop_kl=0.01)
    figures = ppo.iterate([[BEGIN]] * 256)
    assert figures["steps"] < 8
    assert figures["approx_kl"] > 0.01


def test_micro_batches_and_longer_rows_change_nothing():
    steps = []
    for size, tokens in ((128, 3), (48, 3), (7, 3), (128, 8)):
        ppo = trainer(micro_batch_size=size, response_tokens=tokens, epochs=1)
        ppo.step = MeasuredStep(ppo.model, ppo.step.measure, optim.SGD(1.0), None)
        ppo.iterate([[BEGIN]] * 256)
        steps.append(np.array(ppo.model.policy.table))
    assert np.abs(steps[0] - np.array(Table().table)).max() > 1e-3
    for other in steps[1:]:
        np.testing.assert_allclose(other, steps[0], atol=1e-6)


def test_it_goes_on_from_where_it_was():
    straight = trainer(iterations=6, kl_target=0.5)
    run(straight)
    first = trainer(iterations=6, kl_target=0.5)
    for _ in range(3):
        first.iterate([[BEGIN]] * 256)
    second = trainer(iterations=6, kl_target=0.5)
    second.model.update(first.model.parameters())
    second.step.optimizer.state = first.step.optimizer.state
    second.restore(json.loads(json.dumps(first.to_json())))
    run(second)
    assert second.to_json() == straight.to_json()
    assert np.array_equal(np.array(second.model.policy.table), np.array(straight.model.policy.table))


def test_other_text_is_remembered():
    """PPO-ptx: with no reward to win, the policy learns the other text."""
    tokens = np.tile(np.array([[BEGIN, 2, 2, EOS]], np.int32), (128, 1))
    none = lambda responses: np.zeros(len(responses.tokens), np.float32)  # noqa: E731
    seen = []

    def other(number: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        seen.append(number)
        return tokens[:rows], np.ones((rows, 3), np.float32)

    ppo = trainer(scores=none, ptx=other, ptx_coefficient=0.5, iterations=15)
    run(ppo)
    assert seen == list(range(15 * 8))
    chance = lambda p: p[[i for i, m in enumerate(all_rows().ids.tolist()) if m == [BEGIN, 2, 2, EOS]]].sum()  # noqa: E731
    assert chance(policy(ppo)) > 5 * chance(START)


def test_entropy_is_worth_something():
    none = lambda responses: np.zeros(len(responses.tokens), np.float32)  # noqa: E731
    ppo = trainer(scores=none, beta=0.0, entropy_coefficient=0.5, iterations=30)
    figures = run(ppo)
    assert figures[-1]["entropy"] > 1.02 * figures[0]["entropy"]
    assert figures[-1]["entropy"] == pytest.approx(math.log(5), rel=0.02)


def test_the_gradient_is_that_of_the_expected_reward():
    """Over all responses, each as often as it is drawn, and with its reward for the advantage of all its tokens."""
    loss: Any = ppo_losses(PPORecipe(response_tokens=3, value_coefficient=0.0), separate=False)
    model, rows = ActorCritic(Table(), STATES), Rows(*map(mx.array, all_rows()))
    old = response_logps(model.policy, rows)
    advantages = mx.array((START * REWARDS)[:, None]) * rows.mask
    arrays = [*rows, old, advantages, mx.zeros_like(old), mx.zeros_like(old)]
    found = nn.value_and_grad(model, lambda model: loss(model, arrays)[0])(model)[1]["policy"]["table"]

    def expected(policy: Table) -> mx.array:
        return (mx.exp(response_logps(policy, rows).sum(axis=1)) * mx.array(REWARDS)).sum()

    exact = nn.value_and_grad(model.policy, expected)(model.policy)[1]["table"]
    assert mx.abs(exact).max().item() > 0.01
    np.testing.assert_allclose(found, -exact, atol=1e-6)


def test_what_is_clipped_has_no_gradient():
    """By the loss that is trained on: one response of one token, whose ratio is far up or down."""
    loss: Any = ppo_losses(PPORecipe(response_tokens=3, value_coefficient=0.0), separate=False)
    model = ActorCritic(Table(), STATES)
    ids, mask = mx.array([[BEGIN, 1, 0, 0]]), mx.array([[1.0, 0, 0]])
    own = model.policy.logits(model.policy.hidden(ids))[0, 0]
    own = float((own - mx.logsumexp(own))[1])

    def gradient(ratio: float, advantage: float) -> float:
        row = lambda x: mx.array([[x, 0.0, 0.0]])  # noqa: E731
        arrays = ids, mx.array([1]), mask, row(own - math.log(ratio)), row(advantage), row(0.0), row(0.0)
        found = nn.value_and_grad(model, lambda model: loss(model, arrays)[0])(model)[1]
        return float(mx.abs(found["policy"]["table"]).max())

    assert gradient(1.3, 1.0) == 0
    assert gradient(0.7, -1.0) == 0
    assert gradient(1.3, -1.0) > 0.1
    assert gradient(0.7, 1.0) > 0.1
    assert gradient(1.1, 1.0) > 0.1
