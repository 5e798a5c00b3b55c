r"""HTML and WikiText's spelling undone: what a reader of the page would have seen.

What counts as an HTML tag: `<` or `</`, the name of an element of HTML, well-formed attributes, `>`. An attribute has
a value, or is one of HTML's flags, or has a hyphen. So `<3`, `a < b and c > d`, `a<b and c>d`, `std::vector<int>`,
`<unk>` and `<|endoftext|>` are text, and so is a tag that is never closed. `vector<data>` is not: there is such an
element. Python's own `html.parser` is not used because it takes `<int>` and `<unk>` for tags, and because since 2025
it drops all that follows an unclosed one, so that the same recipe would give different tokens on another Python.

WikiText (Merity et al. 2017) puts a space around every punctuation mark, and `@` around those inside words and
numbers.
"""

import re
from html import unescape
from html.entities import html5

_ELEMENTS = """
    a abbr acronym address applet area article aside audio b base basefont bdi bdo bgsound big blink
    blockquote body br button canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir
    div dl dt em embed fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup
    hr html i iframe image img input ins kbd label legend li link main map mark marquee math menu meta meter nav nobr
    noembed noframes noscript object ol optgroup option output p param picture plaintext pre progress q rb rp rt rtc
    ruby s samp script search section select slot small source span strike strong style sub summary sup svg table
    tbody td template textarea tfoot th thead time title tr track tt u ul var video wbr xmp
"""
_LINES = """
    address article aside blockquote br caption center dd details dialog dir div dl dt fieldset figcaption figure
    footer form h1 h2 h3 h4 h5 h6 header hr li main menu nav ol option p pre section summary table tbody tfoot thead
    title tr ul
"""
ELEMENTS, LINES = frozenset(_ELEMENTS.split()), frozenset(_LINES.split())
"""All of HTML, and those that begin on a line of their own: words on both sides of their tags must not be glued."""
CELLS = frozenset(["td", "th"])
ENDS = {
    "!--": re.compile("-->"),
    "!doctype": re.compile(">"),
    "script": re.compile(r"</script\s*>", re.I),
    "style": re.compile(r"</style\s*>", re.I),
}
"""What goes, with all that is inside, and where it ends."""

# Neither `<` nor a stray quote may occur in a tag. That keeps the search linear: of the places where a tag may begin,
# no more than a few can look further than the next `<`.
_VALUE = r"""(?:"[^"]*+"|'[^']*+'|[^\s"'<>]++)"""
_FLAG = r"""(?:[\w:]++-[\w:.-]*+|async|autofocus|autoplay|checked|compact|controls|default|defer|disabled|hidden|ismap|
    itemscope|loop|multiple|muted|noshade|novalidate|nowrap|open|readonly|required|reversed|selected)(?![^\s/>])"""
_TAG = re.compile(
    rf"""<(?: (?P<mark>!--|!doctype\b)
            | (?P<close>/?) (?P<name>[a-z][a-z0-9]*+) (?=[\s/>])
              (?:[\s/]*+ (?:[^\s"'<>/=]++ \s*+=\s*+ {_VALUE} | {_FLAG}))*+ [\s/]*+ > )""",
    re.I | re.A | re.X,
)
_ENTITY = re.compile("&(#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def strip_html(text: str) -> str:
    """The text without tags, comments, scripts and styles, its entities decoded, once: `&amp;lt;` becomes `&lt;`.

    Where a tag begins a line of the page there is a line end then, and a space where it begins a cell of a table.
    """
    pieces: list[str] = []
    place, last, unclosed = 0, "", set()
    while match := _TAG.search(text, place):
        name, start, end = (match["name"] or match["mark"]).lower(), match.start(), match.end()
        if name in ENDS and not match["close"]:
            closing = None if name in unclosed else ENDS[name].search(text, end)
            if closing:
                end = closing.end()
            else:
                unclosed.add(name)
        if name not in ELEMENTS and end == match.end():
            start = end  # text after all
        pieces.append(_decode(text[place:start]))
        last = pieces[-1][-1:] or last
        if start < end:
            pieces.append(_separator(match["close"], name, last))
            last = pieces[-1] or last
        place = end + (name in LINES and text.startswith("\n", end))
    pieces.append(_decode(text[place:]))
    return "".join(pieces)


def _separator(close: str | None, name: str, last: str) -> str:
    """What takes the place of a tag, after this character."""
    if name == "br" or (name in LINES and last not in ("", "\n")):
        return "\n"
    return " " if name in CELLS and not close and last and not last.isspace() else ""


def _decode(text: str) -> str:
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(match: re.Match[str]) -> str:
    """Entities without a semicolon are left alone: HTML would read the address `?a=1&region=2` as `?a=1®ion=2`."""
    name = match[1]
    return unescape(match[0]) if name[0] == "#" else html5.get(f"{name};", match[0])


# What is looked for comes first and what must stand before it after that: `re` is quick at finding a character.
_JOINER = re.compile(r" @(?<=[^\s@] @)([-,.])@ (?=[^\s@])")
_PAIR = re.compile(r'"(?<!\S") ++([^"\n]*[^"\n ]) ++"(?!\S)')
_APOSTROPHE = re.compile(r"'(?<!\w')(?!\w)")
_SPACE = re.compile(
    r"""[ ](?: (?<=\S[ ]) (?=[,.;:!?)\]%”]++(?![^\s"]))
             | (?<=[\w>][ ]) (?=(?:'(?:s|t|m|d|re|ve|ll)|n't)(?!\w))
             | (?<=[(\[$£€“][ ]) (?<![^\s(\["].[ ]) (?=\S)
             | (?<==[ ]) (?==) )""",
    re.X,
)
"""A space before a closing mark or the rest of a contraction, after an opening mark, or between two `=`."""


def undo_wikitext(text: str) -> str:
    """` @-@ `, ` @,@ `, ` @.@ `, and no space where English has none: before `, . ; : ! ? ) ] %` and `'s`, after
    `( [ $ £ €`, inside double quotes, around a line, between the `=` of a heading.

    Quotes are undone only in a paragraph (line) with as many opening as closing ones. A lone apostrophe goes to the
    word before it if it is the only one of the paragraph and that word ends in s: `the Vikings ' season`. Spaces
    around dashes, slashes and single quotes stay: WikiText does not tell which of them were there.
    """
    lines = [line.strip(" ") for line in text.split("\n")]
    text = "\n".join([_undo_quotes(line) if '"' in line or " ' " in line else line for line in lines])
    return _SPACE.sub("", _JOINER.sub(r"\1", text))


def _undo_quotes(line: str) -> str:
    if line.count('"') % 2 == 0:
        line = _PAIR.sub(r'"\1"', line)
    if " ' " in line and len(_APOSTROPHE.findall(line)) == 1:
        line = line.replace("s ' ", "s' ").replace("<unk> ' ", "<unk>' ")
    return line
