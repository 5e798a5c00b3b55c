"""Who is in a tale and where it happens: names, kinds of animals, places, and the choice among them.

Everything here exists so that a tale makes sense: kinds live where such animals live, a wing is not a paw,
and every person carries the pronouns that belong to the name.
"""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

from .tale_grammar import pick

# Everyone is named by what they are: in our world there is one fox, and he is Pip. A cast that comes back is what
# children like, and what lets a model of a million parameters keep its hero's name.
_NAMED = """
girl Mia she, boy Tom he,
fox Pip he, bear Bruno he, squirrel Hazel she, owl Olive she, robin Ruby she, rabbit Biscuit he,
mouse Daisy she, kitten Misty she, puppy Rusty he, lamb Clover she, duck Poppy she, frog Hugo he,
otter Milo he, goat Basil he, seal Pearl she, gull Otis he, penguin Nina she,
bunny Tilly she, duckling Monty he, chick Ella she, bear cub Toby he, baby seal Finn he,
badger Walter he, donkey Harold he, toad Albert he, heron Agnes she, turtle Martha she, whale Greta she,
baker Edith she, miller Otto he, gardener Emil he, farmer Clara she, shepherd Jonas he, fisher Gustav he,
painter Freya she, sailor Nora she
"""


def _read_names(table: str) -> dict[str, tuple[str, bool]]:
    """noun: (name, whether female)."""
    entries = [entry.split() for entry in table.replace("\n", " ").split(",")]
    return {" ".join(words): (name, sex == "she") for *words, name, sex in entries}


NAMED = _read_names(_NAMED)
NAMES = tuple(name for name, _ in NAMED.values())


class Kind(NamedTuple):
    noun: str
    colors: tuple[str, ...]
    went: str
    hand: str
    groups: tuple[str, ...]


def _kind(noun: str, colors: str, went: str, hand: str, groups: str) -> Kind:
    return Kind(noun, tuple(colors.split()), went, hand, tuple(groups.split()))


ANIMALS = (
    _kind("fox", "red brown", "ran", "paw", "wood hill"),
    _kind("bear", "brown black", "walked", "paw", "wood"),
    _kind("squirrel", "red grey", "ran", "paw", "wood"),
    _kind("owl", "white brown", "flew", "wing", "wood"),
    _kind("robin", "brown red", "flew", "wing", "garden wood"),
    _kind("rabbit", "white grey brown", "hopped", "paw", "wood farm garden"),
    _kind("mouse", "grey brown white", "ran", "paw", "farm garden"),
    _kind("kitten", "black white orange striped", "ran", "paw", "farm garden"),
    _kind("puppy", "brown black spotted", "ran", "paw", "farm garden"),
    _kind("lamb", "white black woolly", "trotted", "hoof", "farm hill"),
    _kind("duck", "white yellow brown", "waddled", "wing", "pond farm"),
    _kind("frog", "green spotted", "hopped", "foot", "pond"),
    _kind("otter", "brown sleek", "ran", "paw", "pond"),
    _kind("goat", "white brown grey", "trotted", "hoof", "farm hill"),
    _kind("seal", "grey spotted", "slid", "flipper", "sea snow"),
    _kind("gull", "white grey", "flew", "wing", "sea snow"),
    _kind("penguin", "black fluffy", "waddled", "wing", "snow"),
)
CHILDREN = (
    Kind("girl", (), "ran", "hand", ("village", "farm", "sea", "hill", "snow")),
    Kind("boy", (), "ran", "hand", ("village", "farm", "sea", "hill", "snow")),
)
CHILD_NOUNS = ("girl", "boy")

