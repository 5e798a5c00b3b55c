"""Who may import whom: the table of the design, enforced on the source text."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "tinytale_mlx"

# Part of the package: what of the package it may import, beside itself and `errors`. What composes, in the last
# lines, may import everything above it; nothing above may import that.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "blas": set(),
    "device": set(),
    "disk": set(),
    "workers": set(),
    "randomness": set(),
    "recipe": set(),
    "recipes": set(),
    "recipe_files": {"recipe"},
    "run": {"recipe", "recipe_files", "disk"},
    "tokenizers": {"recipe", "disk", "workers"},
    "data": {"recipe", "tokenizers", "randomness", "disk", "workers"},
    "models": {"recipe"},
    "tuning": {"recipe", "models", "disk"},
    "training": {"recipe", "models", "data", "randomness", "blas", "disk"},
    "generation": {"recipe", "models", "tokenizers", "randomness"},
    "alignment": {"recipe", "models", "data", "tuning", "training", "generation", "randomness", "tokenizers", "disk"},
    "evaluation": {"recipe", "models", "data", "training.losses"},  # the loss that training has, to the letter
    "planning": {"recipe", "models"},
    "interop": {"recipe", "models", "tokenizers", "disk"},
    "reports": set(),
}
COMPOSES = ["stages", "benchmarks", "cli"]
for _number, _part in enumerate(COMPOSES):
    ALLOWED[_part] = {*ALLOWED, *COMPOSES[: _number + 1]}

# Other packages that a part must do without.
FORBIDDEN: dict[str, set[str]] = {
    "recipe": {"mlx", "mlx_lm"},
    "tokenizers": {"mlx", "mlx_lm", "datasets"},
    "data": {"mlx", "mlx_lm"},
    "models": {"mlx.optimizers", "mlx_lm", "datasets", "os", "pathlib"},
    "training": {"datasets", "rich", "typer"},
    "generation": {"rich", "typer", "mlx.optimizers"},
    "reports": {"mlx", "mlx_lm"},
    "stages": {"rich", "typer"},
}


class Import(NamedTuple):
    file: Path
    line: int
    part: str
    target: str
    """A dotted name: within the package without its own name, such as models.cache; else as it is written."""
    own: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.target}"

    def within(self, names: set[str]) -> bool:
        return any(self.target == name or self.target.startswith(name + ".") for name in names)


def modules() -> Iterator[tuple[Path, list[str]]]:
    """Each source file with its place in the package: cli/ and benchmarks/ are installed inside it."""
    for top, prefix in ((PACKAGE, []), ("cli", ["cli"]), ("benchmarks", ["benchmarks"])):
        folder = ROOT / top
        for file in sorted(folder.rglob("*.py")):
            place = [*prefix, *file.relative_to(folder).with_suffix("").parts]
            yield file, place


def imports() -> Iterator[Import]:
    for file, place in modules():
        if place == ["__init__"]:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = ".".join([PACKAGE, *place][: -node.level]) if node.level else ""
                base = ".".join(filter(None, [base, node.module]))
                names = [f"{base}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                own = name.split(".")[0] == PACKAGE
                target = name.removeprefix(f"{PACKAGE}.") if own else name
                yield Import(file, node.lineno, place[0], target, own)


EVERY_IMPORT = list(imports())
PARTS = sorted({place[0] for _, place in modules()} - {"__init__"})


def test_every_part_is_in_the_table():
    assert [part for part in PARTS if part not in ALLOWED] == []
    assert {"models", "training", "cli"} <= set(PARTS)
    assert len(EVERY_IMPORT) > 300  # it does read the files


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_what_it_may(part: str):
    allowed = ALLOWED[part] | {part, "errors"}
    mine = [found for found in EVERY_IMPORT if found.part == part and found.own]
    assert [str(found) for found in mine if not found.within(allowed)] == []


@pytest.mark.parametrize("part", [part for part in FORBIDDEN if part in PARTS])
def test_a_part_does_without(part: str):
    others = [found for found in EVERY_IMPORT if found.part == part and not found.own]
    assert [str(found) for found in others if found.within(FORBIDDEN[part])] == []


def test_only_stages_composes():
    """Nobody but the command line and the benchmarks knows the stages, or those two."""
    composed = [found for found in EVERY_IMPORT if found.own and found.within(set(COMPOSES))]
    assert {found.part for found in composed} <= set(COMPOSES)
    assert [str(found) for found in composed if found.part == "stages" and not found.within({"stages"})] == []


def test_the_table_has_no_circles():
    """Following the table, no part reaches itself."""
    for part in ALLOWED:
        seen: set[str] = set()
        todo = {name.split(".")[0] for name in ALLOWED[part]} - {part}
        while todo:
            name = todo.pop()
            seen.add(name)
            todo |= {n.split(".")[0] for n in ALLOWED[name]} - seen - {name}
        assert part not in seen, part
