"""The runner, with a benchmark made for it: options, Ctrl-C, failures, files, all of them, and two side by side."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx.benchmarks import runner
from tinytale_mlx.benchmarks.results import Column, Report
from tinytale_mlx.errors import UserError

HELP = "tinytale bench fake -h shows the options"
Ending = Callable[[], None]


def nothing() -> None:
    pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make `fake` a benchmark that measures a row, ends as it is told, and else measures another.

    It may also end before.
    """

    def make(ending: Ending, before: Ending = nothing) -> None:
        def options(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--rounds", type=int, default=5)
            parser.add_argument("--size", default="large")

        def measure(given: argparse.Namespace, report: Report) -> None:
            table = report.table("Speeds", ["program"], [Column("speed", "tokens/s", "higher")])
            before()
            table.row("first").add(speed=float(given.rounds))
            ending()
            table.row("second").add(speed=2.0)

        module: Any = types.ModuleType("fake", "What for?\n\nA test.")
        module.options, module.measure, module.QUICK = options, measure, {"rounds": 1, "size": "small"}
        monkeypatch.setitem(sys.modules, "tinytale_mlx.benchmarks.fake", module)
        monkeypatch.setattr(runner, "question", lambda name: "What for?")

    return make


def interrupt() -> None:
    raise KeyboardInterrupt


def crash() -> None:
    raise RuntimeError("the first line\nthe disk burns")


def refuse() -> None:
    raise UserError("there is no such recipe")


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, Any, str]:
    """Exit code, the JSON on stdout or None, and what stderr says."""
    with pytest.raises(SystemExit) as ended:
        runner.main("fake", list(arguments))
    said = capsys.readouterr()
    return ended.value.code, json.loads(said.out) if said.out else None, said.err


def keys(content: dict[str, Any]) -> list[str]:
    return [row["key"][0] for row in content["tables"][0]["rows"]]


def test_json_alone_is_on_stdout_and_says_where_it_comes_from(fake, capsys):
    fake(nothing)
    code, content, _ = outcome(capsys, "--json", "--rounds", "3")
    assert (code, content["status"], keys(content)) == (0, "complete", ["first", "second"])
    assert content["command"] == "tinytale bench fake --json --rounds 3"
    assert content["options"] == {"rounds": 3, "size": "large"}
    assert {"device", "cores", "memory_bytes", "platform", "blas", "revision", "versions"} <= set(content["machine"])
    assert content["machine"]["versions"]["mlx"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"rounds": 5, "size": "large"}),
        (["--quick"], {"rounds": 1, "size": "small"}),
        (["--rounds", "4", "--quick"], {"rounds": 4, "size": "small"}),
    ],
)
def test_quick_is_a_preset_that_gives_way(fake, arguments: list[str], expected: dict[str, Any]):
    fake(nothing)
    given = vars(runner.parse("fake", arguments))
    assert {name: given[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        (interrupt, 130, "interrupted"),
        (crash, 1, "failed: RuntimeError: the disk burns"),
        (refuse, 1, "failed: UserError: there is no such recipe"),
    ],
)
def test_what_was_measured_is_kept(fake, capsys, tmp_path: Path, ending: Ending, code: int, status: str):
    fake(ending)
    ended, content, _ = outcome(capsys, "--json", "--out", str(tmp_path / "new" / "folder"))
    assert (ended, content["status"], keys(content)) == (code, status, ["first"])
    assert json.loads((tmp_path / "new" / "folder" / "fake.json").read_text()) == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no such recipe"),
        (
            ["--rounds", "many"],
            "argument --rounds: invalid int value: 'many'; tinytale bench fake -h shows the options",
        ),
        (["--wrong"], "unrecognized arguments: --wrong; tinytale bench fake -h shows the options"),
        (["--out", "a-file"], "the results could not be written to a-file: File exists"),
    ],
)
def test_bad_input_is_a_sentence(fake, capsys, tmp_path: Path, monkeypatch, arguments: list[str], message: str):
    fake(nothing, before=refuse)
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    assert outcome(capsys, *arguments) == (2, None, f"tinytale: {message}\n")


def test_the_text_has_question_figures_and_command(fake, capsys):
    fake(nothing)
    with pytest.raises(SystemExit):
        runner.main("fake", ["--quick"])
    text = capsys.readouterr().out
    assert "What for?" in text
    assert "speed, tokens/s" in text
    assert "tinytale bench fake --quick" in text


def test_one_that_dies_is_a_report_and_the_page_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.setattr(runner, "question", lambda name: f"What is {name}?")
    reports = runner.run_all(True, False, tmp_path, ("nobody_has_written_this",))
    assert reports[0].status.startswith("failed: ")
    assert "No module named" in reports[0].status
    assert runner.exit_code(reports) == 1
    assert json.loads((tmp_path / "results.json").read_text())["reports"] == [reports[0].to_json()]
    assert "What is nobody_has_written_this?" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "report" / "report.md").exists()


def test_ctrl_c_ends_them_all_and_keeps_what_there_is(tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; from tinytale_mlx.benchmarks import runner;"
        "sys.exit(runner.exit_code(runner.run_all(True, False, Path(sys.argv[1]), ('soak', 'scaling'))))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr
    assert process.stderr.readline().startswith("soak: ")
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=300)  # on a busy machine the training that is under way ends late
    assert process.returncode == 130
    reports = json.loads((tmp_path / "results.json").read_text())["reports"]
    assert [(one["name"], one["status"]) for one in reports] == [("soak", "interrupted")]


# ---------------------------------------------------------------------- two side by side
def written(path: Path, speed: float, device: str) -> Path:
    report = Report("speed", "How fast?", date="2026-01-01", machine={"device": device, "versions": {}})
    report.table("Speeds", ["program"], [Column("speed", "tokens/s", "higher")]).row("ours").set(speed=speed)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report.to_json()))
    return path


@pytest.mark.parametrize(("device", "bold"), [("M4", True), ("M2", False)])
def test_compare(tmp_path: Path, capsys, device: str, bold: bool):
    from tinytale_mlx.cli.app import main

    files = written(tmp_path / "a" / "x.json", 100.0, "M2"), written(tmp_path / "b" / "x.json", 250.0, device)
    with pytest.raises(SystemExit) as ended:
        main(["bench", "compare", *map(str, files), "--out", str(tmp_path / "out")])
    text = capsys.readouterr().out
    assert ended.value.code in (None, 0)
    assert "2.500" in text
    assert ("different machines" in text) == bold
    page = (tmp_path / "out" / "comparison" / "report.md").read_text()
    assert ("**These are different machines" in page) == bold


def test_compare_with_something_else(tmp_path: Path, capsys):
    from tinytale_mlx.cli.app import main

    with pytest.raises(SystemExit) as ended:
        main(["bench", "compare", str(tmp_path / "none.json"), str(tmp_path / "none.json")])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"tinytale: {tmp_path / 'none.json'}: no such file or directory\n"
