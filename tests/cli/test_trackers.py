"""Trackers are guests of a training: they see all of it, several at once, and can't end it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx import stages
from tinytale_mlx.recipe import Recipe
from tinytale_mlx.recipe_files import load
from tinytale_mlx.run import Run
from tinytale_mlx.stages.trackers import Tracking

SMALL = ["train.steps=2", "train.sample_every=100", "train.save_every=100"]


class Book:
    """Writes down what it gets."""

    def __init__(self, refuse: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._refuse = refuse

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self._refuse == call[0]:
            raise RuntimeError("no network")

    def start(self, run: Run, recipe: Recipe, resumed: bool) -> None:
        self._note("start", run.name, recipe.name, resumed)

    def log(self, event: dict[str, Any]) -> None:
        self._note("log", event["event"])

    def end(self, status: str) -> None:
        self._note("end", status)


def test_several_at_once(nano: Path) -> None:
    books = [Book(), Book()]
    stages.train(load("nano.yaml", SMALL), trackers=books)
    assert books[0].calls == books[1].calls
    assert books[0].calls[0] == ("start", "nano", "nano", False)
    assert books[0].calls[-1] == ("end", "finished")
    kinds = [call[1] for call in books[0].calls if call[0] == "log"]
    assert [kind for kind in kinds if kind in ("start", "step", "validation", "end")] == [
        "start", "step", "step", "validation", "end",
    ]  # fmt: skip
    book = Book()
    stages.train(load("nano.yaml", SMALL), None, True, trackers=[book])
    assert book.calls[0] == ("start", "nano", "nano", True)


def test_they_hear_of_a_failure(nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr("tinytale_mlx.stages.training.run_loop", fail)
    book = Book()
    with pytest.raises(RuntimeError, match="bug"):
        stages.train(load("nano.yaml", SMALL), trackers=[book])
    assert book.calls[-1] == ("end", "failed")


@pytest.mark.parametrize(("refuse", "after"), [("start", 1), ("log", 4), ("end", 4)])
def test_one_that_raises_is_reported_once(refuse: str, after: int) -> None:
    """One that never began gets nothing more; one that stumbles is asked again, the network may be back."""
    bad, good, seen = Book(refuse), Book(), []
    tracking = Tracking([bad, good], seen.append)
    tracking.notify({"event": "phase"})
    tracking.start(Run(Path("runs/a")), load("tale"), False)
    tracking.notify({"event": "step"})
    tracking.notify({"event": "step"})
    tracking.end("finished")
    warnings = [event for event in seen if event["event"] == "warning"]
    assert warnings == [{"event": "warning", "text": "Book failed (no network); training goes on"}]
    assert [event["event"] for event in seen if event["event"] != "warning"] == ["phase", "step", "step"]
    assert len(bad.calls) == after
    assert len(good.calls) == 4


def test_the_loop_knows_of_none() -> None:
    root = Path(stages.__file__).parents[1]
    names = ("wandb", "tensorboard")
    texts: list[Callable[[], str]] = [file.read_text for file in root.rglob("*.py") if "cli" not in file.parts]
    assert len(texts) > 50
    assert not [name for read in texts for name in names if name in read()]
