"""An automaton that writes nothing but JSON: one object or array, on one line, spaced as Python's json.dumps does.

JSON nests, which no finite automaton can follow; up to a given depth it can, since the open brackets are then one of
finitely many stacks. It is made byte by byte and lifted to tokens: where the bytes of a token lead, the token leads.
That is exact for any tokenizer, whatever it makes of quotes and commas (Willard & Louf 2023).
"""

import string
from collections.abc import Collection

import mlx.core as mx
import numpy as np

from ..tokenizers import Tokenizer
from .automaton import NEVER, ends

State = tuple[str, str]
"""What is expected, and the open brackets, such as ("value", "{[")."""
LITERALS = ("true", "false", "null")
LARGEST, DEEPEST = 1 << 24, 4
"""Entries of a table, and brackets within brackets where the table may be so large."""
_DIGITS = frozenset(string.digits)
_NUMBERS = {  # state: {characters: next state}; in those of _ENDS a number may end
    "-": {"0": "0", "123456789": "int"},
    "0": {".": ".", "eE": "e"},
    "int": {string.digits: "int", ".": ".", "eE": "e"},
    ".": {string.digits: "frac"},
    "frac": {string.digits: "frac", "eE": "e"},
    "e": {"+-": "sign", string.digits: "exp"},
    "sign": {string.digits: "exp"},
    "exp": {string.digits: "exp"},
}
_ENDS = {"0", "int", "frac", "exp"}


def json_automaton(tokenizer: Tokenizer, stop: Collection[int]) -> mx.array:
    """int32 [states, vocabulary], see `automaton.py`; after the JSON only a token of `stop` may come.

    Nested as deeply, up to four levels, as a table of 64 MB allows. Raises UserError where no token ends a text.
    """
    final = ends(tokenizer, stop)
    depth, table = DEEPEST, _bytes_table(DEEPEST)
    while depth > 1 and len(table[0]) * tokenizer.vocab_size > LARGEST:
        depth -= 1
        table = _bytes_table(depth)
    following, accepting = table
    lifted = _lift(following, tokenizer)
    lifted[accepting, final] = 0
    return mx.array(lifted)


def _bytes_table(depth: int) -> tuple[np.ndarray, int]:
    """The automaton of bytes, [states, 256], and the state in which the JSON is complete."""
    numbers: dict[State, int] = {("start", ""): 0}
    rows: list[list[int]] = []
    todo = list(numbers)
    for state in todo:  # grows while it is read
        row = []
        for byte in range(256):
            following = _step(state, byte, depth)
            if following is not None and following not in numbers:
                numbers[following] = len(numbers)
                todo.append(following)
            row.append(NEVER if following is None else numbers[following])
        rows.append(row)
    return np.array(rows, np.int32), numbers["done", ""]


def _lift(table: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """From bytes to tokens: [states, vocabulary]. A token that writes nothing may not come."""
    tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    lengths = np.array([len(token) for token in tokens])
    table = np.concatenate([table, np.full((1, 256), NEVER, table.dtype)])  # whose last row, -1, leads nowhere
    places = np.repeat(np.arange(len(table) - 1, dtype=np.int32)[:, None], len(tokens), axis=1)
    for position in range(lengths.max()):
        columns = np.flatnonzero(lengths > position)
        written = np.array([tokens[column][position] for column in columns])
        places[:, columns] = table[places[:, columns], written]
    places[:, lengths == 0] = NEVER
    return places


def _step(state: State, byte: int, depth: int) -> State | None:
    """The state after a byte; None where it may not come."""
    mode, stack = state
    character = chr(byte)
    if mode.startswith(("string", "key")):
        return _within_string(mode, stack, byte)
    if mode in _NUMBERS:
        following = next((next_ for chars, next_ in _NUMBERS[mode].items() if character in chars), None)
        if following is not None:
            return following, stack
        return _after(character, stack) if mode in _ENDS else None
    if mode in ("start", "value", "value?", "space value"):
        if mode == "space value" and character == " ":
            return "value", stack
        return _close(stack) if mode == "value?" and character == "]" else _value(mode, character, stack, depth)
    if mode.startswith("literal"):
        rest = mode.removeprefix("literal ")
        return (("after" if len(rest) == 1 else f"literal {rest[1:]}"), stack) if character == rest[0] else None
    fixed: dict[tuple[str, str], State] = {
        ("name?", '"'): ("key", stack), ("name?", "}"): _close(stack), ("name", '"'): ("key", stack),
        ("space name", '"'): ("key", stack), ("space name", " "): ("name", stack),
        ("colon", ":"): ("space value", stack),
    }  # fmt: skip
    return _after(character, stack) if mode == "after" else fixed.get((mode, character))


def _value(mode: str, character: str, stack: str, depth: int) -> State | None:
    """The first character of a value; a text begins with an object or an array."""
    if character in "{[":
        opened = "name?" if character == "{" else "value?"
        return (opened, stack + character) if len(stack) < depth else None
    if mode == "start":
        return None
    if character == '"':
        return "string", stack
    if character in "-0" or character in _DIGITS:
        return (character if character in "-0" else "int"), stack
    literal = next((one for one in LITERALS if one[0] == character), None)
    return None if literal is None else (f"literal {literal[1:]}", stack)


def _after(character: str, stack: str) -> State | None:
    """A comma or a closing bracket, which ends a number too."""
    if character == ",":
        return ("space name" if stack[-1] == "{" else "space value"), stack
    return _close(stack) if character == {"{": "}", "[": "]"}[stack[-1]] else None


def _close(stack: str) -> State:
    return ("after" if len(stack) > 1 else "done"), stack[:-1]


def _within_string(mode: str, stack: str, byte: int) -> State | None:
    """mode: "string" or "key", and after a blank what is under way: an escape, or a character of several bytes."""
    kind, _, rest = mode.partition(" ")
    character = chr(byte)
    if rest == "escape":
        if character == "u":
            return f"{kind} hex 4", stack
        return (kind, stack) if character in '"\\/bfnrt' else None
    if rest:  # "hex 3" digits or "more 2" bytes to come
        what, _, count = rest.partition(" ")
        if not (character in string.hexdigits if what == "hex" else 0x80 <= byte < 0xC0):
            return None
        return (kind if count == "1" else f"{kind} {what} {int(count) - 1}"), stack
    if character == '"':
        return ("after" if kind == "string" else "colon"), stack
    if character == "\\":
        return f"{kind} escape", stack
    if 0x20 <= byte < 0x80:
        return kind, stack
    following = next((n for n, (low, high) in enumerate(_LEADS, 1) if low <= byte <= high), None)
    return None if following is None else (f"{kind} more {following}", stack)


_LEADS = ((0xC2, 0xDF), (0xE0, 0xEF), (0xF0, 0xF4))
"""First bytes of UTF-8 characters of two, three and four bytes."""
