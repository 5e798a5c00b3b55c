r"""Preferences: what reward models, DPO, KTO, PPO and GRPO learn from. Rows of the usual data sets, as four kinds.

- `Preference`: prompt, chosen and rejected, as text or as messages. The prompt may be a field (TRL, Alpaca's
  instruction and input), or what both dialogues begin with (TRL's implicit prompt; hh-rlhf of Bai et al. 2022, where
  a dialogue is a text of "\n\nHuman: " and "\n\nAssistant: ").
- `Ranked`: several responses, the best first (InstructGPT, Ouyang et al. 2022), each pair of which is a `Preference`.
- `Labelled`: one response, desirable or not (KTO, Ethayarajh et al. 2024).
- `Verifiable`: a question with an answer that can be checked (GSM8K, Cobbe et al. 2021).
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UserError
from . import tales
from .conversations import ANSWERS, Messages, answer_in, checked, fields, kind, messages_in, question_in, text_in
from .files import OnSkip, read_rows, usable


@dataclass(frozen=True)
class Preference:
    """Two responses to a prompt, each of messages, with at least one answer of the assistant, nearly always just that.

    margin: by how much the chosen one is better, in the reward's unit, where that is known.
    """

    prompt: Messages
    chosen: Messages
    rejected: Messages
    margin: float | None = None


@dataclass(frozen=True)
class Ranked:
    """Two or more responses to a prompt, best first; those of equal rank are not compared."""

    prompt: Messages
    responses: list[Messages]
    ranks: list[float]


@dataclass(frozen=True)
class Labelled:
    prompt: Messages
    response: Messages
    desirable: bool


@dataclass(frozen=True)
class Verifiable:
    """answer: what a right response ends with; of GSM8K the number, without its thousands separators."""

    prompt: Messages
    answer: str


Item = Preference | Ranked | Labelled | Verifiable
Kind = TypeVar("Kind", Preference, Ranked, Labelled, Verifiable)


def preferences_from(row: Mapping[str, Any], where: str) -> Item:
    """What a row says. A row with chosen or rejected is a preference, whatever else it holds.

    Raises:
        UserError: no known form; a missing, blank or non-text field; chosen and rejected, or two ranked responses,
            that are the same; dialogues without a common prompt. It begins with `where`.
    """
    if "chosen" in row or "rejected" in row:
        return _preference(row, where)
    if "responses" in row:
        return _ranked(row, where)
    if "label" in row:
        return _labelled(row, where)
    if "answer" in row:
        return _verifiable(row, where)
    raise UserError(
        f"{where}: there is no preference {fields(row)}; one has chosen and rejected, or a prompt with responses, "
        "completion and label, or answer"
    )


def pairs(ranked: Ranked) -> list[Preference]:
    """Every comparison that a ranking makes, K(K-1)/2 of K different ranks.

    InstructGPT trains on all of a prompt in one batch: as single examples they are learned by heart.
    """
    found = combinations(zip(ranked.responses, ranked.ranks, strict=True), 2)
    return [Preference(ranked.prompt, better, worse) for (better, first), (worse, then) in found if first < then]


def read_preferences(
    paths: Iterable[Path], wanted: type[Kind], on_skip: OnSkip | None = None, replace: bool = False
) -> Iterator[Kind]:
    """The items of one kind in files of rows: JSON, CSV or Parquet. `on_skip` and `replace` as in `files.py`.

    Raises:
        UserError: whatever `read_rows` refuses; a bad row, without `on_skip`; a file without a usable row.
    """
    for path in paths:
        rows = read_rows(path, replace)
        for items in usable(rows, lambda row, where: items_in(row, where, wanted), str(path), on_skip):
            yield from items


def items_in(row: Any, where: str, wanted: type[Kind]) -> list[Kind]:
    """The item in a row, if it is of this kind; where pairs are wanted, all those of a ranking.

    Raises:
        UserError: a row that `preferences_from` refuses, or of another kind.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: {kind(row)}, and an object is needed")
    item = preferences_from(row, where)
    items = pairs(item) if isinstance(item, Ranked) and wanted is Preference else [item]
    found = [one for one in items if isinstance(one, wanted)]
    if len(found) < len(items):
        raise UserError(f"{where}: this is {NAMES[type(item)]}, and {NAMES[wanted]} is needed {fields(row)}")
    return found


NAMES: dict[type, str] = {
    Preference: "a preference (chosen and rejected)",
    Ranked: "a ranking (responses)",
    Labelled: "a labelled response (completion and label)",
    Verifiable: "a question with an answer to check",
}


# ---------------------------------------------------------------------- the embedded ones
def embedded_preferences(count: int, seed: int) -> Iterator[Preference]:
    """Two endings for each of the first tales of `seed`: its own, and an unkind one. For the template `plain`."""
    for item in tales.preferences(count, seed):
        chosen, rejected = (_said("assistant", item[key]) for key in PAIR)
        yield Preference(_said("user", item["prompt"]), chosen, rejected)


def embedded_questions(count: int, seed: int) -> Iterator[Verifiable]:
    """A question about each of the first tales of `seed`, after the tale itself."""
    for item in tales.questions(count, seed):
        yield Verifiable(_said("user", f"{item['tale']}\n\n{item['question']}"), item["answer"])


def _said(role: str, content: str) -> Messages:
    return [{"role": role, "content": content}]


