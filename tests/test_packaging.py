"""What gets installed: every package, every recipe, and no top-level name but ours."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = {"cli": "tinytale_mlx.cli", "benchmarks": "tinytale_mlx.benchmarks"}


def packages_in_the_tree() -> set[str]:
    found = set()
    for top in ("tinytale_mlx", *MAPPED):
        for file in (ROOT / top).rglob("__init__.py"):
            first, *rest = file.parent.relative_to(ROOT).parts
            found.add(".".join([MAPPED.get(first, first), *rest]))
    return found


def test_every_package_is_listed() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_in_the_tree()
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {name: folder for folder, name in MAPPED.items()}


def test_every_data_file_is_listed() -> None:
    """Whatever is not Python has to be named, or a wheel comes without it."""
    listed = PROJECT["tool"]["setuptools"]["package-data"]
    for file in (ROOT / "tinytale_mlx").rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            package = ".".join(file.parent.relative_to(ROOT).parts)
            assert any(file.match(pattern) for pattern in listed.get(package, [])), file


def test_no_address_of_an_index() -> None:
    """A lock file would hold some, so none is committed."""
    assert "index" not in PROJECT["tool"]["uv"]
    assert "*.lock" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves folders in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("tinytale_mlx", *MAPPED):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    program = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    built = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_has_one_top_level_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"tinytale_mlx"}
    recipes = {path.name for path in (ROOT / "tinytale_mlx" / "recipes").glob("*.yaml")}
    assert {name.split("/")[-1] for name in names if name.endswith(".yaml")} == recipes


@pytest.mark.slow
def test_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """In an empty environment that borrows only the dependencies of this one."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    zipfile.ZipFile(wheel).extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    for arguments in (["--help"], ["recipes"]):
        program = f"import sys; sys.argv[1:] = {arguments!r}; from tinytale_mlx.cli.app import main; main()"
        ran = subprocess.run([python, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert ran.returncode == 0, ran.stderr
        assert "tale" in ran.stdout
    where = "import tinytale_mlx, tinytale_mlx.cli as c; print(tinytale_mlx.__file__, c.__file__)"
    said = subprocess.run([python, "-c", where], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert all(Path(file).is_relative_to(site) for file in said.split())
