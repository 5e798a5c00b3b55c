"""Which checkpoints are believed, which are kept, and which are deleted."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training import checkpoint, checkpoint_files
from tinytale_mlx.training.averaging import WeightAverage
from tinytale_mlx.training.checkpoint_files import Damaged, kept_steps
from tinytale_mlx.training.optimizers import make_optimizer

Pair = tuple[Transformer, optim.Optimizer]
FILES = [checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint_files.STATE, checkpoint_files.CHECKSUMS]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(step, loss): a checkpoint of next to nothing."""

    def one(step: int, loss: float | None = None, folder: Path = tmp_path) -> Path:
        with checkpoint_files.writing(folder, step) as temporary:
            (temporary / "data").write_bytes(bytes([step % 256]) * 50)
            (temporary / "state.json").write_text(f'{{"val_loss": {"null" if loss is None else loss}}}')
        return folder / f"step-{step:06d}"

    return one


@pytest.fixture
def trained(tiny: Callable[..., ModelConfig]) -> Callable[..., Pair]:
    """trained(seed): a model and its optimiser."""

    def make(seed: int = 0) -> Pair:
        model, optimizer = Transformer(tiny(), seed), make_optimizer(TrainRecipe())
        optimizer.init(model.trainable_parameters())
        return model, optimizer

    return make


# ---------------------------------------------------------------------- which are kept
@pytest.mark.parametrize(
    ("losses", "newest", "best", "kept"),
    [
        ({}, 2, 1, set()),
        ({1: None}, 2, 1, {1}),
        ({1: 3.0, 2: 2.0, 3: 1.0, 4: 2.5}, 1, 1, {3, 4}),
        ({1: 3.0, 2: 2.0, 3: 1.0, 4: 2.5}, 2, 2, {2, 3, 4}),
        ({1: 3.0, 2: 2.0, 3: 1.0, 4: 2.5}, 1, 0, {4}),
        ({1: 1.0, 2: 1.0, 3: 1.0}, 1, 1, {1, 3}),  # of equals, the first
        ({1: 9.0, 2: None, 3: None}, 1, 1, {1, 3}),
        ({1: 1.0, 2: 2.0}, 5, 5, {1, 2}),
        ({100: 1.0, 20: 2.0, 3: 3.0}, 1, 0, {100}),
    ],
)
def test_kept_steps(losses: dict, newest: int, best: int, kept: set) -> None:
    assert kept_steps(losses, newest, best) == kept


def test_kept_steps_are_always_the_newest_and_the_best(dice: np.random.Generator) -> None:
    """Pruning after every save keeps what pruning once at the end would keep."""
    for newest, best in itertools.product((1, 2, 3), (0, 1, 2)):
        losses = {step: float(loss) for step, loss in enumerate(dice.random(30))}
        there: dict[int, float | None] = {}
        for step, loss in losses.items():
            there[step] = loss
            there = {step: there[step] for step in kept_steps(there, newest, best)}
            assert step in there
        assert set(there) == kept_steps(losses, newest, best)
        assert set(there) >= set(sorted(losses, key=lambda step: losses[step])[:best])


