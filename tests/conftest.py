"""Loads tinytale before any test can load MLX, so that its BLAS is the fast one. And what tests share."""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # among several processes, threads of a BLAS mostly wait for each other
    os.environ.setdefault("MKL_NUM_THREADS", "1")

import tinytale_mlx  # noqa: F401  isort: skip
import mlx.core as mx
import numpy as np

from tinytale_mlx.models import attention, elementary
from tinytale_mlx.recipe import ModelConfig
from tinytale_mlx.training import losses

# nohup ignores the one, a shell's background jobs the other, and the commands that tests start would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _free_memory() -> Iterator[None]:
    """A compiled step and its model hold each other, and Python does not see how much memory that is."""
    yield
    if mx.get_active_memory() > 100e6:
        gc.collect()


@pytest.fixture
def use_polynomial_exp(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """use_polynomial_exp(False) is what a Mac runs, True what an x86 CPU runs, whichever this machine is."""

    def use(polynomial: bool) -> None:
        for module in (attention, elementary, losses):
            monkeypatch.setattr(module, "scalar_exp", lambda: polynomial)

    return use


@pytest.fixture(params=[False, True], ids=["native_exp", "polynomial_exp"])
def either_exp(request: pytest.FixtureRequest, use_polynomial_exp: Callable[[bool], None]) -> bool:
    """Runs a test twice: with MLX's exp, and with the polynomial."""
    use_polynomial_exp(request.param)
    return request.param


@pytest.fixture
def tiny() -> Callable[..., ModelConfig]:
    """tiny(**changes): the config of a model small enough to check by hand."""

    def make(**changes: Any) -> ModelConfig:
        shape: dict[str, Any] = {
            "hidden_size": 32, "layers": 2, "heads": 4, "context": 24,
            "intermediate_size": 48, "vocab_size": 40,
        }  # fmt: skip
        return ModelConfig(**{**shape, **changes})

    return make


@pytest.fixture
def dice() -> np.random.Generator:
    return np.random.default_rng(0)
