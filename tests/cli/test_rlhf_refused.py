"""`tinytale rlhf`: what can't work is refused in one sentence that says why, and leaves no run behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from preferring import SMALL, rows, write_rows

MINE = """
calls = 0

def raising(sample):
    raise KeyError("smile")

def not_a_number(sample):
    return float("nan")

def until_it_fails(sample):
    global calls
    calls += 1
    if calls > 20:
        raise ValueError("no more")
    return calls
"""
LENGTH = ["--reward", "length:3"]


@pytest.fixture
def folder(base: Path) -> Path:
    """A folder of one's own with a base, rows, and functions that go wrong, as current folder."""
    write_rows(base / "pairs.jsonl", rows())
    write_rows(base / "labels.jsonl", [{"prompt": "A b", "completion": "c d", "label": True}])
    write_rows(base / "equal.jsonl", [{"prompt": "A b", "chosen": "c d", "rejected": "c d"}])
    write_rows(base / "empty.jsonl", [{"prompt": "A b", "chosen": "", "rejected": "c d"}])
    (base / "mine.py").write_text(MINE)
    return base


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["ppo", *SMALL], "nothing says how good a response is: add --reward-model RUN"),
        (["grpo", *SMALL, "--reward", "smiles"], "there is no reward 'smiles'; there are answer, contains"),
        (["grpo", *SMALL, "--reward", "length:long"], "the reward length needs a number"),
        (["ppo", *SMALL, "--reward", "none.py:f"], "there is no file none.py"),
        (
            ["ppo", *SMALL, "--reward", "mine.py:smiles"],
            "no function smiles in mine.py; there are not_a_number, raising",
        ),
        (["ppo", *SMALL, "--reward", "mine.py:raising"], "raised KeyError: 'smile', on sample 0 (prompt 'The dog"),
        (["ppo", *SMALL, "--reward", "mine.py:not_a_number"], "returned nan and not a finite number, on sample 0"),
        (["ppo", *SMALL, "--reward", "answer"], "the reward answer needs data with answers"),
        (["ppo", *SMALL, "--reward-model", "base"], "the run base is one of `tinytale train`, and no reward model"),
        (["ppo", *SMALL, "--reward-model", "none"], "none holds no reward model"),
        (["ppo", *SMALL, *LENGTH, "--set", "ppo.prompt_tokens=64"], "leave no room for a prompt and a response"),
        (["ppo", *SMALL, *LENGTH, "--set", "ppo.betta=1"], "there is no key ppo.betta; did you mean ppo.beta?"),
        (["ppo", *SMALL, *LENGTH, "--set", "tune.method=prefix"], "alignment trains lora, dora or full"),
        (["ppo", *SMALL, *LENGTH, "--rank", "999"], "rank 999 is more than"),
        (["reward"], "all prompts are longer than reward.prompt_tokens 32"),  # of the tales, for a context of 64
        (["reward", "--data", "none.jsonl"], "none.jsonl: there is no such file"),
        (["reward", "--data", "equal.jsonl"], "equal.jsonl, line 1: chosen and rejected are the same"),
        (["reward", "--data", "empty.jsonl"], "empty.jsonl, line 1: the chosen is empty"),
        (["reward", "--data", "labels.jsonl"], "this is a labelled response"),
        (["dpo", "--method", "kto", "--data", "labels.jsonl"], "a data.validation of 0.1 leaves none for validation"),
        (["dpo", *SMALL, "--method", "cpo"], "dpo.method: input should be 'dpo', 'ipo'"),
        (["dpo", *SMALL, "--beta", "-1"], "dpo.beta: input should be greater than 0"),
        (["dpo", *SMALL, "--lora", "--full"], "--lora and --full are two methods"),
        (["dpo", *SMALL, "--set", "train.precision=bfloat16"], "train.precision means nothing"),
        (["dpo", "none"], "there is no run none"),
        (["dpo", "--resume"], "the run base is one of `tinytale train`"),
        (["dpo", "base", "--resume"], "a run that is resumed has its model already"),
    ],
)
def test_refused(command: list[str], said: str, folder: Path, tinytale: Callable[..., Any]):
    assert said in tinytale("rlhf", *command).complaint
    assert [path.name for path in (folder / "runs").glob("[!.]*") if not path.is_symlink()] == ["base"]


def test_what_was_learned_is_kept_when_a_reward_fails(folder: Path, tinytale: Callable[..., Any]):
    how = ["--steps", "9", "--batch-size", "2", "--group-size", "2", "--set", "train.validate_every=20"]
    said = tinytale("rlhf", "grpo", "base", *SMALL, *how, "--reward", "mine.py:until_it_fails").complaint
    assert "ValueError: no more, on sample" in said
    assert "all 3 iterations before it are saved" in said
    assert "`tinytale rlhf grpo --resume --name base-grpo` goes on" in said
    mended = MINE.replace("calls > 20", "calls > 9000")
    (folder / "mine.py").write_text(mended)
    found = tinytale("rlhf", "grpo", "--resume", "--name", "base-grpo", "--json").json
    assert (found["steps"], found["status"]) == (9, "finished")


def test_a_model_that_ends_nothing_is_warned_of_once(folder: Path, tinytale: Callable[..., Any]):
    how = ["--steps", "2", "--batch-size", "2", "--group-size", "2", "--set", "grpo.response_tokens=1"]
    said = tinytale("rlhf", "grpo", "base", *SMALL, *how, *LENGTH).err
    assert said.count("none of 4 responses ended within response_tokens 1") == 1


def test_another_recipe_is_another_run(folder: Path, tinytale: Callable[..., Any]):
    how = ["--steps", "1", "--batch-size", "2", "--group-size", "2", *LENGTH]
    assert tinytale("rlhf", "grpo", "base", *SMALL, *how).code == 0
    refused = tinytale("rlhf", "grpo", "--resume", "--beta", "0.3").complaint
    assert "grpo.kl: 0.2 -> 0.3" in refused
    assert refused.endswith("start a new run")
    write_rows(folder / "pairs.jsonl", rows()[:40])
    assert "the examples of the run base-grpo are not what they were" in tinytale("rlhf", "grpo", "--resume").complaint
