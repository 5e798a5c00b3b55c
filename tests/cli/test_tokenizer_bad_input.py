"""`tinytale tokenizer`: what the user can mend is said in one sentence, with exit code 2."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BAD = {
    "no such tokenizer": (["encode", "gone", "a"], "there is no tokenizer gone: it is no folder with a"),
    "no tokenizer in it": (["inspect", "empty"], "there is no tokenizer empty"),
    "no run": (["encode", "a"], "there is no run in runs/ yet"),
    "recipe not trained": (["inspect", "tale"], "has not been trained; `tinytale tokenizer train tale` does it"),
    "no recipe file": (["inspect", "gone.yaml"], "there is no recipe file gone.yaml"),
    "damaged": (["encode", "damaged", "a"], "damaged/tokenizer.json is damaged: it is not valid JSON"),
    "many words": (["encode", "tok", "a", "b"], "takes the text in quotes"),
    "text and file": (["encode", "tok", "a", "--file", "book.txt"], "takes the text in quotes"),
    "no file": (["encode", "tok", "--file", "gone.txt"], "gone.txt can't be read: No such file"),
    "a folder": (["encode", "tok", "--file", "empty"], "empty can't be read: Is a directory"),
    "invalid UTF-8": (["encode", "tok", "--file", "latin.txt"], "latin.txt is not UTF-8 text: byte 3 is 0xff"),
    "half a character": (["encode", "tok", "a\udcff"], "lone surrogate U+DCFF"),
    "no number": (["decode", "tok", "1", "cat"], "'cat' is not a token id"),
    "a fraction": (["decode", "tok", "1.5"], "'1.5' is not a token id"),
    "a negative id": (["decode", "tok", "--", "-1"], "'-1' is not a token id"),
    "another script": (["decode", "tok", "1", "٣"], "'٣' is not a token id"),
    "out of range": (["decode", "tok", "1", "300"], "token id 300 is not in the vocabulary; ids run from 0 to 299"),
    "far out of range": (["decode", "tok", "9" * 18], "is not in the vocabulary"),
    "far too long": (["decode", "tok", "9" * 5000], "' is not a token id"),
    "no data": (["inspect", "tok", "--data", "gone.txt"], "gone.txt: there is no such file or folder"),
    "nothing to compare": (["inspect", "tok", "--compare", "gone"], "there is no tokenizer gone"),
    "no text": (["train", "--data", "gone.txt"], "gone.txt: there is no such file or folder"),
    "no recipe": (["train", "gone"], "there is no recipe 'gone'"),
    "unknown kind": (["train", "--kind", "bqe"], "tokenizer.kind: input should be 'bpe', 'sentencepiece', 'word'"),
    "too small": (["train", "-d", "book.txt", "--vocab-size", "9"], "a vocabulary of 9 is too small"),
    "nothing to train": (["train", "--kind", "gpt2", "--set", "tokenizer.path=x"], "kind gpt2 is there already"),
    "unknown key": (["train", "--set", "tokenizer.size=3"], "there is no key tokenizer.size"),
    "output is a file": (["train", "-d", "book.txt", "--vocab-size", "300", "-o", "book.txt"], "could not be written"),
    "no model": (["add", "gone", "--token", "x", "-o", "out"], "there is no run gone"),
    "no token": (["add", "--output", "out"], "say which tokens to add"),
    "no output": (["add", "--token", "x"], "say which tokens to add"),
}  # fmt: skip


@pytest.fixture
def mess(folder: Path, tok: Path) -> Iterator[Path]:
    shutil.copytree(tok, "tok")
    Path("empty").mkdir()
    Path("damaged").mkdir()
    Path("damaged/tokenizer.json").write_text((tok / "tokenizer.json").read_text()[:100])
    Path("latin.txt").write_bytes(b"bad\xff")
    return folder


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD)
def test_bad_input(arguments: list[str], said: str, mess: Path, tinytale) -> None:
    result = tinytale("tokenizer", *arguments)
    assert result.complaint.startswith("tinytale: ")
    assert said in result.complaint
    assert result.out.count("\n") <= 1  # at most the phase that it was in


ADD = {
    "there already": (["--token", "<|eos|>", "-o", "out"], "'<|eos|>' is a special token already"),
    "twice": (["--token", "a!", "--token", "a!", "-o", "out"], "'a!' is listed twice"),
    "empty": (["--token", "", "-o", "out"], "empty string"),
    "an ordinary token": (["--token", "a", "-o", "out"], "in the vocabulary already"),
    "not new": (["--token", "a!", "-o", "nano.yaml"], "nano.yaml exists; choose another --output"),
    "the model itself": (["--token", "a!", "-o", "runs/nano/model"], "runs/nano/model exists; choose another --output"),
}


@pytest.mark.parametrize(("arguments", "said"), ADD.values(), ids=ADD)
def test_tokens_that_cannot_be_added(arguments: list[str], said: str, trained: Path, tinytale) -> None:
    assert said in tinytale("tokenizer", "add", *arguments).complaint
    assert not Path("out").exists()


def test_standard_input_that_is_no_text(folder: Path, tok: Path) -> None:
    program = f"from tinytale_mlx.cli.app import main; main(['tokenizer', 'encode', {str(tok)!r}, '-'])"
    said = subprocess.run([sys.executable, "-c", program], input=b"a\xff", capture_output=True)
    assert said.returncode == 2
    assert said.stderr == b"tinytale: the standard input is not UTF-8 text\n"