# ---------------------------------------------------------------------- preferences
PAIR = ("chosen", "rejected")
SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def _preference(row: Mapping[str, Any], where: str) -> Preference:
    for key in PAIR:
        if key not in row:
            raise UserError(f"{where}: there is no field {key!r} {fields(row)}")
    asks = next((key for key in ANSWERS if key in row), None)
    if asks is None:
        prompt, (chosen, rejected) = _implicit(row, where)
    else:
        prompt = question_in(row, asks, where)
        chosen, rejected = (_after(prompt, answer_in(row, key, where)) for key in PAIR)
    chosen, rejected = (_response(said, f"{where}, {key}") for key, said in zip(PAIR, (chosen, rejected), strict=True))
    if _plain(chosen) == _plain(rejected):
        raise UserError(f"{where}: chosen and rejected are the same")
    return Preference(prompt, chosen, rejected, _margin(row, where))


def _after(prompt: Messages, said: Messages) -> Messages:
    """A response without the prompt, with which some data sets begin it."""
    return said[len(prompt) :] if said[: len(prompt)] == prompt else said


def _implicit(row: Mapping[str, Any], where: str) -> tuple[Messages, list[Messages]]:
    """The turns that both dialogues begin with, and what each says after them."""
    if all(isinstance(row[key], str) for key in PAIR):
        texts = [text_in(row, key, where) for key in PAIR]
        if not all(SPEAKER.match(text) for text in texts):
            return _implicit_text(texts[0], texts[1], where)
        dialogues = [_dialogue(text) for text in texts]
    else:
        dialogues = [messages_in(row, key, where) for key in PAIR]
    common = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*dialogues, strict=False))))
    if common == len(dialogues[0]) == len(dialogues[1]):
        raise UserError(f"{where}: chosen and rejected are the same")
    if not common:
        raise UserError(f"{where}: there is no prompt: chosen and rejected do not begin with the same message")
    return dialogues[0][:common], [dialogue[common:] for dialogue in dialogues]


def _dialogue(text: str) -> Messages:
    """hh-rlhf's form of a dialogue as messages."""
    _, *parts = SPEAKER.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    spoken = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": roles[name], "content": said.strip()} for name, said in spoken]


def _implicit_text(chosen: str, rejected: str, where: str) -> tuple[Messages, list[Messages]]:
    """Texts that begin alike, parted before the first word that differs (TRL's implicit prompt, as plain text)."""
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    if alike == len(chosen) == len(rejected):
        raise UserError(f"{where}: chosen and rejected are the same")
    begin = re.compile(r"\s+\S*\Z").search(chosen[:alike])
    if begin is None or not chosen[: begin.start()]:
        raise UserError(f"{where}: there is no prompt: chosen and rejected do not begin with the same words")
    cut = begin.start()
    return _said("user", chosen[:cut]), [_said("assistant", text[cut:]) for text in (chosen, rejected)]


def _response(said: Messages, where: str) -> Messages:
    """What follows a prompt, if it is the assistant's turn."""
    if said and said[0]["role"] != "assistant":
        raise UserError(f"{where}: what follows the prompt is said by the {said[0]['role']}, not by the assistant")
    return checked(said, where)


def _plain(said: Messages) -> list[tuple[str, str]]:
    return [(message["role"], message["content"].strip()) for message in said]


def _margin(row: Mapping[str, Any], where: str) -> float | None:
    margin = row.get("margin")
    if margin is None or _finite(margin):
        return margin
    raise UserError(f"{where}: the field 'margin' holds {kind(margin)}, and a finite number is needed")


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # a truth value is no number, and JSON here has NaN


# ---------------------------------------------------------------------- the other kinds
def _prompt(row: Mapping[str, Any], where: str) -> Messages:
    asks = next((key for key in ANSWERS if key in row), None)
    if asks is None:
        raise UserError(f"{where}: there is no {', '.join(ANSWERS)} {fields(row)}")
    return question_in(row, asks, where)


def _ranked(row: Mapping[str, Any], where: str) -> Ranked:
    prompt, found = _prompt(row, where), row["responses"]
    if not isinstance(found, list) or len(found) < 2:
        raise UserError(f"{where}: 'responses' holds {kind(found)}, and a list of two or more is needed")
    ranks = row.get("ranks")
    ranks = list(range(1, len(found) + 1)) if ranks is None else ranks
    numbers = isinstance(ranks, list) and all(map(_finite, ranks))
    if not numbers or len(ranks) != len(found):
        raise UserError(f"{where}: 'ranks' needs one number for each of the {len(found)} responses, 1 for the best")
    named = [(f"{where}, response {number}", response) for number, response in enumerate(found, 1)]
    responses = [_response(answer_in({"response": said}, "response", place), place) for place, said in named]
    for one, other in combinations(range(len(found)), 2):
        if _plain(responses[one]) == _plain(responses[other]):
            raise UserError(f"{where}: the responses {one + 1} and {other + 1} are the same")
    order = sorted(range(len(found)), key=lambda index: ranks[index])
    return Ranked(prompt, [responses[index] for index in order], [ranks[index] for index in order])


def _labelled(row: Mapping[str, Any], where: str) -> Labelled:
    prompt, label = _prompt(row, where), row["label"]
    key = next((key for key in ANSWERS["prompt"] if key in row), None)
    if key is None:
        raise UserError(f"{where}: there is no field 'completion' {fields(row)}")
    if label not in (0, 1):
        raise UserError(f"{where}: the field 'label' holds {kind(label)}, and true or false is needed")
    return Labelled(prompt, _response(_after(prompt, answer_in(row, key, where)), where), bool(label))


def _verifiable(row: Mapping[str, Any], where: str) -> Verifiable:
    prompt, answer = _prompt(row, where), text_in(row, "answer", where).rpartition("####")[2].strip()
    if not answer:
        raise UserError(f"{where}: the answer is empty")
    return Verifiable(
        prompt, answer.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", answer) else answer
    )
