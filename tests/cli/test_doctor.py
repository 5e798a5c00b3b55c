"""`tinytale doctor`: what is here to train with, and what could be better."""

import platform
import shutil
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx import blas, device
from tinytale_mlx.stages import checking


def checks(result: Any) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in result["checks"]}


def test_json(nano: Path, tinytale) -> None:
    result = tinytale("doctor", "--json").json
    found = checks(result)
    assert result["ok"]
    assert list(found)[:7] == ["Python", "packages", "device", "BLAS", "compiler", "memory", "limits"]
    assert all(check["status"] in ("ok", "advice") for check in found.values())
    assert found["Python"]["facts"]["version"] == platform.python_version()
    assert found["packages"]["facts"]["mlx"] == metadata.version("mlx")
    assert found["BLAS"]["facts"]["gflops"] > 0.1
    assert found["memory"]["facts"]["physical_bytes"] == device.physical_memory()
    assert found["limits"]["facts"] == vars(device.limits())
    assert found["disk"]["facts"]["free_bytes"] > 0
    assert not Path("runs").exists()  # it only looks


def test_text(nano: Path, tinytale) -> None:
    result = tinytale("doctor")
    assert result.code == 0
    for name in ("Python", "packages", "device", "BLAS", "compiler", "memory", "limits", "disk"):
        assert f" {name}: " in result.out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a choice of BLAS and compiler")
def test_advice_does_not_fail(nano: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "LOADED", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(checking, "measured_teraflops", lambda: 0.006)
    monkeypatch.setattr(device, "physical_memory", lambda: 4 << 30)
    result = tinytale("doctor", "--json")
    found = checks(result.json)
    assert result.code == 0
    assert {name for name, check in found.items() if check["status"] == "advice"} >= {"BLAS", "compiler", "memory"}
    assert "6 GFLOP/s" in found["BLAS"]["text"]
    assert "mkl" in found["BLAS"]["text"]
    assert "install a C++ compiler" in found["compiler"]["text"]


def test_a_full_disk_prevents_training(nano: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 10**6))
    result = tinytale("doctor", "--json")
    assert result.code == 1
    assert not result.json["ok"]
    assert checks(result.json)["disk"]["status"] == "problem"
    assert tinytale("doctor").code == 1


def test_a_missing_package(nano: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "PACKAGES", ["mlx", "no-such-package"])
    result = tinytale("doctor", "--json")
    assert result.code == 1
    assert "missing: no-such-package" in checks(result.json)["packages"]["text"]


def test_products_that_fail(nano: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> float:
        raise RuntimeError("no\nkernels")

    monkeypatch.setattr(checking, "measured_teraflops", fail)
    result = tinytale("doctor", "--json")
    assert result.code == 1
    assert "no kernels" in checks(result.json)["BLAS"]["text"]


def test_a_mac_hears_of_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "on_gpu", lambda: True)
    monkeypatch.setattr(checking.sys, "platform", "darwin")
    monkeypatch.setattr(checking.platform, "machine", lambda: "arm64")
    found = {check.name: check for check in checking.doctor()}
    assert "caffeinate" in found["GPU watchdog"].text
    assert found["GPU watchdog"].status == "advice"
    assert "Metal" in found["compiler"].text


def test_a_python_for_intel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking.sys, "platform", "darwin")
    monkeypatch.setattr(checking.platform, "machine", lambda: "x86_64")
    found = {check.name: check for check in checking.doctor()}
    assert found["Python"].status == "problem"
    assert found["device"].status == "advice"  # a Mac, and no GPU in use


def test_a_file_where_runs_should_be(tmp_path: Path, tinytale) -> None:
    (tmp_path / "file").write_text("x")
    found = checks(tinytale("doctor", "--runs", tmp_path / "file", "--json").json)
    assert found["disk"]["status"] == "problem"
    assert "is a file, not a folder" in found["disk"]["text"]
