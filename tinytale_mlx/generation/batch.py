"""Many texts at once: a batch of rows, in which a text that ends makes room for the next one (continuous batching).

(Yu et al. 2022, Orca.) A step reads the weights once for all rows, and on a GPU that is most of its time. Each row has
its own length, its own limit and its own randomness, so a text is the same whatever its neighbours are.

On a GPU the next step is on its way before the last one's tokens are looked at (`mx.async_eval`), so it never waits for
Python. On a CPU that would make MLX copy the whole cache: buffers that a running step still reads are not written in
place. There, tokens are read first, and only what the caller does with them happens while the next step runs.
"""

import functools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec

import mlx.core as mx

from ..recipe import GenerateRecipe
from .draws import Draws
from .keys import row_keys
from .memory import Memory, context_of, make_memory
from .sampling import Sampler

ROWS = 32
"""Texts that are written at a time, unless it is said otherwise."""


@dataclass(eq=False)
class Text:
    """One text that is being written, or is done. Raises ValueError for an empty prompt."""

    prompt: list[int]
    key: mx.array
    limit: int
    number: int = 0
    tokens: list[int] = field(default_factory=list)
    """With the stop token, if one came."""
    logprobs: list[float] = field(default_factory=list)
    """Of the tokens, in nats, before temperature and filters; where they were asked for."""
    finish_reason: Literal["stop", "length"] = "length"
    done: bool = False
    begun: int = 0
    """Tokens that a step is computing or has computed."""
    base: int = 0
    """The place in prompt + tokens of the first token that is remembered."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("there is nothing to continue: start from the tokenizer's bos token")

    def ids(self) -> list[int]:
        return self.prompt + self.tokens

    def add(self, token: int, stop: Collection[int]) -> None:
        self.tokens.append(token)
        self.begun = max(self.begun, len(self.tokens))
        if token in stop:
            self.finish_reason = "stop"
        self.done = token in stop or len(self.tokens) == self.limit


@dataclass(frozen=True)
class Token:
    """What one step added to one text."""

    text: Text
    id: int
    logprobs: mx.array
    """Of the whole vocabulary, [vocabulary], before temperature and filters; computed when it is looked at."""


@dataclass(frozen=True)
class _Step:
    tokens: mx.array
    logprobs: mx.array
    chosen: mx.array | None
    takers: list[tuple[int, Text]]


class Batch:
    """Rows that write what is `waiting`: `advance` adds a token to each, and begins the next text where one is done.

    To iterate over it gives the tokens of all texts until all are done.
    """

    def __init__(
        self,
        model: Any,
        memory: Memory,
        settings: GenerateRecipe,
        stop: Collection[int] = (),
        vocabulary: int | None = None,
        automaton: mx.array | None = None,
        with_logprobs: bool = False,
    ):
        rows = len(memory.lengths)
        self.memory, self.waiting = memory, deque[Text]()
        self.texts: list[Text | None] = [None] * rows
        self._context = None if memory.rolls else context_of(model)
        self._longest_prompt = context_of(model)
        self._stop, self._with_logprobs = frozenset(stop), with_logprobs
        self._draws = Draws(Sampler(settings, rows, vocabulary, stop, automaton), rows)
        self._running: _Step | None = None
        self._ahead = mx.default_device() == mx.gpu

    # ------------------------------------------------------------------ beginning
    def _fill(self) -> None:
        """Begin waiting texts in the free rows; do without free rows, where they are half of all or more."""
        rows = [row for row, text in enumerate(self.texts) if text is None][: len(self.waiting)]
        if rows:
            texts = [self.waiting.popleft() for _ in rows]
            for row, text in zip(rows, texts, strict=True):
                self.texts[row] = text
                self._draws.begin(row, text.key, text.ids())
            self._read(rows, [text.ids()[-(self._longest_prompt or 0) :] for text in texts])
        elif len(self.texts) > 1:
            self._shrink()

    def _shrink(self) -> None:
        busy = [row for row, text in enumerate(self.texts) if text is not None]
        if not busy or 2 * len(busy) > len(self.texts):
            return
        self.memory.select(busy)
        self._draws.select(busy)
        self.texts = [self.texts[row] for row in busy]

    def _read(self, rows: list[int], prompts: list[list[int]]) -> None:
        """All but the last token is read; that one is what the next step begins with."""
        beginnings = []
        for row, ids in zip(rows, prompts, strict=True):
            text = self._text(row)
            text.base = len(text.ids()) - len(ids)
            beginnings.append(ids[self.memory.lengths[row] : -1])
            self._draws.follow(row, ids[-1])
        following = self.waiting[0].prompt if self.waiting else None
        self.memory.read(rows, beginnings, again=following == self._text(rows[-1]).prompt)

    # ------------------------------------------------------------------ going on
    def __iter__(self) -> Iterator[Token]:
        while found := self.advance():
            yield from found

    def advance(self) -> list[Token]:
        """The tokens of one step, while the one after it is running; nothing when every text is done."""
        found: list[Token] = []
        while not found:
            last = self._running or self._begin()
            if last is None:
                break
            self._running = None
            following = self._begin() if self._ahead else None
            found = self._finish(last)
            self._running = following if self._ahead else self._begin()
        return found

    def _begin(self) -> _Step | None:
        self._fill()
        self._read_windows_anew()
        takers = [
            (row, text)
            for row, text in enumerate(self.texts)
            if text is not None and text.begun < text.limit and not self._full(row)
        ]
        if not takers:
            return None
        rows = [row for row, _ in takers]
        begun = [0 if text is None else text.begun for text in self.texts]
        lengths = [0 if text is None else len(text.prompt) + text.begun for text in self.texts]
        logits = self.memory.forward(self._draws.tokens[:, None], rows)[:, -1]
        tokens, logprobs = self._draws(logits, rows, begun, lengths)
        chosen = mx.take_along_axis(logprobs, tokens[:, None], axis=1)[:, 0] if self._with_logprobs else None
        for _, text in takers:
            text.begun += 1
        mx.async_eval(tokens, *([] if chosen is None else [chosen]))
        return _Step(tokens, logprobs, chosen, takers)

    def _finish(self, step: _Step) -> list[Token]:
        """Wait for a step; give its tokens to their texts, and set rows free whose text is done."""
        ids: Any = step.tokens.tolist()
        chosen: Any = None if step.chosen is None else step.chosen.tolist()
        found = []
        for row, text in step.takers:
            if text.done:
                continue
            text.add(ids[row], self._stop)
            if chosen is not None:
                text.logprobs.append(chosen[row])
            if text.done:
                self._leave(text)
            found.append(Token(text, ids[row], step.logprobs[row]))
        return found

    def _leave(self, text: Text) -> None:
        row = self.texts.index(text)  # it may have moved since the step began
        self.texts[row] = None
        if self.waiting or len(self.texts) > 1:  # a text that was alone may be gone on with: see prompt_cache.py
            self.memory.trim(row, 0)

    def end(self, text: Text) -> None:
        """Let a text end after what it has, as one does that wrote a stop text: of those only its reader knows."""
        text.finish_reason, text.done = "stop", True
        self._leave(text)

    # ------------------------------------------------------------------ windows
    def _full(self, row: int) -> bool:
        return self._context is not None and self.memory.lengths[row] >= self._context

    def _read_windows_anew(self) -> None:
        """A row that fills the context goes on from the last half of its text."""
        rows = [row for row, text in enumerate(self.texts) if text is not None and self._full(row)]
        # The last token must be known, as it belongs to what is read.
        rows = [row for row in rows if len(self._text(row).tokens) == self._text(row).begun < self._text(row).limit]
        if rows and self._context:
            for row in rows:
                self.memory.trim(row, 0)
            self._read(rows, [self._text(row).ids()[-max(self._context // 2, 1) :] for row in rows])

    def _text(self, row: int) -> Text:
        text = self.texts[row]
        assert text is not None
        return text


def stream_batch(
    model: Any,
    prompts: Sequence[list[int]],
    settings: GenerateRecipe,
    key: mx.array,
    stop: Collection[int] = (),
    vocabulary: int | None = None,
    samples_per_prompt: int = 1,
    *,
    batch_size: int = ROWS,
    with_logprobs: bool = False,
    automaton: mx.array | None = None,
    kv_bits: int | None = None,
    roll: bool = False,
) -> Iterator[Text]:
    """Texts that follow the prompts, `samples_per_prompt` of each, as they end; `number` says which one each is.

    At most `batch_size` are written at a time; when one ends, the next begins in its place. The texts are the same
    for every batch size: sample s of prompt p is drawn with row p x samples_per_prompt + s of the key.
    Otherwise as `generate_ids`.
    """
    count = len(prompts) * samples_per_prompt
    if not count:
        return
    keys = row_keys(key, range(count))
    texts = [Text(list(prompts[i // samples_per_prompt]), keys[i], settings.max_new_tokens, i) for i in range(count)]
    memory = make_memory(model, min(batch_size, count), kv_bits, roll)
    batch = Batch(model, memory, settings, stop, vocabulary, automaton, with_logprobs)
    batch.waiting.extend(texts)
    yield from (token.text for token in batch if token.text.done)


Arguments = ParamSpec("Arguments")


def _in_order(stream: Callable[Arguments, Iterator[Text]]) -> Callable[Arguments, list[Text]]:
    @functools.wraps(stream)
    def collected(*arguments: Arguments.args, **options: Arguments.kwargs) -> list[Text]:
        return sorted(stream(*arguments, **options), key=lambda text: text.number)

    return collected


generate_batch = _in_order(stream_batch)
"""All texts of `stream_batch`, in the order of the prompts."""
