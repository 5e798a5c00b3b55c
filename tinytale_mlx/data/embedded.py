"""The embedded corpus: tales, and among them conversations made of them, so that the model can chat.

Document i is a pure function of (seed, i), like the tales themselves. Every sixth is a conversation: a wish
for a tale and the tale, a tale with a question about it and the answer, or a question about the model itself.
"""

import random
import re
from collections.abc import Iterator

from .files import Document
from .tale_cast import ANIMALS, CHILDREN, NAMES
from .tale_grammar import pick
from .tales import IDENTITY, questions, tale

EVERY = 6  # one document in six is a conversation

NOUNS = "|".join(kind.noun for kind in (*ANIMALS, *CHILDREN))
HERO_NOUN = re.compile(rf"\b({NOUNS})\b")
HERO_NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")

WISHES = (
    "Tell me a tale about {}.",
    "Tell me a story about {}.",
    "Please tell me a tale about {}.",
    "Can you tell me a tale about {}?",
    "Could you tell me a story about {}, please?",
    "I would like to hear a tale about {}.",
    "Do you know a tale about {}?",
    "Write a short story about {}.",
)
OPEN_WISHES = (
    "Tell me a tale.",
    "Tell me a story.",
    "Please tell me a bedtime tale.",
    "Do you know a good tale?",
)
ASKING = (
    "{tale}\n\n{question}",
    "Here is a tale.\n\n{tale}\n\n{question}",
    "Read this tale: {tale}\n\n{question}",
)


def documents(count: int, seed: int) -> Iterator[Document]:
    """Documents 0 to count - 1; a longer corpus begins with a shorter one."""
    return (document(seed, index) for index in range(count))


def document(seed: int, index: int) -> Document:
    """Document `index` of the corpus that `seed` names: a tale, or every sixth time a conversation."""
    turn, place = divmod(index, EVERY)
    if place != EVERY - 1:
        return tale(seed, index)
    rng = random.Random(f"{seed}/{index}")  # a text seeds through SHA-512, the same everywhere
    return (_wish, _identity, _question, _identity)[turn % 4](rng, seed, index)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _wish(rng: random.Random, seed: int, index: int) -> list[dict[str, str]]:
    """A wish for a tale about its hero, by kind or by name, and the tale."""
    told = tale(seed, index)
    noun, name = HERO_NOUN.search(told.split(".")[0]), HERO_NAME.search(told)
    heroes = [f"{'an' if noun[0][0] in 'aeiou' else 'a'} {noun[0]}"] if noun else []
    heroes += [name[0]] if name else []
    hero = pick(rng, heroes) if heroes else ""
    wish = pick(rng, WISHES).format(hero) if hero and rng.random() < 0.85 else pick(rng, OPEN_WISHES)
    return [_message("user", wish), _message("assistant", told)]


def _question(rng: random.Random, seed: int, index: int) -> list[dict[str, str]]:
    """A tale with a question about it, and the answer."""
    (item,) = questions(1, seed=rng.getrandbits(32))
    asked = pick(rng, ASKING).format(tale=item["tale"], question=item["question"])
    return [_message("user", asked), _message("assistant", item["answer"])]


def _identity(rng: random.Random, seed: int, index: int) -> list[dict[str, str]]:
    """A question about the model, alone or before or after a wish.

    Alone it is one of few documents, which the split by hash puts wholly on one side; the longer forms are
    all different, so that every answer is also among those trained on.
    """
    pair = pick(rng, IDENTITY)
    asked = [_message("user", pair["question"]), _message("assistant", pair["answer"])]
    style = rng.random()
    if style < 0.4:
        return asked
    wish = _wish(rng, seed, index)
    return asked + wish if style < 0.8 else wish + asked
