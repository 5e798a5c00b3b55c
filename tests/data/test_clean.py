"""Each step does what it says and nothing else, once and for all; what is left out is counted under its reason."""

import html
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytale_mlx.data.clean import Cleaner, Sample, clean_document, clean_text, steps
from tinytale_mlx.data.files import Document
from tinytale_mlx.data.markup import strip_html
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import CleanRecipe
from tinytale_mlx.workers import map_ordered

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SWITCHES: dict[str, dict[str, Any]] = {
    "html": {"html": True},
    "normalize": {"normalize": "NFC"},
    "control": {"control": True},
    "lowercase": {"lowercase": True},
    "whitespace": {"whitespace": True},
    "wikitext": {"wikitext": True},
    "skip_headings": {"skip_headings": True},
}
FRAGMENTS = [
    *"ab sS'\"@-,.:;!?()[]$%=<>&#x;3éİßΣ\n\t\r\x0b\x1c\x85\x00\u0301\u0331\u00a0\u2028\u200d😀",
    *[
        " @-@ ",
        " @,@ ",
        " ' ",
        ' " ',
        " 's",
        " n't",
        " ( ",
        " ) ",
        " . ",
        "= Title =",
        " = = Part = = ",
        "\n\n",
        "<unk>",
    ],
    *[
        "<b>",
        "</b>",
        "<p>",
        "<br/>",
        "<td>",
        "<script>",
        "</script>",
        "<!--",
        "-->",
        '<a href="',
        "x<y",
        "&lt;",
        "&amp;",
    ],
]
texts = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=2)), max_size=40).map("".join),
)
patient = settings(deadline=None)


def clean(text: str, **switches: Any) -> str:
    return clean_text(CleanRecipe(**switches), text)[0]


def chat(*contents: str) -> Document:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant"), contents, strict=True)]


@patient
@given(texts, texts)
def test_by_default_nothing_is_touched(one: str, other: str) -> None:
    cleaner = Cleaner(CleanRecipe())
    for document in (one, chat(one, other), one):
        assert cleaner(document) == document
    assert cleaner.counts.kept == cleaner.counts.documents == 3
    assert cleaner.counts.changed == cleaner.counts.removed == {}
    assert cleaner.samples == []


@pytest.mark.parametrize("name", [name for name in SWITCHES if name != "html"])
@patient
@given(texts)
def test_a_step_done_twice_is_done_once(name: str, text: str) -> None:
    once = clean(text, **SWITCHES[name])
    assert clean(once, **SWITCHES[name]) == once


@pytest.mark.parametrize("form", [None, "NFC", "NFKC"])
@patient
@given(texts)
def test_all_steps_done_twice_are_done_once(form: str | None, text: str) -> None:
    switches: dict[str, Any] = {name: True for name in SWITCHES if name != "html"} | {"normalize": form}
    once = clean(text, **switches)
    assert clean(once, **switches) == once


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_lower_case_is_normal_too(form: Any) -> None:
    """For all of Unicode, with marks: ẖ is one character, and its capital H̱ is two."""
    assert clean("H\u0331ℌ", normalize="NFKC", lowercase=True) == "\u1e96h"
    letters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]
    for mark in ("", "\u0331"):
        text = f"{mark}\n".join([*letters, ""])
        once = clean(text, normalize=form, lowercase=True)
        assert unicodedata.is_normalized(form, once)
        assert clean(once, normalize=form, lowercase=True) == once


KEPT = "“Don’t,” she said; 'it's 5 o'clock'. \"Yes\" — naïve Ærø, Straße, 東京, Привет, हिन्दी, 12½ 👩‍👧 #1 @home 50%"


@pytest.mark.parametrize("name", [name for name in SWITCHES if name != "lowercase"])
def test_quotes_digits_and_letters_survive(name: str) -> None:
    assert clean(KEPT, **SWITCHES[name]) == KEPT


def test_lowercase() -> None:
    assert clean(KEPT, lowercase=True) == KEPT.lower() != KEPT
    assert clean("Ça VA, ΟΔΟΣ?", lowercase=True) == "ça va, οδος?"


