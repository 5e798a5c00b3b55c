"""Who is in a tale and where it happens: names, kinds of animals, places, and the choice among them.

Everything here exists so that a tale makes sense: kinds live where such animals live, a wing is not a paw,
and every person carries the pronouns that belong to the name.
"""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

from .tale_grammar import pick

GIRLS = (
    "Lily", "Anna", "Mia", "Zoe", "Emma", "Lucy", "Ella", "Nina", "Ruby", "Clara", "Maya", "Sara", "Alice",
    "Amina", "Leila", "Mei", "Priya", "Hana", "Freya", "Ines",
)
BOYS = (
    "Tom", "Ben", "Leo", "Max", "Sam", "Jack", "Noah", "Finn", "Omar", "Hugo", "Theo", "Oscar", "Tim",
    "Adam", "Ravi", "Kofi", "Mateo", "Felix", "Emil", "Jonas",
)
ANIMAL_SHE = (
    "Hazel", "Daisy", "Poppy", "Clover", "Bella", "Tilly", "Maple", "Willow", "Olive", "Pearl", "Misty",
    "Ginger", "Nutmeg",
)
ANIMAL_HE = (
    "Pip", "Bruno", "Toby", "Rusty", "Biscuit", "Milo", "Fergus", "Chester", "Monty", "Basil", "Barney",
    "Ziggy", "Otis",
)
ELDER_SHE = ("Martha", "Edith", "Agnes", "Greta", "Nora")
ELDER_HE = ("Walter", "Albert", "Otto", "Harold", "Gustav")
NAMES = GIRLS + BOYS + ANIMAL_SHE + ANIMAL_HE + ELDER_SHE + ELDER_HE


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
    _kind("rabbit", "white grey brown", "hopped", "paw", "wood farm garden"),
    _kind("bear", "brown black", "walked", "paw", "wood"),
    _kind("mouse", "grey brown white", "ran", "paw", "wood farm garden"),
    _kind("hedgehog", "brown prickly", "trotted", "paw", "wood garden"),
    _kind("squirrel", "red grey", "ran", "paw", "wood"),
    _kind("badger", "grey striped", "trotted", "paw", "wood"),
    _kind("owl", "white brown", "flew", "wing", "wood"),
    _kind("deer", "brown spotted", "trotted", "hoof", "wood hill"),
    _kind("frog", "green spotted", "hopped", "foot", "pond"),
    _kind("duck", "white yellow brown", "waddled", "wing", "pond farm"),
    _kind("otter", "brown sleek", "ran", "paw", "pond"),
    _kind("beaver", "brown furry", "walked", "paw", "pond"),
    _kind("goose", "grey white", "waddled", "wing", "pond farm"),
    _kind("kitten", "black white orange striped", "ran", "paw", "farm garden"),
    _kind("puppy", "brown black spotted", "ran", "paw", "farm garden"),
    _kind("lamb", "white black woolly", "trotted", "hoof", "farm hill"),
    _kind("pony", "brown white spotted", "trotted", "hoof", "farm hill"),
    _kind("goat", "white brown grey", "trotted", "hoof", "farm hill"),
    _kind("piglet", "pink spotted", "trotted", "foot", "farm"),
    _kind("robin", "brown red", "flew", "wing", "garden wood"),
    _kind("sparrow", "brown grey", "flew", "wing", "garden farm"),
    _kind("hare", "brown grey", "hopped", "paw", "hill"),
    _kind("turtle", "green brown", "walked", "foot", "pond sea"),
    _kind("seal", "grey spotted", "slid", "flipper", "sea snow"),
    _kind("crab", "red orange", "walked", "claw", "sea"),
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
    "wood": ("owl", "badger", "bear"), "farm": ("donkey", "horse", "hen"), "garden": ("toad", "cat", "crow"),
    "pond": ("heron", "turtle", "toad"), "hill": ("donkey", "goat", "eagle"),
    "sea": ("turtle", "gull", "seal"),
    "snow": ("seal", "whale", "gull"),
}
WORKERS = {
    "village": ("baker", "teacher", "tailor", "miller", "gardener", "cook", "painter"),
    "farm": ("farmer", "miller", "shepherd", "gardener"), "sea": ("fisher", "sailor", "painter", "cook"),
    "hill": ("shepherd", "woodcutter", "beekeeper"), "snow": ("baker", "weaver", "sailor"),
}
LITTLE_ONES = {
    "village": ("puppy", "kitten", "duckling"), "farm": ("lamb", "chick", "duckling", "calf"),
    "wood": ("bunny", "fawn", "bear cub"), "garden": ("chick", "bunny", "kitten"),
    "pond": ("duckling", "gosling"), "hill": ("lamb", "bunny", "fawn"), "sea": ("baby seal", "baby turtle"),
    "snow": ("baby seal",),
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
    Place("village", "in a small village by a river", "the village", "the stone bridge",
          "The river sang under the bridge all day."),
    Place("village", "in a little town with red roofs", "the town", "the market",
          "A fat cat slept on every roof."),
    Place("village", "in a quiet village at the foot of a hill", "the village", "the old well",
          "The water in the old well was cold and sweet."),
    Place("village", "in a busy town near a park", "the town", "the park gate",
          "The park had a pond, a swing and nine noisy ducks."),
    Place("village", "in a yellow house at the end of a lane", "the lane", "the garden gate",
          "The garden gate went squeak each time it opened."),
    Place("village", "in a tall house next to a bakery", "the street", "the bakery",
          "The whole street smelled of fresh bread."),
    Place("farm", "on a sunny farm", "the farm", "the big red barn",
          "The hens there talked from morning until night."),
    Place("farm", "on a small farm beside a windmill", "the farm", "the windmill",
          "The windmill turned slowly and creaked like an old chair."),
    Place("farm", "on a farm in a wide green valley", "the valley", "the apple tree",
          "In autumn, apples fell with a soft thump."),
    Place("farm", "on a farm beside a dusty road", "the farm", "the wooden fence",
          "The rooster always woke up too early."),
    Place("wood", "in a green wood", "the wood", "the old oak",
          "The old oak was so wide that ten friends could hide behind it."),
    Place("wood", "in a deep pine forest", "the forest", "the fallen log",
          "Soft moss grew everywhere like a green carpet."),
    Place("wood", "in a forest by a stream", "the forest", "the stream",
          "The stream was cold and clear and never stopped talking."),
    Place("wood", "at the edge of a big forest", "the forest", "the berry bushes",
          "The berries there were as sweet as honey."),
    Place("garden", "in a garden full of flowers", "the garden", "the rose bush",
          "Bees hummed there all summer long."),
    Place("garden", "in a wild old garden", "the garden", "the garden wall",
          "Nobody had cut the grass for a hundred years."),
    Place("garden", "behind a cottage with a blue door", "the garden", "the pumpkin patch",
          "The pumpkins were bigger than anyone in the garden."),
    Place("pond", "by a round blue pond", "the pond", "the tall reeds",
          "Dragonflies danced over the water."),
    Place("pond", "beside a slow brown river", "the river", "the willow tree",
          "The river was never in a hurry."),
    Place("pond", "on the bank of a small lake", "the lake", "the flat grey rock",
          "The lake was as smooth as glass."),
    Place("sea", "on a small island", "the island", "the old boat",
          "The waves whispered to the sand all day."),
    Place("sea", "near a tall lighthouse by the sea", "the beach", "the lighthouse",
          "At night, the lighthouse winked at the moon."),
    Place("sea", "beside a sandy beach", "the beach", "the big rock",
          "The sand was warm and full of pretty shells."),
    Place("hill", "high in the hills", "the hills", "the waterfall",
          "The clouds there were so low that you could almost touch them."),
    Place("hill", "on the side of a great mountain", "the mountain", "the tall pine",
          "If you shouted hello, the mountain shouted hello back."),
    Place("snow", "in a land of snow and ice", "the land", "the frozen lake",
          "Even the snowmen there looked cold."),
    Place("snow", "in the far north, beside an icy sea", "the shore", "the ice cave",
          "The ice made funny cracking sounds at night."),
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
    return tuple((place, kind) for place in PLACES if place.group in groups.split()
                 for kind in kinds if place.group in kind.groups)


def draw_hero(rng: random.Random, groups: str, also_children: str = "") -> tuple[Place, Person]:
    """A hero and a place where such a hero lives; half of the heroes are children."""
    if rng.random() < 0.5:
        place, kind = pick(rng, _settings(f"{groups} {also_children}", CHILDREN))
        return place, _child(rng, kind.noun == "girl", ())
    place, kind = pick(rng, _settings(groups, ANIMALS))
    return place, _animal(rng, kind, rng.random() < 0.5, ())


def draw_friend(rng: random.Random, role: str, hero: Person, place: Place) -> Person:
    """A second person for the tale. Mostly of the other sex: then every "he" and "she" is clear."""
    female = (rng.random() < 0.75) != hero.female
    if role == "little":
        noun = pick(rng, LITTLE_ONES[place.group])
        return Person(_name(rng, ANIMAL_SHE if female else ANIMAL_HE, hero.name), noun,
                      f"{pick(rng, LITTLE_WORDS)} {noun}", female)
    if role == "elder":
        return _elder(rng, female, hero, place)
    if hero.is_child:
        return _child(rng, female, (hero.name,))
    kinds = [kind for kind in ANIMALS if place.group in kind.groups and kind.noun != hero.noun]
    return _animal(rng, pick(rng, kinds), female, (hero.name,))


def _elder(rng: random.Random, female: bool, hero: Person, place: Place) -> Person:
    if hero.is_child:
        noun, names = pick(rng, WORKERS[place.group]), ELDER_SHE if female else ELDER_HE
    else:
        nouns = [noun for noun in OLD_ANIMALS[place.group] if noun != hero.noun]
        noun = pick(rng, nouns)
        female = female or noun == "hen"
        names = ANIMAL_SHE if female else ANIMAL_HE
    return Person(_name(rng, names, hero.name), noun, f"{pick(rng, OLD_WORDS)} {noun}", female)


def _child(rng: random.Random, female: bool, taken: tuple[str, ...]) -> Person:
    noun = "girl" if female else "boy"
    name = _name(rng, GIRLS if female else BOYS, *taken)
    return Person(name, noun, f"{pick(rng, CHILD_WORDS)} {noun}", female)


def _animal(rng: random.Random, kind: Kind, female: bool, taken: tuple[str, ...]) -> Person:
    look = kind.noun
    if (style := rng.random()) < 0.75:
        look = f"{pick(rng, kind.colors)} {look}"
    if style > 0.35:
        look = f"{pick(rng, SIZES)} {look}"
    return Person(_name(rng, ANIMAL_SHE if female else ANIMAL_HE, *taken), kind.noun, look, female, kind.went,
                  kind.hand)


def _name(rng: random.Random, names: tuple[str, ...], *taken: str) -> str:
    return pick(rng, [name for name in names if name not in taken])
