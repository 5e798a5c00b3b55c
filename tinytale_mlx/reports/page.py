"""A report as a document: what it says, apart from how it looks; and two ways to write it down.

HTML is one file that holds everything, pictures too, so that it can be mailed or opened years later. Markdown has its
pictures beside it. Both show the same blocks in the same order. A phone's view of a page, for those who have Chromium:

    chromium --headless --screenshot=phone.png --window-size=390,3000 report.html
"""

import base64
import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .plots import Picture


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; what is between ** and ** is important."""

    text: str


@dataclass(frozen=True)
class Facts:
    """The few figures that matter most, each with its name."""

    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Cells are text. The first `left` columns are aligned left, the others, which hold numbers, right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True)
class Pictures:
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Verbatim:
    """Text to be shown as it is: a command, a file, what a model wrote. `folded` is closed until it is opened."""

    text: str
    title: str | None = None
    folded: bool = False


Block = Heading | Text | Facts | Table | Pictures | Verbatim


@dataclass
class Page:
    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block) -> None:
        self.blocks.extend(blocks)

    def pictures(self) -> list[Picture]:
        return [picture for block in self.blocks if isinstance(block, Pictures) for picture in block.pictures]


def files(page: Page, name: str) -> dict[Path, bytes]:
    """All that the report consists of: NAME.html, and the same as NAME/report.md with its pictures."""
    folder = Path(name)
    texts = {Path(f"{name}.html"): to_html(page), folder / "report.md": to_markdown(page)}
    pictures = {folder / f"{picture.name}.png": picture.png for picture in page.pictures()}
    return {path: text.encode("utf-8", errors="replace") for path, text in texts.items()} | pictures


# ---------------------------------------------------------------------- HTML
CSS = """
:root { color-scheme: light dark; --ink: #1c1e21; --faint: #5f6670; --paper: #fff; --tint: #f3f5f7; --line: #d9dde2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --faint: #a8a8a8; --paper: #1a1a1a; --tint: #262626; --line: #3d3d3d; }
  img { filter: invert(.9) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1rem clamp(.75rem, 4vw, 2.5rem) 3rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
p { margin: .5rem 0; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .5rem; margin: 1rem 0; }
dl div { background: var(--tint); border-radius: .5rem; padding: .5rem .75rem; }
dt { font-size: .8rem; color: var(--faint); }
dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem;
  align-items: start; margin: 1rem 0; }
.pictures img { width: 100%; max-width: 34rem; height: auto; display: block; border-radius: .25rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; }
th { color: var(--faint); font-weight: 600; }
th.left, td.left { text-align: left; }
td.left { min-width: 8rem; white-space: normal; }
pre { background: var(--tint); border-radius: .5rem; padding: .75rem; margin: .5rem 0; white-space: pre-wrap;
  overflow-wrap: anywhere; font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
summary { cursor: pointer; color: var(--faint); }
"""


def to_html(page: Page) -> str:
    """One file, without scripts, without anything from elsewhere."""
    body = "\n".join(_html(block) for block in page.blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(page.title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"<h1>{_escaped(page.title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{_escaped(text)}</h2>"
        case Text(text):
            parts = map(_escaped, text.split("**"))
            return f"<p>{''.join(f'<strong>{part}</strong>' if n % 2 else part for n, part in enumerate(parts))}</p>"
        case Facts(facts):
            cells = (f"<div><dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd></div>" for name, value in facts)
            return f"<dl>{''.join(cells)}</dl>"
        case Table():
            head = _html_row("th", block.head, block.left)
            rows = "\n".join(_html_row("td", row, block.left) for row in block.rows)
            return f'<div class="scroll"><table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'
        case Pictures(pictures):
            return f'<div class="pictures">\n{"".join(map(_html_picture, pictures))}</div>'
        case Verbatim(text, title, folded):
            verbatim = f"<pre>\n{_escaped(text)}</pre>"  # a line feed right after <pre> is not shown
            if folded:
                return f"<details><summary>{_escaped(title or 'more')}</summary>\n{verbatim}\n</details>"
            return f"<p>{_escaped(title)}</p>\n{verbatim}" if title else verbatim


def _html_row(tag: str, cells: Sequence[str], left: int) -> str:
    kinds = [' class="left"' if number < left else "" for number in range(len(cells))]
    return (
        f"<tr>{''.join(f'<{tag}{kind}>{_escaped(cell)}</{tag}>' for kind, cell in zip(kinds, cells, strict=True))}</tr>"
    )


def _html_picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{_escaped(picture.alt)}">\n'


def _escaped(text: str) -> str:
    return html.escape(_visible(text))


def _visible(text: str) -> str:
    """Control characters, which neither format may hold, become U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in text)


# ---------------------------------------------------------------------- Markdown
def to_markdown(page: Page) -> str:
    """With its pictures as files of their names beside it."""
    return "\n\n".join([f"# {_plain(page.title)}", *map(_markdown, page.blocks)]) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_plain(text)}"
        case Text(text):
            parts = (_plain(part) for part in text.split("**"))
            return "".join(f"**{part}**" if n % 2 else part for n, part in enumerate(parts))
        case Facts(facts):
            return _markdown_table(["", ""], facts, left=1)
        case Table():
            return _markdown_table(block.head, block.rows, block.left)
        case Pictures(pictures):
            return "\n\n".join(f"![{_plain(picture.alt)}]({picture.name}.png)" for picture in pictures)
        case Verbatim(text, title):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            verbatim = f"{fence}text\n{_visible(text)}\n{fence}"
            return f"{_plain(title)}\n\n{verbatim}" if title else verbatim


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---" if number < left else "---:" for number in range(len(head))]
    lines = [[_plain(cell) for cell in head], rule, *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text on one line in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", re.sub(r"\s+", " ", _visible(text)))
