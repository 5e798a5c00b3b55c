"""Fine-tuning, fusing and quantizing: what can't be done is said in one sentence, and leaves nothing behind."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx import device, stages
from tinytale_mlx.tokenizers import ByteBPE

PICKLED = b"\x80\x04cos\nsystem\n"
"""How a file begins that would run a command if it were unpickled."""


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with a copy of the finished run `nano`, as current folder."""
    shutil.copytree(trained / "runs" / "nano", tmp_path / "runs" / "nano")
    (tmp_path / "runs" / "latest").symlink_to("nano")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAINING = [
    (["--set", "tune.targets=[zz_proj]"], ["no layer matches the target 'zz_proj'", "q_proj", "down_proj"]),
    (["--rank", "0"], ["tune.rank 0 leaves nothing to learn"]),
    (["--rank", "999"], ["rank 999 is more than", "has"]),
    (["--set", "data.context=4"], ["no document is left to train on", "50 longer than the context of 4"]),
    (["--set", "data.context=999"], ["data.context 999 is more than the 32 tokens"]),
    (["--template", "lillm"], ["has no <r0> token"]),
    (["--template", "zz"], ["data.template", "'zz'"]),
    (["--set", "tune.rnak=4"], ["there is no key tune.rnak; did you mean tune.rank?"]),
    (["--lora", "--full"], ["--lora and --full are two methods; choose one"]),
    (["--prefix", "--prompt-tuning"], ["--prompt-tuning and --prefix are two methods; choose one"]),
    (["--full", "--rank", "4"], ["tune.rank means nothing to the method full"]),
    (["--wandb-model"], ["--wandb-model goes with --wandb PROJECT"]),
    (["--steps", "0"], ["train.steps: input should be greater than 0, not 0"]),
    (["--seed", "-1"], ["seed: input should be greater than or equal to 0, not -1"]),
    (["--name", "a/b"], ["a run's name is made of letters"]),
    (["--set", "tune.method=zz"], ["tune.method: input should be 'full', 'lora', 'dora', 'prompt' or 'prefix'"]),
    (["--set", "data.validation_source=nowhere.jsonl"], ["nowhere.jsonl: there is no such file or folder"]),
    (
        ["--qlora", "--set", "tune.quantize.group_size=128"],
        ["no matrix of the model can be quantized in groups of 128"],
    ),
    (["--set", "tune.layers=9"], ["the last 9 layers were asked for, and the model has 2"]),
    (["--set", "data.validation=0.0001"], ["leaves none for validation", "data.validation=0"]),
    (["--prefix", "--set", "data.rows=packed"], ["the method prefix stands before one text per row"]),
    (["--set", "train.epochs=2"], ["train.epochs is for training from scratch"]),
]


@pytest.mark.parametrize(("options", "words"), TRAINING, ids=lambda one: " ".join(one) if isinstance(one, list) else "")
def test_refused(options: list[str], words: list[str], folder: Path, tinytale: Callable[..., Any]):
    said = tinytale("finetune", "nano", "--data", "identity", *options).complaint
    assert [word for word in words if word not in said] == [], said
    assert [path.name for path in sorted((folder / "runs").iterdir()) if path.name != ".cache"] == ["latest", "nano"]
    assert (folder / "runs" / "latest").resolve().name == "nano"


def test_without_the_packages_of_trackers(folder: Path, monkeypatch: pytest.MonkeyPatch, tinytale: Callable[..., Any]):
    """Whether or not they are here."""
    for name, option in (("wandb", ["--wandb", "x"]), ("tensorboardX", ["--tensorboard"])):
        monkeypatch.setitem(sys.modules, name, None)
        said = tinytale("finetune", "nano", "--data", "identity", *option).complaint
        assert f"{option[0]} needs one more package: pip install 'tinytale[{option[0][2:]}]'" in said


EXAMPLES = {
    "": "some.jsonl is empty: it holds no document",
    "no json": "some.jsonl, line 1 is not valid JSON",
    '{"question": "Who?", "answer": " "}': "some.jsonl, line 1: the answer is empty",
    '{"messages": [{"role": "user", "content": "Hi"}]}': "some.jsonl, line 1: the assistant says nothing",
    '{"text": 3}': "some.jsonl, line 1: the field 'text' holds a number, not text",
    json.dumps({"question": "word " * 60, "answer": "Yes."}): "no document is left to train on: 1 longer than the",
}


@pytest.mark.parametrize("content", EXAMPLES)
def test_refused_examples(content: str, folder: Path, tinytale: Callable[..., Any]):
    Path("some.jsonl").write_text(content)
    assert EXAMPLES[content] in tinytale("finetune", "nano", "--data", "some.jsonl").complaint
    assert not Path("runs/nano-lora").exists()


def test_examples_to_validate_on_that_are_all_too_long(folder: Path, tinytale: Callable[..., Any]):
    Path("some.jsonl").write_text(json.dumps({"question": "word " * 60, "answer": "Yes."}))
    held_out = ["--set", "data.validation_source=some.jsonl"]
    said = tinytale("finetune", "nano", "--data", "identity", *held_out).complaint
    assert "no document is left to validate on: 1 longer than the context of 32" in said


def test_refused_bases(folder: Path, tinytale: Callable[..., Any]):
    assert "there is no run nowhere" in tinytale("finetune", "nowhere").complaint
    Path("odd").mkdir()
    Path("odd/config.json").write_text("{}")
    assert "odd/config.json: tinytale has no architecture" in tinytale("finetune", "odd").complaint
    assert "leave out nano, or name the run with --name" in tinytale("finetune", "nano", "--resume").complaint
    assert "there is no run nope" in tinytale("finetune", "--resume", "--name", "nope").complaint


