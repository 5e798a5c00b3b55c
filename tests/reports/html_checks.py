"""What any page must be: well formed, whole in itself, and made for narrow screens as well."""

import base64
from html.parser import HTMLParser

VOID = {"img", "meta", "br", "hr", "link", "input"}
PNG = b"\x89PNG\r\n\x1a\n"


class Checked(HTMLParser):
    """The page's parts; raises where a tag is not closed, or closed in another's place."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.pictures: list[bytes] = []
        self.texts: list[str] = []
        self.cells: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.seen.append((tag, given))
        if tag == "img":
            kind, _, data = (given["src"] or "").partition(",")
            assert kind == "data:image/png;base64"
            self.pictures.append(base64.b64decode(data, validate=True))
            assert given["alt"]
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def checked(text: str) -> Checked:
    """The page, after the checks that hold for all."""
    page = Checked(text)
    assert all(picture.startswith(PNG) for picture in page.pictures)
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "link", "iframe", "object"}
    assert not [given for _, given in page.seen if "href" in given or "srcset" in given]
    viewport = [given["content"] for tag, given in page.seen if tag == "meta" and given.get("name") == "viewport"]
    assert viewport == ["width=device-width, initial-scale=1"]
    assert "prefers-color-scheme: dark" in text
    tables = [number for number, (tag, _) in enumerate(page.seen) if tag == "table"]
    assert all(page.seen[number - 1] == ("div", {"class": "scroll"}) for number in tables)
    return page
