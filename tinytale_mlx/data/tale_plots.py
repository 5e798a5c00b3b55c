"""All the plots of our tales, read and ready, and the sentences that they share.

The idea comes from TinyStories (Eldan & Li, 2023, arXiv:2305.07759): with a small vocabulary and simple
plots, even a very small model learns to tell a coherent tale. Each plot brings its own sentences; openings,
lessons and last lines are shared. A plot has two endings: a kind one, and an unkind one for preferences.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from . import tale_plots_courage as courage
from . import tale_plots_finding as finding
from . import tale_plots_friends as friends
from . import tale_plots_making as making
from . import tale_plots_trouble as trouble
from .tale_cast import CHILD_NOUNS, Person, Place
from .tale_grammar import Phrasing, Script, Slot, parse

DAYS = (
    "one day",
    "one day",
    "one morning",
    "one afternoon",
    "early one morning",
    "one fine day",
    "one quiet afternoon",
    "one day after breakfast",
    "one bright morning",
    "one Sunday",
)

_OPENING = """
Once upon a time, {a_look} named {hero} lived {home}.
Once upon a time, there was {a_look} named {hero} who lived {home}.
There was once {a_look} named {hero} who lived {home}.
{Home}, there lived {a_look} named {hero}.
{A_look} named {hero} lived {home}.
Long ago, {a_look} named {hero} lived {home}.
{hero} was {a_look} who lived {home}.
This is the tale of {hero}, {a_look} who lived {home}.
Not so long ago, {home}, there lived {a_look} named {hero}.
Once there was {a_look}. {His} name was {hero}, and {he} lived {home}.

?
{detail}
{detail}
{detail}
{He} had a laugh that sounded like a tiny bell.
{He} liked warm soup, bad jokes and long naps.
{He} could hum and eat at the same time.
{He} knew the name of every cloud, because {he} made them up.
{He} was afraid of nothing but [cold water|carrots|early mornings].
{He} asked so many questions that even the wind got tired.
{He} had a pocket full of [nuts|crumbs|pretty stones] and a head full of plans.
{His} favorite word was [why|maybe|again|pancake].
{He} loved the smell of rain and the sound of spoons.
Everyone knew {him}, because {he} sang when {he} walked.
{He} always ate dessert first, just to be safe.
"""

_SHARED = {
    "meet": """
Just then, {a_flook} named {friend} came by.
Along came {friend}, {a_flook}.
Then {he} met {a_flook} named {friend}.
Not far away lived {friend}, {a_flook}. {Fhe} came to see what was going on.
After a while, {a_flook} named {friend} came down the path.
A voice behind {him} said hello. It was {friend}, {a_flook}.
{A_flook} named {friend} stopped and looked at {hero}.
""",
    "lesson": """
That day, {hero} learned that {lesson}.
{hero} had learned that {lesson}.
Now {hero} knew that {lesson}.
From then on, {hero} knew that {lesson}.
And {hero} never forgot that {lesson}.
So {hero} learned that {lesson}.
""",
    "close": """
{hero} and {friend} [laughed|sang|talked] all the way home.
From that day on, {hero} and {friend} were good friends.
That night, {hero} [fell asleep|went to sleep] with a smile.
{hero} went home with a light heart and a hungry tummy.
{hero} smiled all that day, and all the next day too.
At supper, {hero} told the whole tale, and then {he} told it again.
And if you listen, you can still hear {hero} and {friend} laughing.
{hero} was so happy that {he} hugged a tree. The tree did not mind.
That evening, {hero} and {friend} watched the moon come up.
And {hero} and {friend} are friends to this day.
The sun went down, and {hero} thought that it was the best day of all.
""",
    "scorn": """
{hero} did not learn anything that day.
{hero} thought only of {himself}.
"That is not my problem," thought {hero}.
And {hero} never said that {he} was sorry.
{hero} did not care that {friend} was sad.
{hero} felt no shame at all.
""",
    "cold": """
{hero} went home alone, and nobody waved.
That night, {hero} did not smile at anyone.
After that, {friend} did not come to see {hero} again.
{hero} walked away and did not look back even once.
From that day on, {hero} and {friend} were not friends.
{hero} shut {his} eyes and did not think about {friend} anymore.
That evening, {friend} cried, and {hero} ate supper as if nothing was wrong.
And {hero} was rude to {friend} the next day, and the day after that.
The sun went down, and {hero} was still as mean as before.
""",
}
SHARED = {name: parse(passage)[0] for name, passage in _SHARED.items()}
OPENING = parse(_OPENING)


class Plot(NamedTuple):
    script: Script
    start: tuple[Slot, ...]
    ending: tuple[Slot, ...]
    unkind: tuple[Slot, ...]
    asks: tuple[tuple[Phrasing, str], ...]

    @property
    def name(self) -> str:
        return self.script.name


def _read(script: Script) -> Plot:
    return Plot(
        script,
        start=OPENING + parse(script.start, SHARED),
        ending=parse(script.ending, SHARED),
        unkind=parse(script.unkind, SHARED),
        asks=tuple((parse(question)[0].phrasings[0], answer) for question, answer in script.asks),
    )


SHELVES = (finding, making, courage, trouble, friends)
PLOTS = tuple(_read(script) for shelf in SHELVES for script in shelf.PLOTS)


@cache
def fitting_props(name: str, noun: str, group: str) -> tuple[dict[str, str], ...]:
    """The props of a plot that suit this hero here: a robin may learn to fly, a crab may not."""
    (plot,) = (plot for plot in PLOTS if plot.name == name)
    who = "child" if noun in CHILD_NOUNS else noun
    return tuple(
        words
        for words in plot.script.props
        if who in words.get("who", who).split() and group in words.get("places", group).split()
    )


def can_happen(plot: Plot, hero: Person, place: Place) -> bool:
    return bool(fitting_props(plot.name, hero.noun, place.group))
