"""`tinytale report`: pictures of a run, of the latest or of another, here or elsewhere; and what it refuses."""

import json
import os
from pathlib import Path

import pytest

from tinytale_mlx import run, stages
from tinytale_mlx.errors import UserError
from tinytale_mlx.reports.page import Page, Text
from tinytale_mlx.run import Run

NAMES = ["loss", "bits-per-byte", "speed", "learning-rate", "gradient-norm", "memory"]
STEP = {
    "event": "step", "loss": 2.0, "tokens": 64, "learning_rate": 0.1, "grad_norm": 1.0, "tokens_per_second": 9.0,
    "peak_memory_bytes": 1e8,
}  # fmt: skip


@pytest.fixture
def drawable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two steps in the current folder, the latest one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "small"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: small\n")
    (folder / "log.jsonl").write_text("".join(json.dumps(STEP | {"step": n, "tokens": 64 * n}) + "\n" for n in (1, 2)))
    (tmp_path / "runs" / "latest").symlink_to("small")
    return folder


def test_what_a_training_left(tinytale, trained: Path, tmp_path: Path) -> None:
    """The whole of a real run: every picture, figures, samples, the recipe."""
    said = tinytale("report", "--output", tmp_path / "page.html", "--json").json
    assert said["run"] == "runs/nano"
    assert [Path(one).name for one in said["pictures"]] == [f"{name}.png" for name in NAMES]
    assert all(Path(one).read_bytes().startswith(b"\x89PNG") for one in said["pictures"])
    for file in (Path(said["html"]), Path(said["markdown"])):
        text = file.read_text()
        for part in ("Finished: 24 of 24 steps", "What it wrote", "After 24 steps", "Forecast and fact", "context: 32"):
            assert part in text, part
    assert not (trained / "runs" / "nano" / "report.html").is_symlink()


def test_the_latest_into_its_own_folder(tinytale, drawable: Path) -> None:
    result = tinytale("report")
    assert result.code == 0
    assert result.out == "runs/small/report.html (open it in a browser), and as Markdown runs/small/report/report.md\n"
    assert (drawable / "report.html").is_file()
    assert "](loss.png)" in (drawable / "report" / "report.md").read_text()
    assert (drawable / "report" / "loss.png").is_file()
    assert [path.name for path in drawable.rglob("*.tmp")] == []


def test_drawn_again(tinytale, drawable: Path) -> None:
    """A longer log gives a newer page."""
    before = tinytale("report", "small").code, (drawable / "report.html").read_text()
    with (drawable / "log.jsonl").open("a") as file:
        file.write(json.dumps(STEP | {"step": 3, "tokens": 192, "loss": 1.234}) + "\n")
    assert (tinytale("report", "small").code, "1.234" in before[1]) == (0, False)
    assert "1.234" in (drawable / "report.html").read_text()


def test_refusals(tinytale, drawable: Path) -> None:
    assert "there is no run other (looked for" in tinytale("report", "other").complaint
    assert tinytale("report", "-o", "page.pdf").complaint == (
        "tinytale: a report is written to a file that ends in .html, not to page.pdf"
    )
    Path("taken").write_text("a file")
    assert "the report could not be written to taken/page.html" in tinytale("report", "-o", "taken/page.html").complaint
    log = drawable / "log.jsonl"
    log.write_text(log.read_text() + "half a li\n")
    assert "log.jsonl, line 3: this is no event of a log" in tinytale("report").complaint
    log.write_text('{"event": "sample", "step": "two"}\n')
    assert "has an event with something missing or of another kind" in tinytale("report").complaint
    log.unlink()
    assert "there is no log in runs/small" in tinytale("report").complaint


def test_a_run_without_a_step(tinytale, drawable: Path) -> None:
    (drawable / "log.jsonl").write_text("")
    assert tinytale("report", "--json").json["pictures"] == []
    assert "Nothing has been trained yet." in (drawable / "report.html").read_text()


def test_matplotlib_has_no_folder_of_its_own(start, drawable: Path, tmp_path: Path) -> None:
    """It then takes another for its cache, and nobody need know."""
    (tmp_path / "file").write_text("")
    process = start("report", cwd=tmp_path, env={"MPLCONFIGDIR": str(tmp_path / "file" / "folder")})
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert out.count("\n") == 1, out


# ---------------------------------------------------------------------- at the end of a training
def test_a_training_draws_itself_at_its_end(drawable: Path) -> None:
    guest = stages.Report()
    guest.start(Run(drawable), run.recipe_files.load("tale"), False)
    for status in ("interrupted", "failed"):
        guest.end(status)
    assert not (drawable / "report.html").exists()
    guest.end("finished")
    assert (drawable / "report.html").is_file()


def test_a_page_of_any_kind(tmp_path: Path) -> None:
    """What benchmarks use as well."""
    written = stages.write_page(Page("T", [Text("hello")]), tmp_path / "new" / "results.html")
    assert (written.html, written.markdown) == (tmp_path / "new/results.html", tmp_path / "new/results/report.md")
    assert written.pictures == []
    with pytest.raises(UserError, match=r"ends in \.html"):
        stages.write_page(Page("T"), tmp_path / "results")
    assert os.listdir(tmp_path) == ["new"]
