"""Choosing the next token: rules that change the logits, filters that leave out tokens, then a draw for each row.

Greedy, temperature, top-k (Fan et al. 2018), top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024), typical
(Meister et al. 2023), and the rules of `penalties.py`. Everything is an array [B, vocabulary] that is computed when it
is needed: to choose a token never waits for one.
"""

import math
from collections.abc import Collection

import mlx.core as mx

from ..recipe import GenerateRecipe
from .penalties import ban, penalize_counts, penalize_repetition, repeats_ngram, token_counts


class Sampler:
    """`sampler(logits, keys, history)` draws the next token of each of `batch` rows, as `settings` say.

    Only the first `vocabulary` ids are drawn: a model may have more than its tokenizer. Those of `stop` end a text,
    which `min_new_tokens` forbids for a while. `automaton` [states, vocabulary] says what may follow (`automaton.py`).

    What it must know of the rows' past beside the history is in `state`, arrays [B, ...] by name, and changes with
    every call; most settings need none.
    """

    def __init__(
        self,
        settings: GenerateRecipe,
        batch: int = 1,
        vocabulary: int | None = None,
        stop: Collection[int] = (),
        automaton: mx.array | None = None,
    ):
        self._settings, self._vocabulary, self._automaton = settings, vocabulary, automaton
        self._stop = sorted(stop)
        self._counts = bool(
            settings.repetition_penalty != 1 or settings.frequency_penalty != 0 or settings.presence_penalty != 0
        )
        self.needs_history = self._counts or settings.no_repeat_ngram > 0
        self.state: dict[str, mx.array] = {}
        if settings.min_new_tokens > 0 and self._stop:
            self.state["written"] = mx.zeros((batch,), mx.int32)
        if automaton is not None:
            self.state["place"] = mx.zeros((batch,), mx.int32)

    def __call__(self, logits: mx.array, keys: mx.array, history: mx.array | None = None) -> tuple[mx.array, mx.array]:
        """Tokens [B], and the model's own log-probabilities [B, vocabulary], from logits [B, rows of the model].

        keys [B, 2]: a row's choice depends on its own key, and on no other row. history: see `penalties.py`.
        """
        shaped = self.shaped(logits, history)
        if self._settings.temperature == 0:
            tokens = mx.argmax(shaped, axis=-1)
        else:
            tokens = mx.vmap(lambda row, key: mx.random.categorical(row, key=key))(shaped, keys)
        self.advance(tokens)
        return tokens, log_probabilities(logits[:, : self._vocabulary])

    def distribution(self, logits: mx.array, history: mx.array | None = None) -> mx.array:
        """The log-probabilities [B, vocabulary] that tokens are drawn with; -inf for what is never drawn."""
        shaped = self.shaped(logits, history)
        if self._settings.temperature > 0:
            return log_probabilities(shaped)
        best = mx.argmax(shaped, axis=-1, keepdims=True)
        return mx.where(mx.arange(shaped.shape[-1]) == best, 0.0, -math.inf)

    def advance(self, tokens: mx.array) -> None:
        """Note the tokens [B] that follow; a call does that for those it draws."""
        if "written" in self.state:
            self.state["written"] = self.state["written"] + 1
        if self._automaton is not None:
            following = self._automaton[self.state["place"], tokens]
            self.state["place"] = mx.maximum(following, 0).astype(mx.int32)

    def shaped(self, logits: mx.array, history: mx.array | None = None) -> mx.array:
        """Logits [B, vocabulary] whose softmax the tokens are drawn from; with temperature 0, whose largest."""
        settings = self._settings
        logits = self.ruled(logits, history)
        if settings.temperature == 0:
            return logits
        logits = logits.astype(mx.float32) / settings.temperature
        if 0 < settings.top_k < logits.shape[-1]:
            logits = keep_top_k(logits, settings.top_k)
        if settings.top_p < 1:
            logits = keep_top_p(logits, settings.top_p)
        if settings.min_p > 0:
            logits = keep_min_p(logits, settings.min_p)
        if settings.typical_p < 1:
            logits = keep_typical(logits, settings.typical_p)
        return logits

    def ruled(self, logits: mx.array, history: mx.array | None = None) -> mx.array:
        """Logits [B, vocabulary] after bias, penalties and prohibitions, before temperature and filters."""
        settings = self._settings
        logits = logits[:, : self._vocabulary]
        size = logits.shape[-1]
        if self._automaton is not None:
            logits = mx.where(self._automaton[self.state["place"]] >= 0, logits, -math.inf)
        if settings.logit_bias:
            logits = logits + _row(settings.logit_bias, size)
        if self.needs_history:
            assert history is not None
            if self._counts:
                counts = token_counts(history, size)
                logits = penalize_repetition(logits, counts, settings.repetition_penalty)
                logits = penalize_counts(logits, counts, settings.frequency_penalty, settings.presence_penalty)
            if settings.no_repeat_ngram > 0:
                logits = ban(logits, repeats_ngram(history, settings.no_repeat_ngram, size))
        if "written" in self.state:
            early = self.state["written"][:, None] < settings.min_new_tokens
            logits = ban(logits, early & (_row(dict.fromkeys(self._stop, 1.0), size) > 0))
        return logits


def _row(values: dict[int, float], size: int) -> mx.array:
    """[size] with these values at their places, and 0 elsewhere."""
    inside = {place: value for place, value in values.items() if place < size}
    row = mx.zeros((size,))
    return row.at[mx.array(list(inside), mx.int32)].add(mx.array(list(inside.values()))) if inside else row


def log_probabilities(logits: mx.array) -> mx.array:
    """Log-softmax over the last axis, in float32."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def keep_top_k(logits: mx.array, k: int) -> mx.array:
    """All but the k largest of each row become -inf; of equal ones at the border, all stay."""
    smallest = mx.min(mx.topk(logits, k, axis=-1), axis=-1, keepdims=True)
    return mx.where(logits >= smallest, logits, -math.inf)


def keep_top_p(logits: mx.array, p: float) -> mx.array:
    """All but the smallest set of likeliest tokens whose probabilities sum to p or more become -inf."""
    return _keep_first(logits, -logits, p)


def keep_min_p(logits: mx.array, share: float) -> mx.array:
    """Tokens with less than `share` of the likeliest one's probability become -inf."""
    return mx.where(logits >= mx.max(logits, axis=-1, keepdims=True) + math.log(share), logits, -math.inf)


def keep_typical(logits: mx.array, p: float) -> mx.array:
    """All but the smallest set whose surprise is nearest to the entropy, and that sums to p or more, become -inf."""
    logprobs = log_probabilities(logits)
    entropy = -mx.sum(mx.where(logprobs > -math.inf, mx.exp(logprobs) * logprobs, 0.0), axis=-1, keepdims=True)
    return _keep_first(logits, mx.abs(logprobs + entropy), p)


def _keep_first(logits: mx.array, rank: mx.array, p: float) -> mx.array:
    """-inf for all but the tokens of lowest `rank` that sum to p or more."""
    order = mx.argsort(rank, axis=-1)
    probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
    before = mx.cumsum(probabilities, axis=-1, inclusive=False)
    # A token stays while those before it have not reached p yet; so the first always does.
    kept = mx.put_along_axis(mx.zeros(logits.shape, mx.bool_), order, before < p, axis=-1)
    return mx.where(kept, logits, -math.inf)
