"""Checkpoints: complete or absent, equal when the states are equal, and never believed when damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_flatten, tree_map

from tinytale_mlx import disk
from tinytale_mlx.errors import UserError
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import ModelConfig, TrainRecipe
from tinytale_mlx.training import checkpoint
from tinytale_mlx.training.optimizers import make_optimizer

Pair = tuple[Transformer, optim.Optimizer]


@pytest.fixture(params=["adamw", "muon"])
def pair(request: pytest.FixtureRequest, tiny: Callable[..., ModelConfig]) -> Callable[..., Pair]:
    """pair(seed, steps): a model and its optimiser after some steps along made-up gradients."""

    def make(seed: int = 0, steps: int = 2) -> Pair:
        model = Transformer(tiny(), seed)
        optimizer = make_optimizer(TrainRecipe(optimizer=request.param))
        for _ in range(steps):
            optimizer.update(model, tree_map(mx.sin, model.parameters()))
        mx.eval(model.parameters(), optimizer.state)
        return model, optimizer

    return make


def everything(pair: Pair) -> dict[str, list]:
    model, optimizer = pair
    return {name: array.tolist() for name, array in tree_flatten([model.parameters(), optimizer.state])}  # type: ignore[union-attr]


def test_round_trip(tmp_path: Path, pair: Callable[..., Pair]) -> None:
    saved, other = pair(), pair(seed=1, steps=0)
    path = checkpoint.save(tmp_path, 7, *saved, {"note": "caf\u00e9"})
    assert path == tmp_path / "step-000007"
    assert checkpoint.load(path, *other) == {"note": "caf\u00e9", "step": 7}
    assert everything(other) == everything(saved)
    for model, optimizer in (saved, other):  # and they go on alike
        optimizer.update(model, tree_map(mx.cos, model.parameters()))
    assert everything(other) == everything(saved)


def test_equal_states_are_equal_files(tmp_path: Path, pair: Callable[..., Pair]) -> None:
    first, second = (checkpoint.save(tmp_path / name, 1, *pair(), {}) for name in "ab")
    for name in (checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.STATE):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_saving_a_step_again_replaces_it(tmp_path: Path, pair: Callable[..., Pair]) -> None:
    checkpoint.save(tmp_path, 1, *pair(), {"try": 1})
    path = checkpoint.save(tmp_path, 1, *pair(seed=3), {"try": 2})
    assert json.loads((path / checkpoint.STATE).read_text())["try"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_weights_alone(tmp_path: Path, pair: Callable[..., Pair]) -> None:
    saved, (model, _) = pair(), pair(seed=1)
    checkpoint.load_weights(checkpoint.save(tmp_path, 1, *saved, {}), model)
    for (_, ours), (_, theirs) in zip(
        tree_flatten(model.parameters()), tree_flatten(saved[0].parameters()), strict=True
    ):
        assert mx.array_equal(ours, theirs)  # type: ignore[arg-type]


def test_order_and_prune(tmp_path: Path, pair: Callable[..., Pair]) -> None:
    state = pair()
    for step in (999_999, 5, 1_000_000, 40):
        checkpoint.save(tmp_path, step, *state, {})
    (tmp_path / ".step-000050.tmp").mkdir()
    (tmp_path / "step-old").mkdir()
    names = ["step-000005", "step-000040", "step-999999", "step-1000000"]
    assert [path.name for path in checkpoint.all_checkpoints(tmp_path)] == names
    checkpoint.prune(tmp_path, 2)
    assert [path.name for path in checkpoint.all_checkpoints(tmp_path)] == names[2:]
    assert checkpoint.all_checkpoints(tmp_path / "nowhere") == []


def test_what_fails_leaves_nothing(tmp_path: Path, pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint before it is as it was."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    checkpoint.save(tmp_path, 1, *pair(), {})
    monkeypatch.setattr(disk, "flush", full)
    for step in (1, 2):
        with pytest.raises(UserError, match=f"step {step} could not be written to .*: No space left on device"):
            checkpoint.save(tmp_path, step, *pair(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.STATE])
@pytest.mark.parametrize("kept", [0, 5, 8, -1])
def test_cut_short(name: str, kept: int, tmp_path: Path, pair: Callable[..., Pair]) -> None:
    path = checkpoint.save(tmp_path, 1, *pair(), {})
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:-4] if kept < 0 else content[:kept])
    with pytest.raises(checkpoint.Damaged, match=rf"step-000001 is damaged \({name} does not match its checksum\)"):
        checkpoint.load(path, *pair())


def test_of_another_model(tmp_path: Path, pair: Callable[..., Pair], tiny: Callable[..., ModelConfig]) -> None:
    path = checkpoint.save(tmp_path, 1, *pair(), {})
    other = Transformer(tiny(hidden_size=16)), make_optimizer(TrainRecipe())
    told = r"does not fit the recipe: in model\.safetensors .* is float32 \[40, 32\] and should be float32 \[40, 16\]"
    with pytest.raises(UserError, match=told):
        checkpoint.load(path, *other)
    with pytest.raises(UserError, match="does not fit the recipe"):
        checkpoint.load_weights(path, other[0])


def test_of_another_optimizer(tmp_path: Path, pair: Callable[..., Pair]) -> None:
    model, optimizer = pair()
    path = checkpoint.save(tmp_path, 1, model, optimizer, {})
    kind = "muon" if isinstance(optimizer, optim.Adam) else "adamw"
    with pytest.raises(UserError, match=r"in optimizer\.safetensors .* (should be absent|is missing)"):
        checkpoint.load(path, model, make_optimizer(TrainRecipe(optimizer=kind)))
