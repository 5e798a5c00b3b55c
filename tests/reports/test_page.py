"""One document, two writers: nothing is lost, nothing is taken for markup."""

import re
from pathlib import Path

import pytest
from html_checks import PNG, checked

from tinytale_mlx.reports.page import (
    Block,
    Facts,
    Heading,
    Page,
    Pictures,
    Table,
    Text,
    Verbatim,
    files,
    to_html,
    to_markdown,
)
from tinytale_mlx.reports.plots import Picture

NASTY = "a <b> & \"c\" 'd' `e` *f* _g_ [h](i) | j \\ k # l ~~m~~"
BLOCKS = [
    Heading(NASTY),
    Text(NASTY),
    Text(f"{NASTY} **{NASTY}** {NASTY}"),
    Facts([(NASTY, NASTY)]),
    Table([NASTY, NASTY], [[NASTY, NASTY]]),
    Pictures([Picture("loss", PNG + b"rest", NASTY)]),
    Verbatim(NASTY),
    Verbatim(NASTY, NASTY),
    Verbatim(NASTY, NASTY, folded=True),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_text_is_never_markup_in_html(block: Block) -> None:
    page = checked(to_html(Page(NASTY, [block])))
    assert len(re.findall(re.escape(NASTY), page.text)) >= 2  # <title> and <h1>
    assert {tag for tag, _ in page.seen} <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "strong", "dl", "div", "dt", "dd", "table",
        "thead", "tbody", "tr", "th", "td", "img", "pre", "details", "summary",
    }  # fmt: skip
    alts = [given["alt"] for tag, given in page.seen if tag == "img"]
    assert page.text.count(NASTY) + alts.count(NASTY) > 2


def unescaped(markdown: str) -> str:
    """As a reader of Markdown sees it: no bare markup is left, and what was escaped is there."""
    assert not re.search(r"(?<!\\)(?:\\\\)*[`_\[\]<>#~]", markdown), markdown
    return re.sub(r"\\(.)", r"\1", markdown)


def body(block: Block) -> str:
    """The Markdown of a block, without the page's title."""
    return to_markdown(Page("T", [block])).removeprefix("# T\n\n").removesuffix("\n")


def test_text_is_never_markup_in_markdown() -> None:
    assert unescaped(body(Text(NASTY))) == NASTY
    assert unescaped(body(Heading(NASTY)).removeprefix("## ")) == NASTY
    assert unescaped(body(Text(f"x **{NASTY}**"))) == f"x **{NASTY}**"
    assert body(Text("x **y** z")) == "x **y** z"


def test_a_table_keeps_its_columns() -> None:
    table = Table(["a|b", "c", "d"], [["1|2", "3\n4", "5"], ["", "-", "6"]], left=2)
    lines = body(table).splitlines()
    assert lines[1] == "| --- | --- | ---: |"
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [4, 4, 4, 4]
    assert lines[2] == "| 1\\|2 | 3 4 | 5 |"
    page = checked(to_html(Page("T", [table])))
    assert page.cells == [3, 3, 3]
    assert [given for tag, given in page.seen if tag == "td"][:3] == [{"class": "left"}, {"class": "left"}, {}]


def test_verbatim_text_may_hold_a_fence() -> None:
    text = "before\n```\n# inside\n````\nafter"
    assert body(Verbatim(text)) == f"`````text\n{text}\n`````"


def test_verbatim_text_keeps_its_lines() -> None:
    text = "\n  two spaces\n\n\nthree lines further\n"
    assert f"<pre>\n{text}</pre>" in to_html(Page("T", [Verbatim(text)]))
    assert text in to_markdown(Page("T", [Verbatim(text)]))


def test_emphasis() -> None:
    page = checked(to_html(Page("T", [Text("one **two** three")])))
    assert "<p>one <strong>two</strong> three</p>" in to_html(Page("T", [Text("one **two** three")]))
    assert [tag for tag, _ in page.seen].count("strong") == 1


def test_what_cannot_be_written_is_replaced() -> None:
    """Control characters of a model's output, and halves of characters that JSON may hold."""
    content = files(Page("T", [Verbatim("a\x00b\x1b[31mc\ud800d\te\nf")]), "r")
    for path in (Path("r.html"), Path("r/report.md")):
        assert "a\ufffdb\ufffd[31mc\ufffdd\te\nf" in content[path].decode("utf-8")


def test_both_writers_show_every_picture() -> None:
    pictures = [Picture(name, PNG + name.encode(), f"what {name} shows") for name in ("loss", "speed")]
    page = Page("T", [Pictures(pictures[:1]), Text("between"), Pictures(pictures[1:])])
    content = files(page, "mine")
    assert set(content) == {Path("mine.html"), Path("mine/report.md"), Path("mine/loss.png"), Path("mine/speed.png")}
    assert content[Path("mine/loss.png")] == pictures[0].png
    assert checked(content[Path("mine.html")].decode()).pictures == [one.png for one in pictures]
    links = re.findall(r"!\[(.*?)\]\((.*?)\)", content[Path("mine/report.md")].decode())
    assert links == [("what loss shows", "loss.png"), ("what speed shows", "speed.png")]
