"""The dashboard gets the numbers, whether or not Weights & Biases is installed here: a stand-in takes them."""

import sys
from types import ModuleType
from typing import Any

import pytest

from tinytale_mlx.cli.wandb_log import WandbLog
from tinytale_mlx.errors import UserError

EVENTS: list[dict[str, Any]] = [
    {"event": "phase", "text": "preparing"},
    {"event": "start", "run": "runs/a", "step": 0},
    {"event": "step", "step": 5, "loss": 2.5},
    {"event": "sample", "step": 5, "text": "Once"},
    {"event": "validation", "step": 5, "val_loss": 2.25},
    {"event": "end", "status": "finished"},
]


class Recorder(ModuleType):
    def __init__(self) -> None:
        super().__init__("wandb")
        self.settings: dict[str, Any] = {}
        self.lines: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def init(self, **settings: Any) -> "Recorder":
        self.settings = settings
        return self

    def log(self, numbers: dict[str, Any], step: int) -> None:
        self.lines.append((step, numbers))

    def finish(self) -> None:
        self.finished = True


def test_numbers_arrive_and_events_are_handed_on(monkeypatch: pytest.MonkeyPatch):
    recorder, seen = Recorder(), []
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    log = WandbLog("tales", seen.append)
    for event in EVENTS:
        log.notify(event)
    assert seen == EVENTS
    assert recorder.lines == [(5, {"step": 5, "loss": 2.5}), (5, {"step": 5, "val_loss": 2.25})]
    assert (recorder.settings["project"], recorder.settings["name"]) == ("tales", "a")
    assert recorder.finished
    first = recorder.settings["id"]
    WandbLog("tales", seen.append).notify(EVENTS[1])
    assert recorder.settings["id"] == first  # a resumed run is the same run
    assert recorder.settings["resume"] == "allow"


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'tinytale\[wandb\]'"):
        WandbLog("tales", print)
