"""Short tales without end, from a seed: what `tinytale train` reads when no other text is given.

The idea comes from TinyStories (Eldan & Li, 2023, arXiv:2305.07759): a model with a few million parameters
can write coherent English if its world is small. So we make tales from about 1,260 simple words and 18 plots,
each with a hero, a want, a trouble, a helper and a lesson. Nothing is downloaded and nothing is stored: tale
number i of a seed is a pure function of the two, the same on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from .tale_cast import Person, Place, draw_friend, draw_hero, pronouns
from .tale_grammar import Words, draw, pick, tell
from .tale_identity import IDENTITY
from .tale_plots import DAYS, PLOTS, Plot, can_happen, fitting_props

__all__ = ["IDENTITY", "preferences", "questions", "tale", "tales"]

UNKIND_TRIES = 24
THE_END = 0.15  # share of the tales that say so
MOST_WORDS = 120  # a longer telling is told again, so that a tale fits a short context

_ASKED_OF_EVERY_TALE = (
    ("Who is this tale about?", "This tale is about {hero}, {a_look}."),
    ("Who is the hero of the tale?", "The hero is {hero}, {a_look}."),
    ("Where did {hero} live?", "{hero} lived {home}."),
    ("Who was {friend}?", "{friend} was {a_flook}."),
    ("What did {hero} learn?", "{hero} learned that {lesson}."),
)


class Draft(NamedTuple):
    """A tale in its parts; the start stops just before the hero chooses."""

    plot: Plot
    place: Place
    hero: Person
    friend: Person
    values: Words
    start: str
    ending: str

    @property
    def text(self) -> str:
        return self.start + self.ending


def tale(seed: int, index: int) -> str:
    """Tale number `index` of `seed`."""
    return _draft(seed, index).text


def tales(count: int, seed: int = 0) -> Iterator[str]:
    """The first `count` tales of `seed`."""
    return (tale(seed, index) for index in range(count))


def questions(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """One question about each of the first `count` tales of `seed`, with a short and true answer."""
    for index in range(count):
        draft = _draft(seed, index)
        rng = random.Random(f"tinytale question {seed} {index}")
        if rng.random() < 0.5:
            question, answer = pick(rng, _ASKED_OF_EVERY_TALE)
        else:
            phrasing, answer = pick(rng, draft.plot.asks)
            question = draw(rng, phrasing)
        yield {
            "tale": draft.text,
            "question": question.format_map(draft.values),
            "answer": answer.format_map(draft.values),
        }


def preferences(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Two endings for each of the first `count` tales of `seed`: the tale's own, and an unkind one.

    prompt + chosen is the tale itself. Of several unkind endings the one nearest in length is taken, so that
    a reward model cannot win by counting words.
    """
    for index in range(count):
        draft = _draft(seed, index)
        rng = random.Random(f"tinytale preference {seed} {index}")
        closing = _last_words(draft.ending)
        endings = [tell(rng, draft.plot.unkind, draft.values) + closing for _ in range(UNKIND_TRIES)]
        rejected = min(endings, key=lambda ending: abs(len(ending) - len(draft.ending)))
        yield {"prompt": draft.start, "chosen": draft.ending, "rejected": rejected}


def _draft(seed: int, index: int) -> Draft:
    rng = random.Random(f"tinytale tale {seed} {index}")
    plot, place, hero = _draw_plot(rng)
    friend = draw_friend(rng, plot.script.friend, hero, place)
    values = _values(rng, plot, place, hero, friend)
    while True:
        start = tell(rng, plot.start, values)[1:]
        ending = tell(rng, plot.ending, values)
        if start.count(" ") + ending.count(" ") < MOST_WORDS:
            break
    if rng.random() < THE_END:
        ending += " The end."
    return Draft(plot, place, hero, friend, values, start, ending)


def _draw_plot(rng: random.Random) -> tuple[Plot, Place, Person]:
    while True:  # a few kinds of heroes have nothing to do in a few plots; then another hero is drawn
        plot = pick(rng, PLOTS)
        place, hero = draw_hero(rng, plot.script.where, plot.script.children_also)
        if can_happen(plot, hero, place):
            return plot, place, hero


def _values(rng: random.Random, plot: Plot, place: Place, hero: Person, friend: Person) -> Words:
    values = Words(
        hero=hero.name,
        kind=hero.noun,
        look=hero.look,
        went=hero.went,
        hand=hero.hand,
        friend=friend.name,
        fkind=friend.noun,
        flook=friend.look,
        **pronouns(hero),
        **pronouns(friend, "f"),
        home=place.home,
        area=place.area,
        spot=place.spot,
        detail=place.detail,
        one_day=pick(rng, DAYS),
        lesson=pick(rng, plot.script.lessons),
    )
    for key, text in pick(rng, fitting_props(plot.name, hero.noun, place.group)).items():
        values[key] = text.format_map(values) if "{" in text else text
    return values


def _last_words(ending: str) -> str:
    return " The end." if ending.endswith(" The end.") else ""
