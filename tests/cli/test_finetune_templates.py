"""Fine-tuning a model that brings its own chat template: it learns, talks and is saved in that one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx import stages

MINE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ 'bot' if m['role'] == 'assistant' else 'human' }}: "
    "{{ m['content'] }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>bot: {% endif %}"
)
"""As nobody else writes it. The space at its end would stick to an answer's first word, were that encoded with it."""
ASKED = [{"role": "user", "content": "Who are you?"}]
SHORT = ["--data", "identity", "--steps", "2"]


@pytest.fixture
def theirs(base: Path) -> Path:
    """A directory of a model of ours with somebody's template, in the folder of the base."""
    shutil.copytree(base / "runs" / "base" / "model", base / "theirs")
    (base / "theirs" / "chat_template.jinja").write_text(MINE)
    return base / "theirs"


@pytest.mark.parametrize(("method", "result"), [("--lora", "adapter"), ("--full", "model")])
def test_it_is_trained_and_saved_and_used(method: str, result: str, theirs: Path, tinytale: Callable[..., Any]):
    made = tinytale("finetune", theirs, method, *SHORT, "--name", "mine", "--json")
    assert made.code == 0, made.err
    folder = theirs.parent / "runs" / "mine"
    assert (folder / result / "chat_template.jinja").read_text() == MINE
    assert "template: null" in (folder / "recipe.yaml").read_text()
    loaded = stages.load("mine")
    text = loaded.tokenizer.decode(loaded.encode(ASKED), skip_special=False)
    assert text == "<|bos|><|im_start|>human: Who are you?<|im_end|><|im_start|>bot: "
    assert tinytale("eval", "mine", "--json").json["loss"] == pytest.approx(made.json["val_loss"], abs=1e-5)
    assert tinytale("finetune", "--resume", "--name", "mine", "--json").json["val_loss"] == made.json["val_loss"]
    made = stages.fuse_adapter("mine", Path("fused")) if result == "adapter" else {"model": folder / "model"}
    assert Path(made["model"], "chat_template.jinja").read_text() == MINE


def test_exactly_the_answers_count(theirs: Path, tinytale: Callable[..., Any]):
    answers = ["I am.", "You are."]
    contents = ["Who is?", answers[0], "And?", answers[1]]
    chat = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    Path("chat.jsonl").write_text(json.dumps({"messages": chat}))
    assert tinytale("finetune", theirs, "--data", "chat.jsonl", "--steps", "1", "--name", "one", "--json").code == 0
    lines = map(json.loads, Path("runs/one/log.jsonl").read_text().splitlines())
    (event,) = (line for line in lines if line["event"] == "examples")
    tokenizer = stages.load("one").tokenizer
    assert event["template"] == "own"
    assert event["trained_tokens"] == sum(len(tokenizer.encode(f"{text}<|im_end|>")) for text in answers)


def test_another_one_can_be_asked_for(theirs: Path, tinytale: Callable[..., Any]):
    assert tinytale("finetune", theirs, *SHORT, "--template", "question", "--name", "other", "--json").code == 0
    text = stages.load("other").tokenizer.decode(stages.load("other").encode(ASKED))
    assert text == "Question: Who are you?\nAnswer:"


def test_what_was_tuned_in_one_template_is_tuned_again_in_it(base: Path, tinytale: Callable[..., Any]):
    """Not in ChatML, whose markers the tokenizer has."""
    assert tinytale("finetune", "base", "--full", *SHORT, "--template", "alpaca", "--name", "first", "--json").code == 0
    assert tinytale("finetune", "first", *SHORT, "--name", "second", "--json").code == 0
    assert "template: alpaca" in Path("runs/second/recipe.yaml").read_text()


def test_a_template_that_does_not_show_where_answers_end(theirs: Path, tinytale: Callable[..., Any]):
    (theirs / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    said = tinytale("finetune", theirs, *SHORT).complaint
    assert "the model's chat template has no mark for the end of an answer" in said
    assert "--template chatml" in said
    assert not Path("runs/theirs-lora").exists()
    assert tinytale("finetune", theirs, *SHORT, "--template", "chatml", "--json").code == 0
    (theirs / "chat_template.jinja").write_text("{% if %}")
    assert "the chat template is not valid" in tinytale("finetune", theirs, *SHORT).complaint
