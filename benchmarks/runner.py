"""How every benchmark is run: the options that they share, Ctrl-C, the files, and all of them one after the other.

Each module's `main`, and `tinytale bench NAME`, is `main(NAME)` here.
"""

import argparse
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from tinytale_mlx import device
from tinytale_mlx.disk import replacing, writing
from tinytale_mlx.errors import UserError
from tinytale_mlx.reports.bench_page import bench_page, compare_page
from tinytale_mlx.reports.page import Page

from . import NAMES, machine, question, results
from .results import COMPLETE, INTERRUPTED, Report
from .text import show

SHARED = ("quick", "peers", "json", "out")
STOPPED = 130
"""The exit code after Ctrl-C, as shells have it."""


def main(name: str, arguments: list[str] | None = None) -> None:
    """Run one benchmark and exit: with 0, 1 where it failed, 2 for what the user can mend, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        given = parse(name, arguments)
        if given.out:
            folder(given.out)
        device.configure()
        report = run(name, given, shlex.join(["tinytale", "bench", name, *arguments]))
        if given.out:
            write(given.out / f"{name}.json", report.to_json())
    except UserError as error:
        print(f"tinytale: {error}", file=sys.stderr)
        sys.exit(2)
    if given.json:
        print(json.dumps(report.to_json()))
    else:
        show(bench_page([report.to_json()]))
    sys.exit(exit_code([report]))


def exit_code(reports: list[Report]) -> int:
    """0 where all are complete."""
    statuses = {report.status for report in reports}
    if INTERRUPTED in statuses:
        return STOPPED
    return 0 if statuses <= {COMPLETE} else 1


class Parser(argparse.ArgumentParser):
    """What is wrong with the options is a UserError, and help begins as that of the other commands."""

    def __init__(self, name: str, description: str | None):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(
            f"tinytale bench {name}", description=description, formatter_class=formatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} -h shows the options")

    def format_help(self) -> str:
        return "U" + super().format_help().removeprefix("u")


def parse(name: str, arguments: list[str]) -> argparse.Namespace:
    """The options. With --quick those that are not given are the module's quick ones. Raises UserError."""
    module = importlib.import_module(f"{__package__}.{name}")
    parser = Parser(name, module.__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller measurement, in less than a minute")
    parser.add_argument("--peers", action="store_true", help="beside other programs, as far as they are installed")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, and nothing else there")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"write {name}.json there")
    module.options(parser)
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**module.QUICK)
    return parser.parse_args(arguments)


def run(name: str, given: argparse.Namespace, command: str) -> Report:
    """Measure. What is there when Ctrl-C arrives, or when something breaks, is kept.

    Raises UserError for what the user can mend, as long as there is nothing to lose.
    """
    own = {key: value for key, value in vars(given).items() if key not in SHARED}
    report = Report(name, question(name), command, given.quick, options=json.loads(json.dumps(own, default=str)))
    report.machine, report.date = machine.facts(), datetime.now(UTC).isoformat(timespec="seconds")
    started, spent = time.perf_counter(), _cpu_seconds()
    try:
        importlib.import_module(f"{__package__}.{name}").measure(given, report)
    except KeyboardInterrupt:
        report.status = INTERRUPTED
    except Exception as error:
        if isinstance(error, UserError) and not any(row.cells for table in report.tables for row in table.rows):
            raise
        traceback.print_exc()
        report.status = f"failed: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}"
    report.seconds, report.cpu_seconds = time.perf_counter() - started, _cpu_seconds() - spent
    return report


def _cpu_seconds() -> float:
    """Of this process and those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def folder(path: Path) -> Path:
    """Made, before there is anything to lose. Raises UserError."""
    with writing("the results", path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write(path: Path, content: dict[str, Any]) -> None:
    with writing("the results", path), replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


# ---------------------------------------------------------------------- one after the other
def run_all(quick: bool, peers: bool, out: Path, names: tuple[str, ...] = NAMES) -> list[Report]:
    """Every benchmark, each in a process of its own, until Ctrl-C.

    In `out` there are then NAME.json of each, results.json of all, and report.html, report/report.md and its pictures.
    """
    folder(out)
    flags = [flag for flag, on in (("--quick", quick), ("--peers", peers)) if on]
    reports: list[Report] = []
    for name in names:
        print(f"{name}: {question(name)}", file=sys.stderr, flush=True)
        reports.append(_run_apart(name, flags, out))
        write(out / "results.json", results.all_to_json(reports))
        print(f"    {reports[-1].status}, {reports[-1].seconds:.0f} s", file=sys.stderr, flush=True)
        if reports[-1].status == INTERRUPTED:
            break
    write_page(bench_page([report.to_json() for report in reports]), "report", out)
    return reports


def compare(first: Path, second: Path) -> Page:
    """Two files side by side. Raises UserError for what is none."""
    before, after = ([report.to_json() for report in results.read(file)] for file in (first, second))
    return compare_page(before, after, _told_apart(first, second))


def _told_apart(first: Path, second: Path) -> tuple[str, str]:
    """The files' names, or where these are the same those of their folders as well."""
    return (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))


def write_page(page: Page, name: str, out: Path) -> None:
    """NAME.html, and NAME/report.md with its pictures."""
    from tinytale_mlx import stages

    stages.write_page(page, out / f"{name}.html")


def _run_apart(name: str, flags: list[str], out: Path) -> Report:
    """What the process wrote; where it died before, a report that says so."""
    file = out / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"{__package__}.{name}", *flags, "--json", "--out", str(out)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    status = ""
    try:
        _, said = process.communicate()
    except KeyboardInterrupt:  # once, whether it came from the keyboard or to this process alone
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        status = INTERRUPTED
    if file.exists():
        report = results.read(file)[0]
        report.status = status or report.status
        return report
    last = (said.strip().splitlines() or [f"it ended with code {process.returncode}"])[-1]
    return Report(name, question(name), shlex.join(command), status=status or f"failed: {last}")