# The old and wise, the very small: by group of places. People meet people, animals meet animals.
OLD_ANIMALS = {
    "wood": ("owl", "badger"),
    "farm": ("donkey", "turtle"),
    "garden": ("toad", "turtle"),
    "pond": ("heron", "toad"),
    "hill": ("donkey", "goat", "owl"),
    "sea": ("turtle", "whale", "gull"),
    "snow": ("whale", "gull"),
}
WORKERS = {
    "village": ("baker", "gardener", "painter", "miller"),
    "farm": ("farmer", "miller", "shepherd"),
    "sea": ("fisher", "sailor", "painter"),
    "hill": ("shepherd", "farmer"),
    "snow": ("baker", "fisher"),
}
LITTLE_ONES = {
    "village": ("puppy", "kitten", "duckling"),
    "farm": ("lamb", "chick", "duckling"),
    "wood": ("bunny", "bear cub"),
    "garden": ("chick", "bunny", "duckling"),
    "pond": ("duckling", "bunny"),
    "hill": ("lamb", "bunny", "bear cub"),
    "sea": ("baby seal", "chick"),
    "snow": ("baby seal", "chick"),
}
SIZES = ("small", "little", "young", "plump", "cheerful", "clever", "merry", "curious")
CHILD_WORDS = ("little", "small", "young", "cheerful", "curious", "clever", "merry", "lively", "busy")
OLD_WORDS = ("old", "old", "wise old", "kind old", "gentle old", "sleepy old")
LITTLE_WORDS = ("tiny", "fluffy", "lost little", "very small", "wet little")


class Place(NamedTuple):
    group: str
    home: str
    area: str
    spot: str
    detail: str


PLACES = (
    Place(
        "village",
        "in a small village by a river",
        "the village",
        "the stone bridge",
        "The river sang under the bridge all day.",
    ),
    Place("village", "in a little town with red roofs", "the town", "the market", "A fat cat slept on every roof."),
    Place(
        "village",
        "in a quiet village at the foot of a hill",
        "the village",
        "the old well",
        "The water in the old well was cold and sweet.",
    ),
    Place(
        "village",
        "in a busy town near a park",
        "the town",
        "the park gate",
        "The park had a pond, a swing and nine noisy ducks.",
    ),
    Place(
        "village",
        "in a yellow house at the end of a lane",
        "the lane",
        "the garden gate",
        "The garden gate went squeak each time it opened.",
    ),
    Place(
        "village",
        "in a tall house next to a bakery",
        "the street",
        "the bakery",
        "The whole street smelled of fresh bread.",
    ),
    Place("farm", "on a sunny farm", "the farm", "the big red barn", "The hens there talked from morning until night."),
    Place(
        "farm",
        "on a small farm beside a windmill",
        "the farm",
        "the windmill",
        "The windmill turned slowly and creaked like an old chair.",
    ),
    Place(
        "farm",
        "on a farm in a wide green valley",
        "the valley",
        "the apple tree",
        "In autumn, apples fell with a soft thump.",
    ),
    Place(
        "farm", "on a farm beside a dusty road", "the farm", "the wooden fence", "The rooster always woke up too early."
    ),
    Place(
        "wood",
        "in a green wood",
        "the wood",
        "the old oak",
        "The old oak was so wide that ten friends could hide behind it.",
    ),
    Place(
        "wood",
        "in a deep pine forest",
        "the forest",
        "the fallen log",
        "Soft moss grew everywhere like a green carpet.",
    ),
    Place(
        "wood",
        "in a forest by a stream",
        "the forest",
        "the stream",
        "The stream was cold and clear and never stopped talking.",
    ),
    Place(
        "wood",
        "at the edge of a big forest",
        "the forest",
        "the berry bushes",
        "The berries there were as sweet as honey.",
    ),
    Place("garden", "in a garden full of flowers", "the garden", "the rose bush", "Bees hummed there all summer long."),
    Place(
        "garden",
        "in a wild old garden",
        "the garden",
        "the garden wall",
        "Nobody had cut the grass for a hundred years.",
    ),
    Place(
        "garden",
        "behind a cottage with a blue door",
        "the garden",
        "the pumpkin patch",
        "The pumpkins were bigger than anyone in the garden.",
    ),
    Place("pond", "by a round blue pond", "the pond", "the tall reeds", "Dragonflies danced over the water."),
    Place("pond", "beside a slow brown river", "the river", "the willow tree", "The river was never in a hurry."),
    Place("pond", "on the bank of a small lake", "the lake", "the flat grey rock", "The lake was as smooth as glass."),
    Place("sea", "on a small island", "the island", "the old boat", "The waves whispered to the sand all day."),
    Place(
        "sea",
        "near a tall lighthouse by the sea",
        "the beach",
        "the lighthouse",
        "At night, the lighthouse winked at the moon.",
    ),
    Place("sea", "beside a sandy beach", "the beach", "the big rock", "The sand was warm and full of pretty shells."),
    Place(
        "hill",
        "high in the hills",
        "the hillside",
        "the waterfall",
        "The clouds there were so low that you could almost touch them.",
    ),
    Place(
        "hill",
        "on the side of a great mountain",
        "the mountain",
        "the tall pine",
        "If you shouted hello, the mountain shouted hello back.",
    ),
    Place("snow", "in a land of snow and ice", "the land", "the frozen lake", "Even the snowmen there looked cold."),
    Place(
        "snow",
        "in the far north, beside an icy sea",
        "the shore",
        "the ice cave",
        "The ice made funny cracking sounds at night.",
    ),
)


