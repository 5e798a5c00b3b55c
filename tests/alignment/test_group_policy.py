"""What the group methods converge to, where it is known, and what they learn nothing from."""

import json

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from enumerable import (
    BEGIN,
    CHOICES,
    EOS,
    Bandit,
    Table,
    best,
    choose,
    divergence,
    fixed,
    probabilities,
    sampler,
    score_choice,
    scorer,
)
from pydantic import ValidationError

from tinytale_mlx.alignment.group_policy import GroupPolicy
from tinytale_mlx.alignment.measured import MeasuredStep
from tinytale_mlx.recipe.align import GroupRecipe

START = Bandit().probabilities()


def bandit(scores=score_choice, seed: int = 0, **changes) -> GroupPolicy:
    given = {
        "prompt_tokens": 1, "response_tokens": 1, "iterations": 120, "prompts": 512, "group_size": 2,
        "micro_batch_size": 1024, "learning_rate": 0.1, "kl": 0.4, "missing_eos": "none",
    }  # fmt: skip
    settings = GroupRecipe(**{**given, **changes})
    return GroupPolicy(Bandit(), settings, scores, fixed(Bandit()), choose, set(), seed)


def run(trainer: GroupPolicy) -> dict:
    figures = {}
    for _ in range(trainer.settings.iterations):
        figures = trainer.iterate([[BEGIN]] * trainer.settings.prompts)
    return figures


def tempered(beta: float) -> np.ndarray:
    """π* ∝ π_ref exp(r / β)."""
    weights = START * np.exp(CHOICES / beta)
    return weights / weights.sum()


def other_optimum(beta: float) -> np.ndarray:
    """β π_ref / (λ - r), with the λ that makes it a distribution: where k3 in the loss leads."""
    low, high = CHOICES.max() + 1e-9, CHOICES.max() + 100
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (beta * START / (middle - CHOICES)).sum() > 1 else (low, middle)
    return beta * START / (low - CHOICES)


OPTIMA = {
    ("rloo", None, 2): tempered(0.4),
    ("rloo", None, 4): tempered(0.4),
    ("dr_grpo", "k2", 2): tempered(0.8),
    ("dr_grpo", "k3_is", 2): tempered(0.8),
    ("dr_grpo", "k2", 4): tempered(1.6 / 3),
    ("dr_grpo", "k3", 2): other_optimum(0.8),
}


