"""`tinytale generate`: completions, the same as other programs make of the model directory."""

import subprocess
import sys
from pathlib import Path

import pytest

PROMPT = "One day, a fox"


def greedy(tinytale, prompt: str = PROMPT) -> str:
    result = tinytale("generate", "--prompt", prompt, "--temperature", "0", "-m", "20", "--json").json
    return result["completions"][0]["text"]


def test_json(trained: Path, tinytale) -> None:
    result = tinytale("generate", "-p", PROMPT, "-p", "The", "-n", "2", "-m", "7", "--json").json
    assert len(result["completions"]) == 4
    for one in result["completions"]:
        assert set(one) == {"text", "tokens", "finish_reason"}
        assert one["finish_reason"] == ("length" if one["tokens"] == 7 else "stop")
        assert one["tokens"] <= 7
    assert result["tokens_per_second"] > 0


def test_text(trained: Path, tinytale) -> None:
    """The prompt and what follows; several are apart by an empty line."""
    result = tinytale("generate", "-p", PROMPT, "-n", "2", "-m", "5")
    assert result.code == 0
    assert result.err == ""
    assert result.out.count(PROMPT) == 2
    assert result.out.endswith("\n\n")


def test_prompt_from_stdin(trained: Path, tinytale) -> None:
    arguments = ["generate", "-t", "0", "-m", "5", "--json", "-p"]
    assert (
        tinytale(*arguments, "-", stdin=PROMPT).json["completions"] == tinytale(*arguments, PROMPT).json["completions"]
    )


def test_seed(trained: Path, tinytale) -> None:
    texts = [tinytale("generate", "-t", "1", "--seed", seed, "-m", "20").out for seed in ("1", "1", "2")]
    assert texts[0] == texts[1] != texts[2]


def test_completions_of_one_prompt_differ(trained: Path, tinytale) -> None:
    first, second = tinytale("generate", "-t", "1", "-n", "2", "-m", "20", "--json").json["completions"]
    assert first["text"] != second["text"]


@pytest.mark.parametrize("reference", ["nano", "latest", "runs/nano", "runs/nano/", "runs/nano/model"])
def test_ways_to_name_a_model(reference: str, trained: Path, tinytale) -> None:
    arguments = ["-t", "0", "-m", "5"]
    assert tinytale("generate", reference, *arguments).out == tinytale("generate", *arguments).out


def test_from_a_run_that_has_not_finished(nano: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its newest checkpoint speaks."""
    from tinytale_mlx.training import loop

    def stop(step: int, train: object) -> float:
        raise KeyboardInterrupt

    rate = loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", lambda step, train: (stop if step == 7 else rate)(step, train))
    assert tinytale("train", nano).code == 130
    assert tinytale("info", "--json").json["model"] == "runs/nano/checkpoints/step-000005"
    assert tinytale("generate", "-m", "5").code == 0
    assert tinytale("eval", "--json").json["loss"] > 0


# ---------------------------------------------------------------------- beside mlx-lm
def test_same_tokens_as_mlx_lm(trained: Path, tinytale) -> None:
    from mlx_lm import load, stream_generate
    from mlx_lm.sample_utils import make_sampler

    model, tokenizer = load("runs/nano/model")[:2]
    for prompt in (PROMPT, "", "caf\u00e9 \N{DRAGON}"):
        pieces = stream_generate(model, tokenizer, prompt, max_tokens=20, sampler=make_sampler(temp=0.0))
        text = tokenizer.decode([piece.token for piece in pieces], skip_special_tokens=True)
        assert text == greedy(tinytale, prompt)


@pytest.mark.slow
def test_same_text_as_the_command_of_mlx_lm(trained: Path, tinytale) -> None:
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", "runs/nano/model"]
    said = subprocess.run(
        [*command, "--prompt", PROMPT, "--ignore-chat-template", "--temp", "0", "--max-tokens", "20"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split("==========\n")[1].removesuffix("\n") == greedy(tinytale)
