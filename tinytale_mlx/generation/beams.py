"""Beam search: the likeliest text, looked for along several beginnings at a time.

At every step each of the `beams` beginnings is continued with every token, and the likeliest of all these stay. Texts
of different lengths are compared by log-probability / tokens ** length_penalty (after Wu et al. 2016), the token that
ends a text included. Bias, penalties and prohibitions hold as in sampling; temperature and filters mean nothing here.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import UserError
from ..recipe import GenerateRecipe
from .memory import context_of, keeps_plain_keys, make_memory
from .sampling import Sampler, log_probabilities


@dataclass(frozen=True)
class Beam:
    """A text that was found: the tokens after the prompt, with the one that ends it."""

    tokens: list[int]
    logprob: float
    """In nats."""
    score: float
    """The log-probability over a power of the length."""
    ended: bool
    """Whether it ended by itself; else it was cut at the limit."""


def beam_search(
    model: Any,
    prompt: list[int],
    settings: GenerateRecipe,
    stop: Collection[int] = (),
    vocabulary: int | None = None,
    automaton: mx.array | None = None,
) -> list[Beam]:
    """The best `settings.beams` texts that follow the prompt, the best first.

    A text ends within the model's context; of a prompt that fills it, the last half is read. Raises ValueError for an
    empty prompt, UserError for a model with caches of its own kind.
    """
    if not prompt:
        raise ValueError("there is nothing to continue: start from the tokenizer's bos token")
    if not keeps_plain_keys(model):
        raise UserError("this model has a cache of its own kind, of which beams can't have copies")
    context = context_of(model)
    if context and len(prompt) >= context:
        prompt = prompt[-max(context // 2, 1) :]
    room = max(context - len(prompt), 1) if context else settings.max_new_tokens
    search = _Search(settings, stop, vocabulary, automaton, prompt, room)
    memory = make_memory(model)
    memory.read([0], [prompt[:-1]])
    logits = memory.forward(mx.array([prompt[-1:]]), [0])[:, -1]
    while search.step(logits):
        memory.select(search.parents)
        logits = memory.forward(mx.array([tokens[-1:] for tokens in search.live]), range(len(search.live)))[:, -1]
    return search.best()


class _Search:
    """The beginnings that are still open, `live`, with the number of the row that each came from, and the texts."""

    def __init__(
        self,
        settings: GenerateRecipe,
        stop: Collection[int],
        vocabulary: int | None,
        automaton: mx.array | None,
        prompt: list[int],
        room: int,
    ):
        self._settings, self._stop, self._prompt = settings, frozenset(stop), prompt
        self._limit = min(settings.max_new_tokens, room)
        self._sampler = Sampler(settings, 1, vocabulary, stop, automaton)
        self._scores = np.zeros(1)
        self._ended: list[Beam] = []
        self.live: list[list[int]] = [[]]
        self.parents = [0]

    def step(self, logits: mx.array) -> bool:
        """Continue every beginning by one token, given the logits [live, rows]; False when the search is over."""
        history = mx.array([self._prompt + tokens for tokens in self.live])
        logprobs = np.array(log_probabilities(self._sampler.ruled(logits, history)), dtype=np.float64)
        totals = (self._scores[:, None] + logprobs).ravel()
        live, scores, parents = [], [], []
        for place in self._likeliest(totals):
            parent, token = divmod(int(place), logprobs.shape[1])
            tokens = [*self.live[parent], token]
            if token in self._stop:
                self._ended.append(self._beam(tokens, float(totals[place]), ended=True))
            else:
                live.append(tokens)
                scores.append(totals[place])
                parents.append(parent)
            if len(live) == self._settings.beams:
                break
        self._follow(parents, live)
        self.live, self._scores, self.parents = live, np.array(scores), parents
        return bool(live) and len(live[0]) < self._limit and not self._settled()

    def _likeliest(self, totals: np.ndarray) -> np.ndarray:
        """Places of the best continuations, the best first; enough for all beams, should every other one end a text."""
        count = min(self._settings.beams * (1 + len(self._stop)), int((totals > -np.inf).sum()))
        found = np.argpartition(-totals, count - 1)[:count]
        return found[np.argsort(-totals[found], kind="stable")]

    def _follow(self, parents: list[int], live: list[list[int]]) -> None:
        """What the sampler knows of each row goes with the rows."""
        if self._sampler.state and live:
            rows = mx.array(parents)
            self._sampler.state.update({name: values[rows] for name, values in self._sampler.state.items()})
            self._sampler.advance(mx.array([tokens[-1] for tokens in live]))

    def _settled(self) -> bool:
        """Whether no open beginning can become better than the texts that are there."""
        beams = self._settings.beams
        if len(self._ended) < beams:
            return False
        worst = sorted((beam.score for beam in self._ended), reverse=True)[beams - 1]
        # From here a log-probability can only fall; the length that flatters it most is the longest or this one.
        lengths = (len(self.live[0]) + 1, self._limit)
        return max(self._score(float(self._scores.max()), length) for length in lengths) <= worst

    def _beam(self, tokens: list[int], logprob: float, ended: bool) -> Beam:
        return Beam(tokens, logprob, self._score(logprob, len(tokens)), ended)

    def _score(self, logprob: float, length: int) -> float:
        return logprob / length**self._settings.length_penalty

    def best(self) -> list[Beam]:
        cut = [
            self._beam(tokens, score, ended=False)
            for tokens, score in zip(self.live, self._scores.tolist(), strict=True)
        ]
        found = self._ended if self._settled_for_good() else [*self._ended, *cut]
        return sorted(found, key=lambda beam: -beam.score)[: self._settings.beams]

    def _settled_for_good(self) -> bool:
        """Whether the search was over before the limit: open beginnings are then no texts."""
        return not self.live or len(self.live[0]) < self._limit