@pytest.mark.parametrize(("method", "estimator", "size"), list(OPTIMA))
def test_it_reaches_the_optimum_that_is_derived(method, estimator, size):
    trainer = bandit(method=method, kl_estimator=estimator, group_size=size, prompts=1024 // size)
    run(trainer)
    found, wanted = trainer.policy.probabilities(), OPTIMA[method, estimator, size]
    others = [divergence(found, p) for p in OPTIMA.values() if not np.allclose(p, wanted)]
    assert divergence(found, wanted) < 2e-4
    assert min(others) > 10 * divergence(found, wanted)


def test_rloo_compares_with_the_others_and_pays_its_kl_first():
    trainer, dice = bandit(method="rloo", group_size=4), np.random.default_rng(0)
    scores, kl = (dice.normal(size=8).astype(np.float32) for _ in range(2))
    rewards = (scores - 0.4 * kl).reshape(2, 4)
    expected = [[r - np.delete(group, i).mean() for i, r in enumerate(group)] for group in rewards]
    found, used = trainer.advantages(scores, kl, np.ones(8, bool))
    np.testing.assert_allclose(found, np.ravel(expected), atol=1e-6)
    assert used.all()
    # In the loss, the KL is no part of the reward.
    found, _ = bandit(group_size=4).advantages(scores, kl, np.ones(8, bool))
    np.testing.assert_allclose(
        found.reshape(2, 4), scores.reshape(2, 4) - scores.reshape(2, 4).mean(1, keepdims=True), atol=1e-6
    )


def test_rloo_of_longer_responses():
    settings = GroupRecipe(
        method="rloo", prompt_tokens=1, response_tokens=3, iterations=200, prompts=256, group_size=2, kl=0.3,
        micro_batch_size=512, learning_rate=0.05, missing_eos="none",
    )  # fmt: skip
    trainer = GroupPolicy(Table(), settings, scorer, fixed(Table()), sampler, {EOS}, 0)
    run(trainer)
    reference, found = probabilities(Table()), probabilities(trainer.policy)
    assert divergence(found, best(reference, 0.3)) < 0.01
    assert divergence(found, best(reference, 0.6)) > 0.1


def test_divided_by_the_deviation_it_goes_to_the_best():
    trainer = bandit(method="grpo", kl=0.0, group_size=4, prompts=128, iterations=100)
    figures = run(trainer)
    assert trainer.policy.probabilities()[CHOICES.argmax()] > 0.95
    assert figures["groups_without_deviation"] > 0.5
    assert figures["used"] == pytest.approx(1 - figures["groups_without_deviation"])


def test_one_reward_for_all_teaches_nothing():
    same = lambda responses: np.full(len(responses.tokens), 0.5, np.float32)  # noqa: E731
    trainer = bandit(scores=same, kl=0.0)
    figures = trainer.iterate([[BEGIN]] * 512)
    assert (figures["steps"], figures["used"], figures["groups_without_deviation"]) == (0, 0, 1)
    assert np.array_equal(trainer.policy.probabilities(), START)
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize("method", ["dr_grpo", "grpo", "dapo", "gspo"])
@pytest.mark.parametrize("estimator", ["k2", "k3", "k3_is"])
def test_at_the_reference_without_advantages_there_is_no_gradient(method, estimator):
    same = lambda responses: np.full(len(responses.tokens), 0.5, np.float32)  # noqa: E731
    trainer = bandit(scores=same, method=method, kl_estimator=estimator, prompts=32)
    assert trainer.iterate([[BEGIN]] * 32)["grad_norm"] < 1e-7


def moved(scale: float = 1.0, shift: float = 0.0, **changes) -> np.ndarray:
    """How far one plain step moves a table, of rewards that are scaled and shifted."""
    settings = GroupRecipe(
        **{
            "prompt_tokens": 1, "response_tokens": 3, "prompts": 8, "group_size": 4, "kl": 0.0, "micro_batch_size": 32,
            "max_grad_norm": None, "learning_rate": 1.0, "missing_eos": "none", **changes,
        }
    )  # fmt: skip
    scores = lambda responses: scale * scorer(responses) + shift  # noqa: E731
    trainer = GroupPolicy(Table(), settings, scores, fixed(Table()), sampler, {EOS}, 0)
    trainer.step = MeasuredStep(trainer.policy, trainer.step.measure, optim.SGD(1.0), None)
    figures = trainer.iterate([[BEGIN]] * 8)
    assert figures["ratio"] == 1
    return (np.array(trainer.policy.table) - np.array(Table().table)) / figures["learning_rate"]


@pytest.mark.parametrize("method", ["dr_grpo", "grpo", "dapo", "gspo", "rloo"])
def test_what_becomes_of_other_units(method):
    """A constant changes nothing; a factor does, unless it is divided away."""
    step = moved(method=method)
    assert np.abs(step).max() > 0.01
    np.testing.assert_allclose(moved(shift=5.0, method=method), step, atol=2e-3 * np.abs(step).max())
    twice = step if method in ("grpo", "dapo", "gspo") else 2 * step
    np.testing.assert_allclose(moved(scale=2.0, method=method), twice, atol=2e-3 * np.abs(twice).max())


@pytest.mark.parametrize("method", ["dr_grpo", "grpo", "dapo", "gspo", "rloo"])
def test_micro_batches_and_longer_rows_change_nothing(method):
    step = moved(method=method, kl=0.1)
    tolerance = 1e-4 * np.abs(step).max()
    np.testing.assert_allclose(moved(method=method, kl=0.1, micro_batch_size=5), step, atol=tolerance)
    longer = moved(method=method, kl=0.1, response_tokens=7) * (7 / 3 if method == "dr_grpo" else 1)
    np.testing.assert_allclose(longer, step, atol=tolerance)


def test_the_means_are_of_what_they_should_be():
    """Of an end at once and of three letters: per token all weigh alike, per response the letters weigh a third."""
    drawn = lambda *_: [[0], [1, 2, 3]]  # noqa: E731
    settings = {
        "prompt_tokens": 1,
        "response_tokens": 3,
        "prompts": 1,
        "group_size": 2,
        "kl": 0.0,
        "micro_batch_size": 2,
        "missing_eos": "none",
    }

    def step(method: str) -> np.ndarray:
        recipe = GroupRecipe(method=method, max_grad_norm=None, learning_rate=1.0, **settings)
        scores = lambda responses: np.array([1.0, -1.0], np.float32)  # noqa: E731
        trainer = GroupPolicy(Table(), recipe, scores, fixed(Table()), drawn, {EOS}, 0)
        trainer.step = MeasuredStep(trainer.policy, trainer.step.measure, optim.SGD(1.0), None)
        rate = trainer.iterate([[BEGIN]])["learning_rate"]
        return (np.array(trainer.policy.table) - np.array(Table().table)) / rate

    later = 1 + 4 + 4 * 0 + 1  # the state after letters 1 and 2, met by the second response alone
    sizes = {method: np.abs(step(method)[later]).max() for method in ("dr_grpo", "grpo", "dapo")}
    advantage = 2**-0.5  # of rewards 1 and -1 after division by the deviation
    assert sizes["dr_grpo"] / (1 / 6) == pytest.approx(sizes["grpo"] / (advantage / 6), rel=1e-3)
    assert sizes["dapo"] / (advantage / 4) == pytest.approx(sizes["grpo"] / (advantage / 6), rel=1e-3)


def test_a_loss_of_nothing_has_a_gradient():
    """At the first step ratios are 1 and advantages sum to 0, so the loss is 0; that says nothing."""
    results = []

    class Noted(MeasuredStep):
        def __call__(self, *given):
            results.append(super().__call__(*given))
            return results[-1]

    trainer = bandit(kl=0.0, prompts=64)
    trainer.step = Noted(trainer.policy, trainer.step.measure)
    trainer.iterate([[BEGIN]] * 64)
    assert results[0].nats == pytest.approx(0, abs=1e-4)
    assert results[0].grad_norm > 1e-3


def test_responses_without_an_end_can_be_left_out():
    settings = GroupRecipe(prompt_tokens=1, response_tokens=3, prompts=32, group_size=4, drop_truncated=True)
    trainer = GroupPolicy(Table(), settings, scorer, fixed(Table()), sampler, {EOS}, 0)
    figures = trainer.iterate([[BEGIN]] * 32)
    assert 0 < figures["used"] == pytest.approx(figures["ended"])


def test_more_steps_than_one_are_clipped():
    trainer = bandit(learning_rate=1.0, epochs=6, minibatches=2)
    figures = trainer.iterate([[BEGIN]] * 512)
    assert figures["steps"] == 12
    assert figures["clipped"] > 0
    assert figures["ratio"] != 1


def test_it_goes_on_from_where_it_was():
    straight, first, second = (bandit(iterations=4, prompts=16) for _ in range(3))
    run(straight)
    for _ in range(2):
        first.iterate([[BEGIN]] * 16)
    second.policy.update(first.policy.parameters())
    second.step.optimizer.state = first.step.optimizer.state
    second.restore(json.loads(json.dumps(first.to_json())))
    for _ in range(2):
        second.iterate([[BEGIN]] * 16)
    assert mx.array_equal(second.policy.table, straight.policy.table)


def test_estimators_where_they_do_harm_are_refused():
    with pytest.raises(ValidationError, match="k3 makes the policy diverge"):
        GroupRecipe(method="rloo", kl_estimator="k3")
    with pytest.raises(ValidationError, match="k1 holds nothing back"):
        GroupRecipe(kl_estimator="k1")
    assert GroupRecipe().loss_kl == "k3"
    assert GroupRecipe(kl=0.0).loss_kl is None
    assert GroupRecipe(method="rloo").loss_kl is None
