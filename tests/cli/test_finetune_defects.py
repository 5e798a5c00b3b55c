"""What mlx-lm 0.32.2's trainer gets wrong, seventeen things in all, asked of ours.

Their numbers are those of our notes. What is tested where the part itself is: 1 and 9 in `data/test_binning.py`, 4 in
`tuning/test_lora_layers.py`, 5 in `test_finetune_killed.py`, 8 in `training/test_losses.py` and `test_chunked_loss.py`,
10 in `training/test_step.py`, 11 in `tokenizers/test_chat_template.py` and `test_jinja_templates.py`, 13 in
`training/test_gradient_checkpointing.py`, 17 in the tests of `interop`. Here is what only a whole fine-tuning shows.
"""

import json
import math
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tinytale_mlx import recipe_files, stages
from tinytale_mlx.data.binning import BinnedBatches
from tinytale_mlx.data.masks import Encoding
from tinytale_mlx.models.parameters import named_arrays
from tinytale_mlx.recipe import FinetuneRecipe
from tinytale_mlx.stages.adapting import load_base
from tinytale_mlx.stages.finetune_data import Examples, read_examples

QUIET = ["train.validate_every=100", "train.sample_every=100", "train.save_every=100", "train.log_every=1"]


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> None:
    path.write_text("".join(json.dumps({"question": one, "answer": two}) + "\n" for one, two in pairs))


def tune(name: str, *changes: str) -> list[dict[str, Any]]:
    """Fine-tune the base; the events of the log."""
    stages.finetune(stages.finetune_recipe("base", [*QUIET, *changes]), name)
    return [json.loads(line) for line in Path("runs", name, "log.jsonl").read_text().splitlines()]


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def examples(*changes: str) -> Examples:
    recipe = stages.finetune_recipe("base", list(changes))
    return read_examples(recipe, load_base("base", Path("runs")), 64, None)


def count(one: Examples) -> int:
    """Batches in an epoch."""
    assert isinstance(one.batches, BinnedBatches)
    return one.batches.count


def answers_in(one: Examples, number: int) -> list[tuple[int, ...]]:
    """The tokens of each row of a batch that are trained."""
    batch = one.batch_at(number)
    trained = [row[1:][weights > 0] for row, weights in zip(batch.tokens, batch.weights, strict=True)]
    return [tuple(map(int, row)) for row in trained]


def test_1_and_9_batches_of_like_length_that_change_and_leave_nobody_out(base: Path):
    """Their sort by length compared the number of keys; the last examples that filled no batch were never seen; and
    the same examples met in every epoch."""
    write_pairs(base / "ten.jsonl", [(f"Say {'very ' * (i % 5)}{i}", f"It is {i}.") for i in range(10)])
    found = examples("data.source=ten.jsonl", "train.batch_size=4")
    each = [[answers_in(found, number + epoch * count(found)) for number in range(count(found))]
            for epoch in range(3)]  # fmt: skip
    everybody = Counter(answer for batch in each[0] for answer in batch)
    assert sum(everybody.values()) == len(everybody) == 10
    assert all(Counter(answer for batch in epoch for answer in batch) == everybody for epoch in each)
    assert found.figures()["filled"] > 0.9
    alike = examples("data.source=identity", "train.batch_size=4")
    epochs = [
        {frozenset(answers_in(alike, number + epoch * count(alike))) for number in range(count(alike))}
        for epoch in range(2)
    ]
    assert epochs[0] != epochs[1]


def test_2_padding_is_never_a_target(base: Path):
    """Theirs trained one token of padding in every padded row, and counted it."""
    write_pairs(base / "two.jsonl", [("Who?", "I."), ("And who is that over there?", "That one is the king.")])
    found = examples("data.source=two.jsonl", "train.batch_size=2")
    tokenizer = stages.load("base").tokenizer
    texts = sorted(tokenizer.decode(row) for number in range(count(found)) for row in answers_in(found, number))
    assert texts == ["I.", "That one is the king."]
    log = tune("two", "data.source=two.jsonl", "train.batch_size=2", f"train.steps={count(found)}")
    assert of_kind(log, "step")[-1]["tokens"] == of_kind(log, "examples")[0]["trained_tokens"]
    assert of_kind(log, "examples")[0]["trained_tokens"] == sum(
        len(tokenizer.encode(f"{text}<|im_end|>")) for text in texts
    )