def test_normalize() -> None:
    text = "cafe\u0301 ﬁn ①"
    assert clean(text, normalize="NFC") == "café ﬁn ①"
    assert clean(text, normalize="NFKC") == "café fin 1"


def test_control() -> None:
    assert clean("a\x00b\x07c\x1bd\x7fe\x9ff\n\tg\u200dh\u00adi", control=True) == "abcdef\n\tg\u200dh\u00adi"
    assert clean("a\r\nb\rc\x0cd\x85e", control=True) == "a\nb\nc\nd\ne"


def test_whitespace() -> None:
    assert clean(" \n a  b\t\tc\u00a0d \r\n  e\n\n \n\nf\n\ng\n ", whitespace=True) == "a b c d\ne\n\nf\n\ng"
    assert clean("a\n\nb c", whitespace=True) == "a\n\nb c"


def test_headings_and_blank_lines() -> None:
    text = " \n = Lobster = \n \n It is . \n = = Life cycle = = \n\n==Sea==\nA = B = C\n= open\n== a =\n===\na\n"
    assert clean(text, skip_headings=True) == " It is . \nA = B = C\n= open\n== a =\n===\na\n"
    assert clean("= Title =\nend", skip_headings=True) == "end"


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d", "a<b and c>d", "x<y", "i <3 you", "std::vector<int> v;", "if x <a: b", "f(a<b, c>(d))",
        "<unk> <|endoftext|> <THINK> </unk> <p hello world>", "<a href='never closed", "a <!-- never closed",
        "AT&T, &copy 2024, ?a=1&region=2, &notit; &nosuch; & &; &#; &#x;", "<>", "</>", "< b >", "<b", "<!doctype",
    ],
)  # fmt: skip
def test_not_html(text: str) -> None:
    assert clean(text, html=True) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>bo</b>ld <I class=x>it</I>", "bold it"),
        ('<a href="x>y" title=\'a"b\'\n download-as=z>link</a>', "link"),
        ("<input type=checkbox checked disabled/>box", "box"),
        ("<p>One<p>Two</p>\n<div>Three</div>", "One\nTwo\nThree\n"),
        ("a<br>b<br />\nc<br><br>d", "a\nb\nc\n\nd"),
        ("<tr><td>1</td><td>2</td></tr><tr><th>3</th></tr>", "1 2\n3\n"),
        ("a<script>if (1<2) '<b>'</script>b<STYLE>p {}</STYLE >c<!-- <b> -->d", "abcd"),
        ("<!DOCTYPE html>\n<html><body>x</body></html>", "\nx"),
        ("a<script>b", "ab"),
        ("&lt;b&gt; &amp;lt; &quot;&#39;&#x27; caf&eacute; &hearts;", "<b> &lt; \"'' café ♥"),
        ("&am<b></b>p;", "&amp;"),
        ("&#xD800;&#99999999;", "\ufffd\ufffd"),
    ],
)
def test_html(text: str, expected: str) -> None:
    assert clean(text, html=True) == expected


@patient
@given(texts)
def test_escaped_text_comes_back(text: str) -> None:
    """Which is why cleaning HTML twice is not the same as once."""
    assert strip_html(html.escape(text)) == text
    assert strip_html(f"<b id='x'>{html.escape(text)}</b>") == text


TAGS = ["<b>", "</b>", "<a href='x>y'>", '<img alt="a &amp; b" src=x/>', "<span\n>", "<!-- <b> -->"]


