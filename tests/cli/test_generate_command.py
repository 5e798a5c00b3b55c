"""`tinytale generate`: completions, the same as other programs make of the model directory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pseudo_terminal import Terminal

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


# ---------------------------------------------------------------------- files
ROWS = [("The fox", "prompt"), ([{"role": "user", "content": "Who?"}], "messages"), ("A cat", "prompt")]


def test_a_file_of_prompts_to_a_file_of_texts(trained: Path, tinytale, tmp_path: Path) -> None:
    """The texts are those that the prompts have on the screen; a text file has them as on the screen."""
    (tmp_path / "prompts.txt").write_text("The fox\n\nA caf\u00e9\n", encoding="utf-8")
    arguments = ["generate", "-m", "6", "-t", "1", "-n", "2"]
    shown = tinytale(*arguments, "-p", "The fox", "-p", "A caf\u00e9").out
    result = tinytale(*arguments, "--prompts-file", tmp_path / "prompts.txt", "--output", tmp_path / "out.txt")
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("4 completions, ")
    assert (tmp_path / "out.txt").read_text("utf-8") == shown
    figures = tinytale(*arguments, "-f", tmp_path / "prompts.txt", "-o", tmp_path / "out.jsonl", "--json").json
    assert (figures["output"], figures["completions"]) == (str(tmp_path / "out.jsonl"), 4)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == ["The fox"] * 2 + ["A caf\u00e9"] * 2
    assert "".join(f"{row['prompt']}{row['text']}\n\n" for row in rows) == shown
    assert set(rows[0]) == {"prompt", "text", "tokens", "finish_reason"}


def test_prompts_as_json_lines(trained: Path, tinytale, tmp_path: Path) -> None:
    lines = [json.dumps({key: prompt}) for prompt, key in ROWS] + [json.dumps("Bare text")]
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n\n")
    found = tinytale("generate", "-f", tmp_path / "p.jsonl", "-o", tmp_path / "o.jsonl", "-m", "4", "--logprobs", "2")
    assert found.code == 0, found.err
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text("utf-8").splitlines()]
    assert [row.get("prompt", row.get("messages")) for row in rows] == [*(prompt for prompt, _ in ROWS), "Bare text"]
    assert all(len(one["alternatives"]) == 2 for row in rows for one in row["logprobs"])


def test_many_prompts_are_the_same_as_few(trained: Path, tinytale, tmp_path: Path) -> None:
    """They are computed in groups, which changes nothing."""
    (tmp_path / "p.txt").write_text("".join(f"The {i}\n" for i in range(20)))
    arguments = ["generate", "-m", "3", "-t", "1", "--json"]
    many = tinytale(*arguments, "-f", tmp_path / "p.txt").json["completions"]
    (tmp_path / "p.txt").write_text("".join(f"The {i}\n" for i in range(3)))
    assert tinytale(*arguments, "-f", tmp_path / "p.txt").json["completions"] == many[:3]
    assert len(many) == 20


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.txt", None, "none.txt can't be read: No such file or directory"),
        ("empty.txt", b"\n \n", "empty.txt holds no prompt"),
        ("latin.txt", b"caf\xe9\n", "latin.txt is not UTF-8 text: byte 3 is 0xe9"),
        ("bad.jsonl", b'{"prompt": "a"}\nnonsense\n', "bad.jsonl, line 2: this is not JSON"),
        ("other.jsonl", b'{"text": "a"}\n', 'other.jsonl, line 1: there is no "prompt" and there are no "messages"'),
        ("texts.jsonl", b'{"messages": ["a"]}\n', 'texts.jsonl, line 1: there is no "prompt" and there are no "mess'),
    ],
)
def test_bad_files_of_prompts(
    name: str, content: bytes | None, said: str, trained: Path, tinytale, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = tinytale("generate", "-f", tmp_path / name)
    assert said in result.complaint
    assert result.out == ""


def test_where_the_texts_can_not_be_written(trained: Path, tinytale, tmp_path: Path) -> None:
    complaint = tinytale("generate", "-m", "2", "-o", tmp_path / "no" / "out.txt").complaint
    assert "the completions could not be written to" in complaint


def test_prompts_are_not_written_over(trained: Path, tinytale, tmp_path: Path) -> None:
    file, same = tmp_path / "p.txt", tmp_path / ".." / tmp_path.name / "p.txt"
    file.write_text("The fox\n")
    complaint = tinytale("generate", "-f", file, "-o", same).complaint
    assert "p.txt holds the prompts; give --output another name" in complaint
    assert file.read_text() == "The fox\n"


# ---------------------------------------------------------------------- how it is written
def texts(tinytale, *arguments: str) -> list[str]:
    return [one["text"] for one in tinytale("generate", "--json", *arguments).json["completions"]]


def test_log_probabilities_on_request(trained: Path, tinytale) -> None:
    one = tinytale("generate", "-p", PROMPT, "-t", "0", "-m", "3", "--json", "--logprobs", "2").json["completions"][0]
    assert len(one["logprobs"]) == one["tokens"] == 3
    for token in one["logprobs"]:
        assert set(token) == {"id", "text", "logprob", "alternatives"}
        first, second = token["alternatives"]
        assert first["id"] == token["id"]  # greedy
        assert first["logprob"] == token["logprob"] > second["logprob"]


def test_choices(trained: Path, tinytale) -> None:
    found = texts(tinytale, "-p", PROMPT, "-n", "8", "-t", "1", "--choice", " ran", "--choice", " sat")
    assert set(found) == {" ran", " sat"}


def test_valid_json(trained: Path, tinytale) -> None:
    for text in texts(tinytale, "-n", "4", "--valid-json", "-m", "31", "--set", "min_p=0.001"):
        assert text[0] in "[{"


def test_beams(trained: Path, tinytale) -> None:
    found = texts(tinytale, "-p", PROMPT, "--beams", "4", "-n", "3", "-m", "5", "--seed", "1")
    assert len(set(found)) == 3
    assert texts(tinytale, "-p", PROMPT, "--beams", "4", "-n", "3", "-m", "5", "--seed", "2") == found
    assert tinytale("generate", "-p", PROMPT, "--beams", "4", "-m", "5").out == f"{PROMPT}{found[0]}\n\n"
    assert "2 beams find no more than 2 texts" in tinytale("generate", "--beams", "2", "-n", "3", "--json").complaint


def test_stop_texts(trained: Path, tinytale) -> None:
    whole = texts(tinytale, "-n", "20", "-t", "1", "-m", "20")
    cut = texts(tinytale, "-n", "20", "-t", "1", "-m", "20", "--stop", "e", "--stop", "zzzz")
    assert cut == [text.partition("e")[0] for text in whole] != whole
    assert tinytale("generate", "-t", "1", "-m", "20", "--stop", "e").out == f"{cut[0]}\n\n"


def test_any_other_setting(trained: Path, tinytale) -> None:
    plain = texts(tinytale, "-t", "0", "-m", "20")
    assert texts(tinytale, "-t", "0", "-m", "20", "--set", "no_repeat_ngram=1") != plain
    assert texts(tinytale, "-t", "0", "-m", "20", "--set", "generate.no_repeat_ngram=1") != plain
    biased = texts(tinytale, "-t", "0", "-m", "3", "--set", "logit_bias={60: 100.0}")
    assert biased == texts(tinytale, "-t", "1", "-m", "3", "--set", "logit_bias={60: 100.0}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "no_repeat=3"], "there is no setting no_repeat; did you mean no_repeat_ngram?"),
        (["--set", "beams"], "--set takes KEY=VALUE, such as no_repeat_ngram=3, not 'beams'"),
        (["--set", "min_p=2"], "min_p: input should be less than or equal to 1, not 2"),
        (["--repetition-penalty", "0"], "--repetition-penalty: input should be greater than 0"),
        (["--min-p", "-0.1"], "--min-p: input should be greater than or equal to 0"),
        (["--stop", ""], "--stop: string should have at least 1 character"),
        (["--choice", ""], "choices are texts"),
        (["--choice", "a", "--valid-json"], "either one of some choices or JSON, not both"),
        (["--beams", "2", "--top-k", "5"], "--beams looks for the likeliest text and knows no --top-k"),
        (["--beams", "2", "--json", "--logprobs", "1"], "knows no --logprobs"),
        (["--logprobs", "1"], "--logprobs are shown in JSON alone: add --json"),
        (["--logprobs", "1", "-o", "tales.txt"], "--logprobs are shown in JSON alone: add --json"),
    ],
)
def test_settings_that_make_no_sense(arguments: list[str], said: str, trained: Path, tinytale) -> None:
    assert said in tinytale("generate", *arguments).complaint


# ---------------------------------------------------------------------- prompts of any length
def test_an_empty_prompt_begins_a_document(trained: Path, tinytale) -> None:
    assert texts(tinytale, "-p", "", "-m", "5") == texts(tinytale, "-m", "5")
    assert tinytale("generate", "-p", "-", "-m", "5", "--json", stdin="").code == 0


def test_a_prompt_longer_than_the_window(trained: Path, tinytale) -> None:
    """It counts with its end, and that is said once."""
    result = tinytale("generate", "-p", "fox " * 100, "-t", "0", "-m", "3")
    assert result.code == 0
    assert result.err.startswith("tinytale: the prompt has ")
    assert result.err.endswith("tokens and the model's context is 32: it reads the end of it\n")
    assert result.err.count("\n") == 1


def test_a_run_that_has_not_finished_says_so(nano: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinytale_mlx.stages import session

    def refuse(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "save_model", refuse)
    tinytale("train", nano)
    result = tinytale("generate", "-m", "2")
    assert result.code == 0
    assert result.err.startswith("tinytale: the run nano has not finished; this is its best checkpoint, of step ")
    assert "has not finished" in tinytale("chat", stdin="").err


# ---------------------------------------------------------------------- where it is shown
def test_a_closed_pipe_is_no_error(trained: Path, start) -> None:
    """As with `tinytale generate | head -1`: it stops, and says nothing."""
    process = start("generate", "-m", "5000", "-t", "1", cwd=trained, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(5)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) in (0, 1, 141)


@pytest.mark.slow
def test_a_terminal_can_not_be_steered_by_a_model(trained: Path) -> None:
    """Control characters that it writes are not sent there."""
    screen = Terminal("generate", "-m", "3", "-t", "0", "--set", "logit_bias={35: 1000.0}")
    shown = screen.read("\ufffd{3}\n")
    assert "\x1b" not in shown
    assert screen.code() == 0
    screen.close()


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