def test_a_tokenizer_without_an_end(folder: Path, tinytale: Callable[..., Any]):
    """Without eos, and without the markers of ChatML, nothing could end an answer; without pad nothing is missing."""
    base = Path("runs/nano/model")
    ByteBPE.train("abc", 256, special_tokens=[]).save(base)
    (base / "chat_template.jinja").unlink()
    said = tinytale("finetune", str(base), "--data", "identity").complaint
    assert "this tokenizer has no end-of-text token (eos), which the template question needs" in said
    said = tinytale("finetune", str(base), "--data", "identity", "--template", "chatml").complaint
    assert "this tokenizer has no <|im_start|> token" in said
    ByteBPE.train("abc", 259, special_tokens=["</s>", "<|im_start|>", "<|im_end|>"]).save(base)
    short = ["--steps", "1", "--set", "data.too_long=truncate", "--json"]
    assert tinytale("finetune", str(base), "--data", "identity", *short).code == 0


def test_examples_that_are_too_long_are_counted(folder: Path, tinytale: Callable[..., Any]):
    rows = [{"question": "Who?", "answer": "I."}] * 4 + [{"question": "word " * 60, "answer": "Yes."}] * 3
    (folder / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = tinytale("finetune", "nano", "--data", "some.jsonl", "--steps", "1", "--json")
    assert "3 too long dropped" in result.err
    assert result.json["val_loss"] > 0


def test_a_model_that_can_not_fit(folder: Path, tinytale: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "usable_memory", lambda: 100_000)
    said = tinytale("finetune", "nano", "--full", "--data", "identity").complaint
    assert "MB at its peak, and 0 MB can be used here; add --lora, or" in said
    assert tinytale("finetune", "nano", "--full", "--data", "identity", "--steps", "1", "--force", "--json").code == 0


def test_pickled_weights_are_never_read(folder: Path, tinytale: Callable[..., Any]):
    weights = folder / "runs" / "nano" / "model"
    (weights / "model.safetensors").unlink()
    (weights / "pytorch_model.bin").write_bytes(PICKLED)
    assert "are pickled" in tinytale("finetune", str(weights), "--data", "identity").complaint
    adapter = folder / "peft"
    adapter.mkdir()
    (adapter / "adapter_model.bin").write_bytes(PICKLED)
    shutil.rmtree(weights)
    assert "is pickled" in tinytale("generate", "nano", "--adapter", "peft").complaint


def test_an_adapter_for_another_base(folder: Path, tinytale: Callable[..., Any]):
    assert tinytale("finetune", "nano", "--data", "identity", "--steps", "1", "--name", "one", "--json").code == 0
    short = ["--data", "identity", "--steps", "3", "--json"]
    assert tinytale("finetune", "nano", "--full", "--name", "two", *short).code == 0
    said = tinytale("generate", "two", "--adapter", "one").complaint
    assert "was trained on a model with the same shapes and other weights" in said
    assert tinytale("generate", "nano", "--adapter", "one", "-m", "2").code == 0
    assert tinytale("generate", "--adapter", "runs/one/adapter", "nano", "-m", "2").code == 0
    assert "is a whole model already" in tinytale("fuse", "two").complaint
    assert "is an adapter on another model; `tinytale fuse one`" in tinytale("finetune", "one").complaint
    assert (
        "is the recipe of a `tinytale finetune`, and this needs that of a"
        in tinytale("train", "--resume", "--name", "one").complaint
    )
    assert "is no fine-tuning" in tinytale("finetune", "--resume", "--name", "nano").complaint
    assert (
        "was started with another recipe (tune.rank: 8 -> 4)"
        in tinytale("finetune", "--resume", "--name", "one", "--rank", "4").complaint
    )


def test_replay_needs_a_run(folder: Path, tinytale: Callable[..., Any]):
    said = tinytale("finetune", "runs/nano/model", "--data", "identity", "--set", "data.replay=0.1").complaint
    assert "data.replay needs the text of the base" in said


def test_no_such_adapter(folder: Path, tinytale: Callable[..., Any]):
    assert "there is no adapter nowhere" in tinytale("generate", "nano", "--adapter", "nowhere").complaint
    assert "is no fine-tuning" in tinytale("fuse", "nano").complaint


def test_quantizing_refuses_what_it_can_not(folder: Path, tinytale: Callable[..., Any]):
    assert "bits 7 is not among those of the mode affine" in tinytale("quantize", "nano", "--bits", "7").complaint
    assert "'affine', 'mxfp4'" in tinytale("quantize", "nano", "--mode", "zz").complaint
    assert "in groups of 128" in tinytale("quantize", "nano", "--group-size", "128").complaint
    assert tinytale("quantize", "nano", "--group-size", "32", "--output", "small", "--json").code == 0
    assert "small exists" in tinytale("quantize", "nano", "--group-size", "32", "--output", "small").complaint
    assert "is quantized already" in tinytale("quantize", "small", "--output", "smaller").complaint
    assert (
        "below the 3 that the low format takes"
        in tinytale(
            "quantize", "nano", "--group-size", "32", "--bits", "2", "--budget", "1", "--output", "tiny"
        ).complaint
    )
    assert not Path("tiny").exists()
    assert stages.load("small").can_chat
