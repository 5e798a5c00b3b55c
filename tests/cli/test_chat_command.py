"""`tinytale chat` through a pipe."""

import json
import signal
from pathlib import Path

import pytest

from tinytale_mlx.cli.terminal import CONFIDENCE, Interrupts, coloured, has_colour

FEW = ["-m", "6", "-t", "0"]


def test_pipe(trained: Path, tinytale) -> None:
    """One answer per line, and nothing else on stdout."""
    result = tinytale("chat", *FEW, stdin="Tell me a tale.\n\nAnd then?\n")
    assert result.code == 0
    first = tinytale("chat", *FEW, stdin="Tell me a tale.\n").out
    assert result.out.startswith(first)
    assert len(result.out) > len(first)


def test_reset(trained: Path, tinytale) -> None:
    """Afterwards the model answers as if nothing had been said."""
    said = tinytale("chat", *FEW, stdin="Tell me a tale.\n/reset\nTell me a tale.\n").out
    first, second = said.split("(a new conversation)\n")
    assert first == second


def test_commands(trained: Path, tinytale) -> None:
    result = tinytale("chat", *FEW, stdin="/help\n/frobnicate now\n/quit\nTell me a tale.\n")
    *help_, unknown = result.out.splitlines()
    names = ["/help", "/reset", "/undo", "/system", "/temp", "/stats", "/save", "/load", "/quit", "Ctrl-C"]
    assert [line.split()[0] for line in help_] == names
    assert unknown.startswith("there is no command /frobnicate; /reset forgets the conversation")


def test_long_conversation(trained: Path, tinytale) -> None:
    """What no longer fits is forgotten, and that is said."""
    result = tinytale("chat", *FEW, stdin="Tell me a long tale about a fox.\n" * 4)
    assert result.code == 0
    assert "forgotten" in result.err


def test_a_question_longer_than_the_context(trained: Path, tinytale) -> None:
    """Its end counts, and that is said."""
    result = tinytale("chat", *FEW, stdin="fox " * 100 + "\n")
    assert result.code == 0
    assert result.err.startswith("tinytale: the prompt has ")
    assert result.err.endswith("tokens and the model's context is 32: it reads the end of it\n")


def test_what_a_model_cannot_read(nano: Path, tinytale) -> None:
    """A character that it has never seen costs one sentence, not the conversation."""
    Path("text.txt").write_text("ab ba \n" * 200)
    small = ["--set", "tokenizer.kind=char", "--set", "tokenizer.special_tokens=[]"]
    assert tinytale("train", nano, "--steps", "1", "--data", "text.txt", *small).code == 0
    result = tinytale("chat", *FEW, stdin="ab\nxyz\nba\n")
    assert result.code == 0
    assert len([line for line in result.err.splitlines() if line.startswith("tinytale: ")]) == 1


# ---------------------------------------------------------------------- commands
def said(tinytale, *lines: str, options: tuple[str, ...] = ()) -> tuple[str, str]:
    """stdout and stderr of a conversation."""
    result = tinytale("chat", *FEW, *options, stdin="".join(f"{line}\n" for line in lines))
    assert result.code == 0, result.err
    return result.out, result.err


def test_undo_command(trained: Path, tinytale) -> None:
    """The model then has heard nothing of it: greedy, the same question gets the same answer."""
    first, _ = said(tinytale, "Tell me a tale.")
    both, _ = said(tinytale, "Tell me a tale.", "/undo", "Tell me a tale.", "/undo", "/undo")
    assert both == f"{first}(taken back)\n{first}(taken back)\n(there is nothing to take back)\n"


