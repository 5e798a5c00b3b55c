"""Reports on the disk: a page is made by `reports`, from a run's files, and put where it belongs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import disk
from ..errors import UserError
from ..recipe_files import AnyRecipe
from ..reports.page import Page, files
from ..reports.run_page import run_page
from ..run import Run


@dataclass
class Written:
    """A report that is on the disk: one file with all in it, and the same as Markdown with pictures beside it."""

    html: Path
    markdown: Path
    pictures: list[Path]

    def to_json(self) -> dict[str, Any]:
        return {
            "html": str(self.html),
            "markdown": str(self.markdown),
            "pictures": [str(picture) for picture in self.pictures],
        }


def report_run(this: Run, output: Path | None = None) -> Written:
    """Draw a run, finished or not, into its folder or to `output`. Raises UserError for what the user can mend."""
    return write_page(run_page(this.path, this.name), output or this.path / "report.html")


def write_page(page: Page, html: Path) -> Written:
    """Write a page as `html`, and as Markdown into a folder of the same name without the ending.

    Raises UserError where `html` does not end so, or a place cannot be written.
    """
    if html.suffix.lower() != ".html":
        raise UserError(f"a report is written to a file that ends in .html, not to {html}")
    content = files(page, html.stem)
    with disk.writing("the report", html):
        _write(html, content.pop(Path(html.stem + ".html")))
        for name, data in content.items():
            _write(html.parent / name, data)
    markdown, *pictures = (html.parent / name for name in content)
    return Written(html, markdown, pictures)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk.replacing(path) as temporary:
        temporary.write_bytes(data)


class Report:
    """A `Tracker` that draws a run when it is done. Like other guests of a training it cannot make it fail."""

    def start(self, run: Run, recipe: AnyRecipe, resumed: bool) -> None:
        self._run = run

    def log(self, event: dict[str, Any]) -> None:
        pass

    def end(self, status: str) -> None:
        if status not in ("interrupted", "failed"):
            report_run(self._run)