@pytest.mark.parametrize("rule", ["drop", "truncate"])
def test_3_a_prompt_that_fills_the_context_is_no_nan(rule: str, base: Path):
    write_pairs(base / "long.jsonl", [("word " * 200, "Yes.")] * 3 + [("Who?", "I.")] * 2)
    log = tune("long", "data.source=long.jsonl", "train.steps=4", "train.batch_size=1", f"data.too_long={rule}")
    assert of_kind(log, "examples")[0]["left_out"] == {"too_long_dropped": 3}
    assert all(math.isfinite(event["loss"]) and event["grad_norm"] > 0 for event in of_kind(log, "step"))
    weights: Any = mx.load("runs/long/adapter/adapters.safetensors")
    assert all(mx.isfinite(array).all().item() for array in weights.values())


def test_3_a_loss_that_is_no_number_stops_the_training(base: Path, tinytale: Callable[..., Any]):
    """And is never saved."""
    model = load_base("base", Path("runs")).model
    arrays = dict(named_arrays(model.parameters()))
    name = next(name for name in arrays if name.endswith("up_proj.weight"))
    arrays[name] = mx.full(arrays[name].shape, math.nan)
    mx.save_safetensors("runs/base/model/model.safetensors", arrays, metadata={"format": "mlx"})
    said = tinytale("finetune", "base", "--data", "identity", "--steps", "3").complaint
    assert "the loss became nan at step 1" in said
    assert not Path("runs/base-lora").exists()


def test_6_what_is_asked_for_arrives(base: Path, tinytale: Callable[..., Any]):
    """One of their options never reached the trainer."""
    options = {
        "--rank": ("3", "tune.rank"), "--template": ("alpaca", "data.template"), "--steps": ("2", "train.steps"),
        "--batch-size": ("5", "train.batch_size"), "--learning-rate": ("0.004", "train.learning_rate"),
        "--seed": ("7", "seed"), "--data": ("identity", "data.source"),
    }  # fmt: skip
    words = [word for option, (value, _) in options.items() for word in (option, value)]
    assert tinytale("finetune", "base", "--dora", *words, "--name", "asked", "--json").code == 0
    kept = recipe_files.load_finetune(Path("runs/asked/recipe.yaml"))
    assert [str(_at(kept, key)) for _, key in options.values()] == [value for value, _ in options.values()]
    assert kept.tune.method == "dora"
    weights: Any = mx.load("runs/asked/adapter/adapters.safetensors")
    assert {array.shape[1] for name, array in weights.items() if name.endswith("lora_a")} == {3}
    assert {name.rpartition(".")[2] for name in weights} == {"lora_a", "lora_b", "m"}


def _at(recipe: FinetuneRecipe, key: str) -> Any:
    found: Any = recipe
    for part in key.split("."):
        found = getattr(found, part)
    return found