def test_system_command(trained: Path, tinytale, tmp_path: Path) -> None:
    """It is the first message, whether it comes from the option or the command, and stays after /reset."""
    files = [tmp_path / f"{name}.json" for name in "abc"]
    said(tinytale, "Hi.", f"/save {files[0]}", options=("--system", "Speak of foxes."))
    out, _ = said(tinytale, "/system Speak of foxes.", "/reset", "Hi.", f"/save {files[1]}", "/system -", "/system",
                  f"/save {files[2]}")  # fmt: skip
    assert out.startswith("(system: Speak of foxes.)\n(a new conversation)\n")
    assert out.count("(system: nothing)\n") == 2
    first, second, third = (json.loads(file.read_text())["messages"] for file in files)
    assert first == second == [{"role": "system", "content": "Speak of foxes."}, *third]
    assert [message["role"] for message in third] == ["user", "assistant"]


def test_temp_command(trained: Path, tinytale) -> None:
    out, err = said(tinytale, "/temp", "/temp 0.5", "/temp -1", "/temp hot", "/temp nan", "/temp")
    assert out.splitlines() == ["(temperature 0)", "(temperature 0.5)", "(temperature 0.5)"]
    assert [line.split(",")[0].split(":")[1].strip() for line in err.splitlines()] == [
        "--temperature", "/temp takes a number", "--temperature",
    ]  # fmt: skip


def test_stats_command(trained: Path, tinytale) -> None:
    out, _ = said(tinytale, "/stats", "Hi.", "/stats")
    assert out.startswith("(questions 0, written 0 tokens, 0 tokens/s, context 0 of 32)\n")
    assert "(questions 1, written " in out


def test_save_and_load_commands(trained: Path, tinytale, tmp_path: Path) -> None:
    file = tmp_path / "my talk.json"
    first, _ = said(tinytale, "Hi.", f"/save {file}", "And?")
    answer, _, second = first.partition(f"(saved to {file})\n")
    messages = json.loads(file.read_text())["messages"]
    assert messages == [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": answer[:-1]}]
    out, _ = said(tinytale, f"/load {file}", "And?")
    assert out == f"(goes on from {file}, questions 1)\n{second}"
    wrong = ["/save", "/load", f"/load {tmp_path}/none.json", f"/save {tmp_path}/no/folder.json", "/save a\0b",
             "/load ~nobody-here/talk.json"]  # fmt: skip
    _, err = said(tinytale, *wrong, "Hi.")
    assert [line.startswith("tinytale: ") for line in err.splitlines()] == [True] * len(wrong)


def test_a_text_model_has_no_system(nano: Path, tinytale) -> None:
    Path("text.txt").write_text("ab ba \n" * 200)
    small = ["--set", "tokenizer.kind=char", "--set", "tokenizer.special_tokens=[]"]
    assert tinytale("train", nano, "--steps", "1", "--data", "text.txt", *small).code == 0
    assert "read no conversations" in tinytale("chat", "--system", "Be brief.").complaint
    assert "read no conversations" in said(tinytale, "/system Be brief.")[1]


# ---------------------------------------------------------------------- what a terminal can do
def test_probabilities_need_colours(trained: Path, tinytale) -> None:
    out, err = said(tinytale, "Hi.", options=("--show-probabilities",))
    assert err == "tinytale: --show-probabilities needs a terminal with colours, so there are none\n"
    assert out == said(tinytale, "Hi.")[0]


class Screen:
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    for variables, expected in (
        ({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ):  # fmt: skip
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.delenv("TERM", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert has_colour(screen) == expected  # type: ignore[arg-type]


def test_the_surer_the_greener() -> None:
    colours = [
        coloured("x", probability).removesuffix("\x1b[0m").removesuffix("x") for probability in (0.9, 0.5, 0.2, 0.0)
    ]
    assert colours == [colour for _, colour in CONFIDENCE]
    assert len(set(colours)) == 4
    assert coloured("", 0.9) == ""


def test_ctrl_c_waits_until_it_is_expected() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)  # nothing happens
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            pytest.fail("it was pressed before")
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            signal.raise_signal(signal.SIGINT)
        with interrupts.allowed():
            pass
    assert signal.getsignal(signal.SIGINT) == before