@patient
@given(st.lists(st.one_of(st.sampled_from(TAGS), st.text().map(html.escape))))
def test_html_agrees_with_the_standard_library(pieces: list[str]) -> None:
    """On well-formed HTML with elements that HTML knows, none of which begins a line."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append
    parser.feed("".join(pieces))
    parser.close()
    assert strip_html("".join(pieces)) == "".join(found)


@pytest.mark.parametrize(
    "piece",
    ["<", "&", "<a ", "<!--", "<script>", "<!doctype ", '<a b="', '<a " a="', "<a b-", "<a\t", "<style x='"],
)
def test_hostile_html_takes_linear_time(piece: str) -> None:
    """No time is asserted: a quadratic search would take hours."""
    text = piece * 200_000
    assert "b" not in strip_html(text + "</script><b>").removeprefix(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a red @-@ tipped claw , 20 @,@ 000 in 1 @.@ 5 years . \n", "a red-tipped claw, 20,000 in 1.5 years.\n"),
        ("( 24 in ) [ sic ] 79 % ; what ? no ! so : $ 5 or £ 6", "(24 in) [sic] 79%; what? no! so: $5 or £6"),
        ('the " lobster red " , and " so ( it is ) . " Then', 'the "lobster red", and "so (it is)." Then'),
        ('one " left open " and " never closed', 'one " left open " and " never closed'),
        ('"  @  " twice', '"@" twice'),
        ("a @ @-@ @ b @-@ @,@  @-@ c", "a @ @-@ @ b @-@ @,@  @-@ c"),
        ("don 't , does n't , it 's , we 're I 'll", "don't, doesn't, it's, we're I'll"),
        ("the Vikings ' season", "the Vikings' season"),
        ("the Vikings ' ' 90s", "the Vikings ' ' 90s"),
        ("a <unk> , the <unk> 's <unk> @-@ like ( <unk> )", "a <unk>, the <unk>'s <unk>-like (<unk>)"),
        ("he said [ ... ] that ... no", "he said [...] that... no"),
        (" = = = Life cycle = = = ", "=== Life cycle ==="),
        ("5 – 6 km / h , a .22 rifle", "5 – 6 km / h, a .22 rifle"),
    ],
)
def test_wikitext(text: str, expected: str) -> None:
    assert clean(text, wikitext=True) == expected


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not here")
def test_wikitext_2() -> None:
    raw = (DATA / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    text = clean(raw, wikitext=True)
    assert raw.count(" @-@ ") > 1800
    marks = [" @-@ ", " @.@ ", " , ", " . ", " ; ", " ( ", " 's ", " 't ", " \n", "\n "]
    assert [mark for mark in marks if mark in text] == []
    assert text.count("<unk>") == raw.count("<unk>")
    assert text.count(' " ') < raw.count(' " ') / 50  # those of paragraphs with an odd number
    assert 'only becoming "lobster red" on cooking.' in text
    letters = str.maketrans("", "", " \n@")
    assert text.translate(letters) == raw.translate(letters)
    for spelling in (raw, text):
        lines = clean(spelling, skip_headings=True).splitlines()
        assert all(line.strip() and not line.strip().startswith("=") for line in lines)
        assert len(lines) == 1841


@patient
@given(texts)
def test_changes_are_counted_by_step(text: str) -> None:
    recipe = CleanRecipe(html=True, control=True, lowercase=True, whitespace=True, normalize="NFKC")
    cleaned, removed = clean_text(recipe, text)
    assert len(text) - sum(removed.values()) == len(cleaned)
    assert list(removed) == [name for name in steps(recipe) if name in removed]
    for name, step in steps(recipe).items():
        before, text = text, step(text)
        assert (name in removed) == (text != before)
    assert text == cleaned


def test_order_of_the_steps() -> None:
    """As documented: the result of each may be what the next is for."""
    every = CleanRecipe(**{name: value for switch in SWITCHES.values() for name, value in switch.items()})
    assert list(steps(every)) == list(SWITCHES)
    assert clean("<p>&nbsp;&#7;A</p>\n\n\n<h1>= &#61;T= =</h1>", **every.model_dump()) == "a"


def test_counts_add_up() -> None:
    recipe = CleanRecipe(
        html=True, whitespace=True, lowercase=True, min_characters=3, max_characters=9, duplicates="exact"
    )
    cleaner = Cleaner(recipe)
    documents = ["<b>", "ab", "0123456789", "<i>Tale</i>", "tale", " tale ", "012345678", "a  b"]
    assert [cleaner(document) for document in documents] == [None, None, None, "tale", None, None, "012345678", "a b"]
    counts = cleaner.counts
    assert counts.dropped == {"empty": 1, "too_short": 1, "too_long": 1, "duplicate": 2, "near_duplicate": 0}
    assert (counts.documents, counts.kept) == (8, 3)
    assert counts.changed == {"html": 2, "lowercase": 1, "whitespace": 2}
    assert counts.removed == {"html": 10, "lowercase": 0, "whitespace": 3}


def test_conversations_are_cleaned_message_by_message() -> None:
    cleaner = Cleaner(CleanRecipe(html=True, min_characters=6, duplicates="exact"))
    document = chat("<b>Who</b>?", "A &lt;fox&gt;")
    assert cleaner(document) == chat("Who?", "A <fox>")
    assert document == chat("<b>Who</b>?", "A &lt;fox&gt;")  # the one that came in is as it was
    assert cleaner(chat("Who?", "A <fox>")) is None
    assert cleaner("Who?A <fox>") is not None
    assert cleaner([{"role": "system", "content": "Who?"}, {"role": "user", "content": "A <fox>"}]) is not None
    assert cleaner(chat("ab", "cd")) is None
    assert cleaner(chat("<p>", "An answer to nothing")) is None
    counts = cleaner.counts
    assert counts.changed["html"] == 2  # documents, not messages
    assert counts.removed["html"] == 7 + 6 + 3
    assert counts.dropped == {"empty": 1, "too_short": 1, "too_long": 0, "duplicate": 1, "near_duplicate": 0}
    assert cleaner([{"role": "system", "content": ""}, {"role": "user", "content": "long enough"}]) is not None


def test_near_duplicates_are_left_out_and_counted() -> None:
    words = [f"word{number}" for number in range(100)]
    documents = [" ".join(words), " ".join([*words[:-2], "an", "end"]), " ".join(words[::-1]), " ".join(words)]
    cleaner = Cleaner(CleanRecipe(duplicates="near"))
    assert [cleaner(document) is not None for document in documents] == [True, False, True, False]
    assert (cleaner.counts.dropped["near_duplicate"], cleaner.counts.dropped["duplicate"]) == (1, 1)
    cleaner = Cleaner(CleanRecipe(duplicates="near", similarity=1.0))
    assert [cleaner(document) is not None for document in documents] == [True, True, True, False]
    cleaner = Cleaner(CleanRecipe(duplicates="exact"))
    assert [cleaner(document) is not None for document in documents] == [True, True, True, False]
    assert all(map(Cleaner(CleanRecipe()), documents))


def test_samples_show_the_first_changes() -> None:
    cleaner = Cleaner(CleanRecipe(html=True))
    cleaner("as it was")
    cleaner(f"{'long ' * 100}<b>bold</b>{' more' * 100}")
    cleaner(chat("plain", "<i>it</i>"))
    for number in range(5):
        cleaner(f"<p>{number}</p>")
    first, second, third = cleaner.samples
    assert first.raw[0] == first.raw[-1] == "…"
    assert first.raw[:41] == first.cleaned[:41] == "…" + "long " * 8
    assert (first.raw[41:52], first.cleaned[41:50]) == ("<b>bold</b>", "bold more")
    assert len(first.raw) == 242
    assert (second, third) == (Sample("<i>it</i>", "it"), Sample("<p>0</p>", "0\n"))


def test_workers_give_the_same_as_one_process() -> None:
    recipe = CleanRecipe(html=True, min_characters=4, duplicates="near")
    documents: list[Document] = [f"<b>tale</b> number {number % 7} &amp; more" for number in range(30)]
    documents += [chat("<p>Who?</p>", f"Fox {number % 3}") for number in range(9)]
    alone, together = Cleaner(recipe), Cleaner(recipe)
    expected = [alone(document) for document in documents]
    cleaned = map_ordered(clean_document, recipe, documents, workers=2)
    assert [one.document if together.keep(one) else None for one in cleaned] == expected
    assert together.counts == alone.counts
    assert together.samples == alone.samples
    assert 0 < alone.counts.kept < 39


def test_bounds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"max_characters 5 is below data\.clean\.min_characters 6, so that no"):
        Cleaner(CleanRecipe(min_characters=6, max_characters=5))
