"""What a dashboard gets, whether or not its package is installed here: a stand-in takes it."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinytale_mlx.cli.tensorboard_log import TensorBoardTracker
from tinytale_mlx.cli.wandb_log import WandbTracker
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe_files import load
from tinytale_mlx.run import Run

EVENTS: list[dict[str, Any]] = [
    {"event": "start", "run": "runs/a", "step": 0},
    {"event": "step", "step": 5, "loss": 2.5, "mfu": None, "tokens_per_second": float("nan")},
    {"event": "saved", "step": 5},
    {"event": "sample", "step": 5, "text": "Once\nupon"},
    {"event": "validation", "step": 5, "val_loss": 2.25},
    {"event": "end", "status": "finished"},
]


class Wandb(ModuleType):
    """Also the run that its `init` gives."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.inits: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.files: list[str] = []
        self.codes: list[int] = []
        self.axes: list[tuple[str, str]] = []

    def init(self, **settings: Any) -> "Wandb":
        self.inits.append(settings)
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        self.axes.append((name, step_metric))

    def log(self, numbers: dict[str, Any]) -> None:
        self.lines.append(numbers)

    def Artifact(self, name: str, type: str) -> "Wandb":
        return self

    def add_dir(self, path: str) -> None:
        self.files.append(path)

    def log_artifact(self, artifact: Any) -> None: ...

    def finish(self, exit_code: int) -> None:
        self.codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def track(tracker: Any, run: Run, resumed: bool = False, status: str = "finished", first: int = 0) -> None:
    tracker.start(run, load("tale"), resumed)
    for event in EVENTS:
        tracker.log({**event, "step": first} if event["event"] == "start" else event)
    tracker.end(status)


def test_wandb_gets_numbers_and_samples(wandb: Wandb, tmp_path: Path) -> None:
    track(WandbTracker("tales"), Run(tmp_path))
    assert wandb.lines == [
        {"step": 5, "loss": 2.5},
        {"step": 5, "sample": "Once\nupon"},
        {"step": 5, "val_loss": 2.25},
    ]
    (init,) = wandb.inits
    assert (init["project"], init["name"], init["dir"]) == ("tales", tmp_path.name, str(tmp_path))
    assert init["config"] == load("tale").model_dump(mode="json")
    assert wandb.axes == [("*", "step")]
    assert (wandb.summary, wandb.codes) == ({"status": "finished"}, [0])


def test_wandb_goes_on_with_the_same_run(wandb: Wandb, tmp_path: Path) -> None:
    """Also where its folder was moved; another run is another one."""
    first, other = tmp_path / "first", tmp_path / "other"
    first.mkdir()
    other.mkdir()
    track(WandbTracker("tales"), Run(first))
    moved = first.rename(tmp_path / "moved")
    track(WandbTracker("tales"), Run(moved), resumed=True)
    track(WandbTracker("tales"), Run(other))
    ids = [init["id"] for init in wandb.inits]
    assert ids[0] == ids[1] != ids[2]
    assert {init["resume"] for init in wandb.inits} == {"allow"}


def test_wandb_gets_the_model_only_if_asked(wandb: Wandb, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    track(WandbTracker("tales"), Run(tmp_path))
    assert wandb.files == []
    track(WandbTracker("tales", upload=True), Run(tmp_path), status="failed")
    assert wandb.files == []
    assert wandb.codes[-1] == 1
    track(WandbTracker("tales", upload=True), Run(tmp_path))
    assert wandb.files == [str(tmp_path / "model")]


class TensorBoard(ModuleType):
    def __init__(self) -> None:
        super().__init__("tensorboardX")
        self.made: list[tuple[str, int | None]] = []
        self.calls: list[tuple[Any, ...]] = []

    def SummaryWriter(self, folder: str, purge_step: int | None) -> "TensorBoard":
        self.made.append((folder, purge_step))
        return self

    def add_scalar(self, *arguments: Any) -> None:
        self.calls.append(arguments)

    def add_text(self, *arguments: Any) -> None:
        self.calls.append(arguments)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.calls.append(("close",))


def test_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = TensorBoard()
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    track(TensorBoardTracker(), Run(tmp_path))
    assert module.calls[0][0] == "recipe"
    assert module.calls[1:] == [
        ("train/loss", 2.5, 5),
        ("sample", "    Once\n    upon", 5),
        ("validation/loss", 2.25, 5),
        ("close",),
    ]
    track(TensorBoardTracker(), Run(tmp_path), resumed=True, first=3)
    folder = str(tmp_path / "tensorboard")
    assert module.made == [(folder, None), (folder, 4)]


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch, nano: Path, tinytale) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'tinytale\[wandb\]'"):
        WandbTracker("tales")
    with pytest.raises(UserError, match=r"pip install 'tinytale\[tensorboard\]'"):
        TensorBoardTracker()
    assert "tinytale[wandb]" in tinytale("train", nano, "--wandb", "tales").complaint
    assert not Path("runs").exists()


def test_a_fine_tuning_is_told_of_too(wandb: Wandb, base: Path, tinytale: Any) -> None:
    """Its adapter goes where a model would."""
    short = ["--data", "identity", "--steps", "2", "--set", "train.log_every=1", "--json"]
    assert tinytale("finetune", "base", "--wandb", "tales", "--wandb-model", *short).code == 0
    (init,) = wandb.inits
    assert (init["project"], init["name"], init["config"]["tune"]["method"]) == ("tales", "base-lora", "lora")
    assert [line["step"] for line in wandb.lines if "loss" in line] == [1, 2]
    assert wandb.files == ["runs/base-lora/adapter"]
    assert wandb.summary == {"status": "finished"}
