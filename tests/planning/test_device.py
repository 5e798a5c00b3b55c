"""Limits from the machine's working set, on machines that are not here."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from tinytale_mlx import device

MIB = 1 << 20


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, int]]:
    """mac(memory, working_set, macos): what `configure` sets there."""

    def configured(memory: int, working_set: int | None, macos: str = "15.1") -> dict[str, int]:
        information: dict[str, Any] = {"device_name": "Apple M2", "memory_size": memory}
        if working_set is not None:
            information["max_recommended_working_set_size"] = working_set
        called: dict[str, int] = {}
        monkeypatch.setattr(device, "on_gpu", lambda: True)
        monkeypatch.setattr(device, "physical_memory", lambda: memory)
        monkeypatch.setattr(mx, "device_info", lambda: information)
        monkeypatch.setattr(device.platform, "mac_ver", lambda: (macos, ("", "", ""), "arm64"))
        for name in ("memory", "cache", "wired"):
            monkeypatch.setattr(mx, f"set_{name}_limit", lambda size, name=name: called.update({name: size}))
        device.configure()
        return called

    return configured


def test_an_8_gb_mac(mac: Callable[..., dict[str, int]]):
    """Not MLX's defaults, which are 7.6 GiB for memory and cache alike; nor the whole working set wired."""
    working_set = 5461 * MIB
    limits = mac(8 << 30, working_set)
    assert limits["memory"] == working_set
    assert limits["cache"] <= working_set // 4
    assert 0 < limits["wired"] <= working_set // 2


def test_a_macos_that_wires_nothing(mac: Callable[..., dict[str, int]]):
    assert set(mac(8 << 30, 5461 * MIB, "14.6")) == {"memory", "cache"}


def test_a_gpu_that_does_not_tell(mac: Callable[..., dict[str, int]]):
    assert mac(8 << 30, None)["memory"] == (8 << 30) * 2 // 3


def test_a_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "on_gpu", lambda: False)
    monkeypatch.setattr(device, "physical_memory", lambda: 8 << 30)
    assert device.limits() == device.Limits((8 << 30) * 9 // 10, 1 << 30, 0)
    monkeypatch.setattr(device, "physical_memory", lambda: 256 << 30)
    assert device.limits().cache == 4096 * MIB


def test_the_limits_reach_mlx():
    before = mx.set_cache_limit(0)
    try:
        device.configure()
        assert mx.set_cache_limit(0) == device.limits().cache
        assert mx.set_memory_limit(device.limits().memory) == device.limits().memory
    finally:
        mx.set_cache_limit(before)
