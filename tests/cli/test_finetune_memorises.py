"""TinyLLM's check of a fine-tuning: fifty questions about itself, learned by heart, answered word by word."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from bases import train_base

from tinytale_mlx import stages
from tinytale_mlx.cli.app import main
from tinytale_mlx.data.tales import IDENTITY

BASE = """
name: mini
data: {source: tales, documents: 2000, rows: documents, validation: 0.02}
tokenizer: {kind: bpe, vocab_size: 1024}
model: {hidden_size: 128, layers: 3, heads: 4, intermediate_size: 256, context: 96, qk_norm: true, residual_init: zero}
train: {steps: 150, batch_size: 8, optimizer: muon, learning_rate: 1e-2, warmup_steps: 10, schedule: linear}
generate: {max_new_tokens: 40}
"""
METHODS = {
    "full": ("150", "3e-3", []),
    "lora": ("200", "1e-2", ["--rank", "16"]),
    "qlora": ("200", "1e-2", ["--rank", "16"]),
}


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small base that knows the tales a little."""
    folder = tmp_path_factory.mktemp("mini")
    train_base(folder, recipe=BASE)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_who_are_you(method: str, mini: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.chdir(mini)
    steps, rate, more = METHODS[method]
    seldom = ["--set", "train.validate_every=100", "--set", "train.sample_every=1000"]
    how = ["--data", "identity", "--steps", steps, "--learning-rate", rate, "--name", method, *seldom, *more]
    main_quietly(["finetune", "mini", f"--{method}", *how])
    capsys.readouterr()
    loaded = stages.load()  # the latest run is the tuned one
    known = 0
    for pair in IDENTITY:
        said = stages.generate(loaded, [{"role": "user", "content": pair["question"]}], temperature=0)
        known += str(said) == pair["answer"]
        if pair["question"] == "Who are you?":
            assert str(said) == pair["answer"]
            assert len(said.tokens) < 40  # it stopped by itself
    assert known >= 48


def main_quietly(arguments: list[str]) -> None:
    with contextlib.suppress(SystemExit):
        main([*arguments, "--json"])