class Person(NamedTuple):
    name: str
    noun: str
    look: str
    female: bool
    went: str = "ran"
    hand: str = "hand"

    @property
    def is_child(self) -> bool:
        return self.noun in CHILD_NOUNS


def pronouns(person: Person, prefix: str = "") -> dict[str, str]:
    forms = ("she", "her", "her", "herself") if person.female else ("he", "him", "his", "himself")
    return {prefix + key: form for key, form in zip(("he", "him", "his", "himself"), forms, strict=True)}


@cache
def _settings(groups: str, kinds: tuple[Kind, ...]) -> tuple[tuple[Place, Kind], ...]:
    """Every place in these groups together with every kind that lives there."""
    return tuple(
        (place, kind)
        for place in PLACES
        if place.group in groups.split()
        for kind in kinds
        if place.group in kind.groups
    )


def draw_hero(rng: random.Random, groups: str, also_children: str = "") -> tuple[Place, Person]:
    """A hero and a place where such a hero lives; a third of the heroes are children."""
    if rng.random() < 1 / 3:
        place, kind = pick(rng, _settings(f"{groups} {also_children}", CHILDREN))
        return place, _child(rng, kind.noun)
    place, kind = pick(rng, _settings(groups, ANIMALS))
    return place, _animal(rng, kind)


def draw_friend(rng: random.Random, role: str, hero: Person, place: Place) -> Person:
    """A second person for the tale, of the other sex: then every "he" and "she" is clear."""
    if role == "peer" and hero.is_child:
        return _child(rng, "boy" if hero.female else "girl")
    if role == "peer":
        kinds = {kind.noun: kind for kind in ANIMALS if place.group in kind.groups}
        return _animal(rng, kinds[_other(rng, tuple(kinds), hero)])
    if role == "little":
        noun, words = _other(rng, LITTLE_ONES[place.group], hero), LITTLE_WORDS
    else:
        noun, words = _other(rng, (WORKERS if hero.is_child else OLD_ANIMALS)[place.group], hero), OLD_WORDS
    name, female = NAMED[noun]
    return Person(name, noun, f"{pick(rng, words)} {noun}", female)


def _other(rng: random.Random, nouns: tuple[str, ...], hero: Person) -> str:
    """One of the nouns that is of the other sex, and so not the hero's."""
    return pick(rng, [noun for noun in nouns if NAMED[noun][1] != hero.female])


def _child(rng: random.Random, noun: str) -> Person:
    name, female = NAMED[noun]
    return Person(name, noun, f"{pick(rng, CHILD_WORDS)} {noun}", female)


def _animal(rng: random.Random, kind: Kind) -> Person:
    look = kind.noun
    if (style := rng.random()) < 0.75:
        look = f"{pick(rng, kind.colors)} {look}"
    if style > 0.35:
        look = f"{pick(rng, SIZES)} {look}"
    name, female = NAMED[kind.noun]
    return Person(name, kind.noun, look, female, kind.went, kind.hand)