class Book:
    """A tracker that writes down what it gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, run: Any, recipe: Any, resumed: bool) -> None:
        self.calls.append(("start", run.name, recipe.tune.method, resumed))

    def log(self, event: dict[str, Any]) -> None:
        self.calls.append(("log", event["event"]))

    def end(self, status: str) -> None:
        self.calls.append(("end", status))


def test_7_who_wants_to_hear_of_it_does(base: Path):
    """They overwrote the callback that one gave them."""
    book, heard = Book(), []
    recipe = stages.finetune_recipe("base", [*QUIET, "data.source=identity", "train.steps=2"])
    stages.finetune(recipe, "heard", notify=heard.append, trackers=[book])
    for kinds in ([call[1] for call in book.calls if call[0] == "log"], [event["event"] for event in heard]):
        assert [kind for kind in kinds if kind in ("start", "step", "end")] == ["start", "step", "step", "end"]
    assert (book.calls[0], book.calls[-1]) == (("start", "heard", "lora", False), ("end", "finished"))
    stages.finetune(recipe_files.load_finetune(Path("runs/heard/recipe.yaml")), "heard", True, trackers=[book])
    assert ("start", "heard", "lora", True) in book.calls


def test_12_full_is_all_of_it(base: Path, tinytale: Callable[..., Any]):
    """Theirs left out the embeddings, the last norm and the head; and 0 layers meant all of them."""
    before: Any = mx.load("runs/base/model/model.safetensors")
    log = tune("whole", "tune.method=full", "data.source=identity", "train.steps=3", "train.final_model=last")
    after: Any = mx.load("runs/whole/model/model.safetensors")
    assert before.keys() == after.keys()
    assert [name for name in before if mx.array_equal(before[name], after[name]).item()] == []
    (start,) = of_kind(log, "start")
    assert start["trained_parameters"] == start["parameters"]
    said = tinytale("finetune", "base", "--data", "identity", "--set", "tune.layers=0").complaint
    assert "tune.layers" in said


def test_12_an_adapter_is_on_every_layer_unless_fewer_are_asked_for(base: Path):
    tune("all", "data.source=identity", "train.steps=1")
    tune("last", "data.source=identity", "train.steps=1", "tune.layers=1")
    found: dict[str, Any] = {name: mx.load(f"runs/{name}/adapter/adapters.safetensors") for name in ("all", "last")}
    layers = {run: {name.split(".layers.")[1][0] for name in weights} for run, weights in found.items()}
    assert layers == {"all": {"0", "1"}, "last": {"1"}}


def test_13_recomputing_concerns_the_model_that_asked_for_it(base: Path):
    """They replaced the method of the class, for all models and once more each time."""
    before = [type(layer).__call__ for layer in load_base("base", Path("runs")).model.layers]
    for name in ("one", "two"):
        tune(name, "data.source=identity", "train.steps=1", "train.gradient_checkpointing=block")
    model = load_base("base", Path("runs")).model
    assert [type(layer).__call__ for layer in model.layers] == before
    assert all("__call__" not in vars(layer) for layer in model.layers)


def test_14_the_best_weights_are_the_result_and_enough_is_enough(base: Path, tinytale: Callable[..., Any]):
    """Theirs were the last ones, and it went on to the last step."""
    write_pairs(base / "other.jsonl", [(f"What about {i * i}?", f"{i} {i + 7}, {i % 3} so!") for i in range(9)])
    worse = ["data.source=identity", "data.validation_source=other.jsonl", "train.learning_rate=0.3",
             "train.steps=30", "train.schedule=constant", "train.warmup_steps=0", "train.early_stopping=3"]  # fmt: skip
    every = ["train.validate_every=1", "train.save_every=1", "train.sample_every=100"]
    stages.finetune(stages.finetune_recipe("base", [*worse, *every]), "worse")
    log = [json.loads(line) for line in Path("runs/worse/log.jsonl").read_text().splitlines()]
    losses = {event["step"]: event["val_loss"] for event in of_kind(log, "validation")}
    (end,) = of_kind(log, "end")
    best = min(losses, key=lambda step: losses[step])
    assert end["steps"] == best + 3 < 30
    assert [event["step"] for event in of_kind(log, "best")] == [best]
    assert end["val_loss"] == pytest.approx(losses[best], abs=1e-6)
    assert tinytale("eval", "worse", "--json").json["loss"] == pytest.approx(losses[best], abs=1e-5)


def test_15_every_figure_is_shown_and_kept(base: Path, tinytale: Callable[..., Any]):
    """Memory, learning rate and speed are not on their screen any more, and the norm of the gradient never was."""
    quiet = [word for key in QUIET for word in ("--set", key)]
    said = tinytale("finetune", "base", "--data", "identity", "--steps", "2", "--name", "seen", *quiet)
    (line,) = [line for line in said.out.splitlines() if line.startswith("step      2")]
    assert all(word in line for word in ("loss", "tokens/s", "lr", "MB"))
    log = [json.loads(line) for line in Path("runs/seen/log.jsonl").read_text().splitlines()]
    kept = ("loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "peak_memory_bytes", "seconds")
    assert all(isinstance(of_kind(log, "step")[-1][name], int | float) for name in kept)


def test_16_a_file_of_examples_is_never_in_memory_as_a_whole(base: Path, monkeypatch: pytest.MonkeyPatch):
    """What is kept of an example are its tokens; here all but a few are too long to be kept."""
    with (base / "large.jsonl").open("w") as file:
        for number in range(600):
            file.write(json.dumps({"question": f"{number} " * 800, "answer": "No."}) + "\n")
        for number in range(5):
            file.write(json.dumps({"question": f"{number}?", "answer": "Yes."}) + "\n")
    size = (base / "large.jsonl").stat().st_size
    recipe = stages.finetune_recipe("base", ["data.source=large.jsonl", "data.validation=0"])
    loaded = load_base("base", Path("runs"))
    monkeypatch.setattr(loaded.tokenizer, "encode", lambda text, special: list(text.encode()))  # a fast one
    tracemalloc.start()
    found = read_examples(recipe, loaded, 64, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(found.train), found.held_out) == (5, False)
    assert peak < size / 4


def test_16_examples_are_kept_as_numbers(base: Path):
    """Two bytes for a token and one for its weight."""
    encoding = Encoding(stages.load("base").tokenizer, 64)
    chat = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    for _ in range(100):
        encoding.add(chat)
    made = encoding.finish()
    assert (made.tokens.dtype, made.weights.dtype) == (np.uint16, np.uint8)
    assert len(made) == 100
