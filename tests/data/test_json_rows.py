"""JSON read piece by piece says the same as `json.loads` of the whole, whatever the size of the pieces."""

import io
import json
import random
from typing import Any

import pytest

from tinytale_mlx.data import json_rows
from tinytale_mlx.errors import UserError

ITEMS = [
    {"text": 'a "tale" of \\ and \u00e9 \U0001f600', "n": [1, -2.5e3, True, None, {"deep": [[]]}]},
    "a bare string, with ] and , and {",
    {},
    1234567890,
    -0.5,
    [],
    "",
]


def rows(content: bytes, replace: bool = False) -> list[Any]:
    found = list(json_rows.json_rows(io.BufferedReader(io.BytesIO(content)), "a.json", replace))  # type: ignore
    assert [where for _, where in found] == [f"a.json, item {number}" for number in range(1, len(found) + 1)]
    return [row for row, _ in found]


def refusal(content: bytes) -> str:
    with pytest.raises(UserError) as error:
        rows(content)
    return str(error.value)


@pytest.fixture(params=[1, 2, 3, 7, 1 << 16])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(json_rows, "CHUNK", request.param)
    return request.param


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_items_are_those_of_the_whole(indent: int | None, ascii_only: bool) -> None:
    content = json.dumps(ITEMS, indent=indent, ensure_ascii=ascii_only).encode()
    assert rows(content) == rows(b"\xef\xbb\xbf \n" + content + b"\n \n") == ITEMS


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("content", [b"", b"  \n", b"[]", b" [ ] "])
def test_no_items(content: bytes) -> None:
    assert rows(content) == []


@pytest.mark.usefixtures("chunk")
def test_errors_are_those_of_the_whole() -> None:
    """The list with a character changed, cut off or put in: the same verdict, and the same line and column."""
    rng = random.Random(0)
    whole = json.dumps(ITEMS, indent=1)
    wrong = 0
    for _ in range(300):
        place = rng.randrange(1, len(whole))
        mutated = rng.choice([whole[:place], whole[:place] + rng.choice('"[]{},x\n1\\') + whole[place + 1 :]])
        try:
            expected = json.loads(mutated)
        except json.JSONDecodeError as error:
            wrong += 1
            expected = f"{error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}"
            expected = expected.replace("line 1, ", "")
            assert refusal(mutated.encode()) == f"a.json is not valid JSON: {expected}"
        else:
            assert rows(mutated.encode()) == expected
    assert wrong > 200


def test_an_error_is_told_before_the_rest_is_read() -> None:
    """Else a list that breaks off in its middle would be held in memory to its end."""
    file = io.BytesIO(b'[{"text": "good"}, {"text": bad}, ' + b'{"text": "more"}, ' * 100_000)
    reader = io.BufferedReader(file)  # type: ignore
    found = json_rows.json_rows(reader, "a.json", False)
    assert next(found) == ({"text": "good"}, "a.json, item 1")
    with pytest.raises(UserError, match="Expecting value at column 29"):
        next(found)
    assert file.tell() <= 2 * json_rows.CHUNK


def test_a_long_item_is_not_parsed_anew_for_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """But each time with twice as much, so that the time it takes grows with its length, not with the square."""
    monkeypatch.setattr(json_rows, "CHUNK", 10)
    parsed: list[int] = []
    parse = json.JSONDecoder.raw_decode
    monkeypatch.setattr(
        json.JSONDecoder, "raw_decode", lambda self, text, at: (parsed.append(len(text)), parse(self, text, at))[1]
    )
    item = "long " * 100_000
    assert rows(json.dumps([item]).encode()) == [item]
    assert sum(parsed) < 5 * len(item)


@pytest.mark.usefixtures("chunk")
def test_invalid_bytes_and_nul_are_named_by_line() -> None:
    assert "a.json, line 3: byte 0xe9 is not valid UTF-8" in refusal(b'[\n"one",\n"caf\xe9"]')
    assert "NUL byte on or after line " in refusal(b'[\n"one",\n"\0"]')
    assert rows(b'["caf\xe9"]', replace=True) == ["caf\ufffd"]


def test_json_lines_by_another_name() -> None:
    """C4 and many data sets of the hub have JSON Lines in .json files."""
    found = list(json_rows.json_rows(io.BufferedReader(io.BytesIO(b' {"a": 1}\n\n{"a": 2}\n')), "a.json", False))  # type: ignore
    assert found == [({"a": 1}, "a.json, line 1"), ({"a": 2}, "a.json, line 3")]


def test_neither_a_list_nor_lines() -> None:
    assert "a list of objects or of strings is needed, or one object a line" in refusal(b'{\n "data": []\n}')
    assert "does not begin with [" in refusal(b'"text"')
    assert "not valid JSON" in refusal(b"[" * 100_000)
