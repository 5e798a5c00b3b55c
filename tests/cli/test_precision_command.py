"""16-bit training from the command line: what it saves is float32, and it resumes to the bit, loss scale and all."""

import hashlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tinytale_mlx import stages
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe_files import load

KEYS = [
    "train.steps=10", "train.validate_every=4", "train.save_every=100", "train.sample_every=100",
    "train.validation_batches=1",
]  # fmt: skip
HALF = [*KEYS, "train.precision=float16", "train.loss_scale=67108864", "train.loss_scale_window=2"]
"""From a scale that overflows; and it rises again so often that it overflows again and again."""


def events(name: str, *kinds: str) -> list[dict[str, Any]]:
    lines = map(json.loads, Path("runs", name, "log.jsonl").read_text().splitlines())
    return [event for event in lines if event["event"] in kinds]


def digests(name: str) -> dict[str, str]:
    """Of the last checkpoint, state and all but its clock; and of the model."""
    run = Path("runs", name)
    files = [*(run / "checkpoints" / "step-000010").glob("*.safetensors"), run / "model" / "model.safetensors"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def state(name: str, step: int) -> dict[str, Any]:
    return json.loads(Path("runs", name, "checkpoints", f"step-{step:06}", "state.json").read_text())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_what_is_saved_has_32_bits(precision: str, nano: Path) -> None:
    result = stages.train(load("nano.yaml", [*KEYS, f"train.precision={precision}", "train.ema=0.9"]), precision)
    run = result.run.path
    for file in [*run.glob("checkpoints/*/*.safetensors"), run / "model" / "model.safetensors"]:
        arrays = mx.load(str(file))
        assert {a.dtype for a in arrays.values() if mx.issubdtype(a.dtype, mx.floating)} == {mx.float32}, file  # type: ignore[union-attr]
    exact = stages.train(load("nano.yaml", [*KEYS, "train.ema=0.9"]), "exact")
    assert result.figures["val_loss"] == pytest.approx(exact.figures["val_loss"], abs=0.02)


def test_float16_resumes_to_the_bit(nano: Path) -> None:
    """Stopped between two overflows; what it did until then is in state.json."""
    recipe = load("nano.yaml", HALF)
    stages.train(recipe, "whole")
    stages.train(recipe, "cut", stop_requested=lambda: len(events("cut", "step", "overflow")) >= 5)
    stopped = max(event["step"] for event in events("cut", "step", "overflow"))
    assert stopped < 10
    assert state("cut", stopped)["loss_scale"]["value"] < 2**26
    stages.train(recipe, "cut", resume=True)
    assert digests("cut") == digests("whole")
    assert state("cut", 10)["loss_scale"] == state("whole", 10)["loss_scale"]
    scales = [[(e["step"], e["loss_scale"]) for e in events(name, "overflow")] for name in ("whole", "cut")]
    assert scales[0] == scales[1]
    assert len(scales[0]) >= 2
    assert {event["loss_scale"] for event in events("whole", "step")} > {scales[0][-1][1]}


def test_a_loss_that_is_not_finite_says_which_rows(nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of the data that are not finite, in the third step; the checkpoint before is the one to go on from."""
    recipe = load("nano.yaml", [*KEYS, "train.save_every=2", "train.learning_rate=0.001"])
    take = stages.training.Session.batch_at  # type: ignore[attr-defined]

    def poisoned(session: Any) -> Any:
        class Manager:
            def __enter__(self):
                self.inner = take(session)
                batch_at = self.inner.__enter__()
                return lambda number: (
                    batch_at(number)
                    if number != 5
                    else batch_at(number)._replace(weights=batch_at(number).weights * float("nan"))
                )

            def __exit__(self, *error: object):
                return self.inner.__exit__(*error)  # type: ignore[arg-type]

        return Manager()

    monkeypatch.setattr(stages.training.Session, "batch_at", poisoned)  # type: ignore[attr-defined]
    with pytest.raises(UserError) as refusal:
        stages.train(recipe, "bad")
    message = str(refusal.value)
    assert "the loss became nan at step 3 (rows 16 to 23 of the order of training; the first begins '" in message
    assert "the last checkpoint is that of step 2" in message
    assert [path.name for path in Path("runs/bad/checkpoints").iterdir()] == ["step-000002"]
    (event,) = events("bad", "nonfinite")
    assert (event["step"], event["first_batch"], event["last_batch"]) == (3, 4, 5)
    skipping = load("nano.yaml", [*KEYS, "train.skip_nonfinite=1"])
    assert stages.train(skipping, "good").progress.step == 10
    assert [event["step"] for event in events("good", "nonfinite")] == [3]