def test_prune(tmp_path: Path, write: Callable[..., Path]) -> None:
    for step, loss in enumerate([5.0, 1.0, None, 3.0, 2.0, None]):
        write(step, loss)
    (tmp_path / "step-000000" / "state.json").write_text("nonsense")  # nobody can tell how good that one was
    checkpoint.prune(tmp_path, 1, 2)
    assert [checkpoint_files.step_of(path) for path in checkpoint.all_checkpoints(tmp_path)] == [1, 4, 5]
    assert [path.name for path in checkpoint_files.best_first(tmp_path)] == ["step-000001", "step-000004"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000004", "step-000005"]


# ---------------------------------------------------------------------- which are believed
@pytest.mark.parametrize("name", FILES)
def test_one_bit(name: str, tmp_path: Path, trained: Callable[..., Pair], dice: np.random.Generator) -> None:
    """Wherever it is flipped it is found, and nothing is loaded."""
    path = checkpoint.save(tmp_path, 1, *trained(), {"note": "tale"})
    content = (path / name).read_bytes()
    model, optimizer = trained(seed=1)
    before = np.array(model.model.embed_tokens.weight)
    for place in [0, len(content) - 1, *dice.integers(0, len(content), 8)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(dice.integers(8))
        (path / name).write_bytes(flipped)
        with pytest.raises(Damaged, match=r"step-000001 is damaged \("):
            checkpoint.load(path, model, optimizer)
    assert np.array_equal(model.model.embed_tokens.weight, before)
    (path / name).write_bytes(content)
    assert checkpoint.load(path, model, optimizer)["note"] == "tale"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone(name: str, tmp_path: Path, trained: Callable[..., Pair]) -> None:
    path = checkpoint.save(tmp_path, 1, *trained(), {})
    (path / name).unlink()
    with pytest.raises(Damaged, match=rf"step-000001 is damaged \({name} is missing\)"):
        checkpoint.load(path, *trained())


def test_weights_alone_are_checked_too(tmp_path: Path, trained: Callable[..., Pair]) -> None:
    path = checkpoint.save(tmp_path, 1, *trained(), {})
    (path / checkpoint.OPTIMIZER).write_bytes(b"")  # no matter of the weights
    checkpoint.load_weights(path, trained()[0])
    os.truncate(path / checkpoint.MODEL, 1000)
    with pytest.raises(Damaged, match=r"model\.safetensors does not match its checksum"):
        checkpoint.load_weights(path, trained()[0])


def test_the_one_before(tmp_path: Path, trained: Callable[..., Pair]) -> None:
    """Damaged ones are named, put aside, and do not count as the newest any more."""
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, *trained(seed=step), {})
    for step in (2, 3):
        os.truncate(tmp_path / f"step-00000{step}" / checkpoint.MODEL, 100)
    model, optimizer = trained(seed=9)
    said: list[str] = []
    state = checkpoint.load_newest(tmp_path, model, optimizer, report=said.append)
    assert state is not None
    assert state["step"] == 1
    assert np.array_equal(model.model.embed_tokens.weight, trained(seed=1)[0].model.embed_tokens.weight)
    assert [line.partition(" is damaged ")[2] for line in said] == [
        f"(model.safetensors does not match its checksum); it is now called damaged-step-00000{step}, and training "
        "goes on from step 1"
        for step in (3, 2)
    ]
    checkpoint.prune(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "damaged-step-000002",
        "damaged-step-000003",
        "step-000001",
    ]


def test_all_damaged(tmp_path: Path, trained: Callable[..., Pair]) -> None:
    assert checkpoint.load_newest(tmp_path, *trained()) is None
    for step in (1, 2):
        path = checkpoint.save(tmp_path, step, *trained(), {})
        (path / checkpoint.MODEL).unlink()
    told = r"step-000002 is damaged \(model\.safetensors is missing\), and there is none before it that is whole; start"
    with pytest.raises(UserError, match=told):
        checkpoint.load_newest(tmp_path, *trained())
    assert [path.name for path in checkpoint.all_checkpoints(tmp_path)] == ["step-000001", "step-000002"]


def test_of_another_dtype(tmp_path: Path, trained: Callable[..., Pair]) -> None:
    """And the one before it is not taken instead: nothing is wrong with this one."""
    checkpoint.save(tmp_path, 1, *trained(), {})
    model, optimizer = trained()
    model.set_dtype(mx.bfloat16)
    checkpoint.save(tmp_path, 2, model, optimizer, {})
    with pytest.raises(UserError, match=r"is bfloat16 \[.*\] and should be float32 \[.*, and \d+ more differ"):
        checkpoint.load_newest(tmp_path, *trained())


def test_the_best_weights(tmp_path: Path, trained: Callable[..., Pair]) -> None:
    model, _ = trained(seed=9)
    assert checkpoint.load_best_weights(tmp_path, model) is None
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None)):
        checkpoint.save(tmp_path, step, *trained(seed=step), {"val_loss": loss})
    for best in (2, 3):
        assert checkpoint.load_best_weights(tmp_path, model) == tmp_path / f"step-00000{best}"
        assert np.array_equal(model.model.embed_tokens.weight, trained(seed=best)[0].model.embed_tokens.weight)
        os.truncate(tmp_path / f"step-00000{best}" / checkpoint.MODEL, 100)  # the next best, then


def test_an_average_that_is_not_there_begins_with_the_weights(tmp_path: Path, trained: Callable[..., Pair]) -> None:
    path = checkpoint.save(tmp_path, 1, *trained(seed=1), {})
    model, optimizer = trained(seed=2)
    average = WeightAverage(model.trainable_parameters())
    checkpoint.load(path, model, optimizer, average)
    assert np.array_equal(average.weights["model"]["embed_tokens"]["weight"], model.model.embed_tokens.weight)


# ---------------------------------------------------------------------- in another folder
@pytest.mark.parametrize("links", [True, False])
def test_link(links: bool, tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(7)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    copy = checkpoint_files.link(path, tmp_path / "other")
    checkpoint_files.verify(copy)
    assert ((copy / "data").stat().st_ino == (path / "data").stat().st_ino) == links
    write(7, 1.0)  # the first one is replaced, and the second stays what it was
    checkpoint_files.verify(copy)
    assert [one.name for one in (tmp_path / "other").iterdir()] == ["step-000007"]
    with pytest.raises(UserError, match=r"the checkpoint could not be written to .*: No such file"):
        checkpoint_files.link(tmp_path / "step-000008", tmp_path / "other")
