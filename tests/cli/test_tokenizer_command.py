"""`tinytale tokenizer train` and `add`: trained once and used again, more tokens for a model."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest

from tinytale_mlx import stages
from tinytale_mlx.stages import tokenizing
from tinytale_mlx.tokenizers import ByteBPE, load_tokenizer

SMALL = ["--vocab-size", "300"]


# ---------------------------------------------------------------------- train
def test_train(folder: Path, tinytale) -> None:
    result = tinytale("tokenizer", "train", "--data", "book.txt", *SMALL)
    assert result.code == 0, result.err
    assert "tokenizers/book-bpe-300: 300 tokens, " in result.out
    assert "The│·cat│·" in result.out
    assert load_tokenizer("tokenizers/book-bpe-300").vocab_size == 300
    about = json.loads(Path("tokenizers/book-bpe-300/tinytale.json").read_text())
    assert (about["data"]["source"], about["data"]["documents"]) == ("book.txt", None)  # all of it
    *_, inspect, train = result.out.splitlines()
    assert inspect == "  tinytale tokenizer inspect tokenizers/book-bpe-300"
    assert tinytale(*inspect.split()[1:]).code == 0
    nano = ["--set", "train.steps=1", "--set", "model.layers=1", "--set", "train.warmup_steps=0", "--json"]
    trained = tinytale(*train.split()[1:], *nano, "--set", "model.context=16", "--set", "model.hidden_size=16")
    assert trained.code == 0, trained.err
    mine, used = (load_tokenizer(path) for path in ("tokenizers/book-bpe-300", trained.json["model"]))
    assert mine.fingerprint == used.fingerprint


def test_train_json(folder: Path, book: str, tinytale) -> None:
    result = tinytale("tokenizer", "train", "-d", "book.txt", *SMALL, "-o", "here", "--json").json
    assert (result["tokenizer"], result["vocab_size"], result["reused"]) == ("here", 300, False)
    assert result["seconds"] > 0
    assert result["bytes_per_token"] == pytest.approx(len(book) / len(load_tokenizer("here").encode(book)))
    assert "".join(result["sample"]) == book[: len("".join(result["sample"]))]


@pytest.mark.parametrize(("kind", "size"), [("word", "20"), ("char", ""), ("sentencepiece", "310"), ("bpe", "290")])
def test_train_another_kind(kind: str, size: str, folder: Path, trainings: list, tinytale) -> None:
    """And every kind that is kept is found again."""
    train = ["tokenizer", "train", "-d", "book.txt", "--kind", kind, *(["--vocab-size", size] if size else [])]
    result = tinytale(*train, "--json").json
    name = result["tokenizer"]
    assert name == f"tokenizers/book-{kind}" + (f"-{size}" if size else "")
    text = tinytale("tokenizer", "encode", name, "The cat").out
    assert tinytale("tokenizer", "decode", name, text.strip()).out.lower() == "the cat"
    shutil.rmtree("tokenizers")
    assert tinytale(*train, "--json").json == {**result, "reused": True, "seconds": None}
    assert len(trainings) == 1
    assert tinytale("tokenizer", "inspect", name, "--text", "The cat", "--json").json["vocab_size"] > 0


def test_train_says_what_is_missing_from_the_text(folder: Path, tinytale) -> None:
    result = tinytale("tokenizer", "train", "-d", "book.txt", "--vocab-size", "5000")
    assert "tokens, not 5000: the text has no more pairs" in result.err


def test_what_is_there_is_shown_again(folder: Path, trainings: list, tinytale) -> None:
    first, second = (tinytale("tokenizer", "train", "-d", "book.txt", *SMALL, "--json").json for _ in range(2))
    assert len(trainings) == 1
    assert second == {**first, "reused": True, "seconds": None}
    assert "trained before" in tinytale("tokenizer", "train", "-d", "book.txt", *SMALL).out
    assert tinytale("tokenizer", "train", "-d", "book.txt", *SMALL, "--retrain", "--json").json["reused"] is False
    assert len(trainings) == 2


def test_another_text_does_not_replace_it(folder: Path, book: str, trainings: list, tinytale) -> None:
    train = ["tokenizer", "train", "-d", "book.txt", *SMALL, "-o", "tok"]
    assert tinytale(*train).code == 0
    before = load_tokenizer("tok").fingerprint
    Path("book.txt").write_text(book.upper())
    assert "tok holds a tokenizer trained on another text or with other settings" in tinytale(*train).complaint
    assert load_tokenizer("tok").fingerprint == before
    assert len(trainings) == 1
    assert tinytale(*train, "--retrain").code == 0
    assert load_tokenizer("tok").fingerprint != before
    assert tinytale(*train, "--json").json["reused"]


def test_what_others_made_is_not_replaced(folder: Path, tok: Path, tinytale) -> None:
    shutil.copytree(tok, "model")
    for retrain in ([], ["--retrain"]):
        said = tinytale("tokenizer", "train", "-d", "book.txt", *SMALL, "-o", "model", *retrain).complaint
        assert "model holds a tokenizer that this command did not make" in said


def test_a_changed_tokenizer_is_not_taken_for_the_trained_one(folder: Path, tok: Path, tinytale) -> None:
    train = ["tokenizer", "train", "-d", "book.txt", "--vocab-size", "310", "-o", "tok"]
    assert tinytale(*train).code == 0
    shutil.copy(tok / "tokenizer.json", "tok/tokenizer.json")
    assert "--retrain replaces it" in tinytale(*train).complaint


def test_workers(folder: Path, trainings: list, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for a small file, all cores for a large one, or as many as one says."""
    train = ["tokenizer", "train", "-d", "book.txt", *SMALL, "--retrain"]
    assert tinytale(*train).code == 0
    monkeypatch.setattr(tokenizing, "LARGE", 1000)
    monkeypatch.setattr(tokenizing, "cores", lambda: 1 if trainings[1:] else 7)
    monkeypatch.setattr(
        tokenizing, "make_tokenizer", lambda *_, workers, **__: trainings.append((0, workers)) or _tiny()
    )
    assert tinytale(*train).code == 0
    assert tinytale(*train, "--workers", "3").code == 0
    assert [workers for _, workers in trainings] == [1, 7, 3]


def _tiny() -> ByteBPE:
    return ByteBPE.train(["a"], 264)


# ---------------------------------------------------------------------- add
def test_add(trained: Path, tmp_path: Path, tinytale) -> None:
    out = tmp_path / "more"
    names = ["--token", "<|tool|>", "--token", "<|result|>"]
    result = tinytale("tokenizer", "add", "nano", *names, "--output", out, "--json").json
    assert result["tokens"] == {"<|tool|>": 512, "<|result|>": 513}
    assert result["vocab_size"] == 514
    old, new = stages.load("nano"), stages.load(str(out))
    assert result["parameters"] == 37024 + 2 * 32
    assert tinytale("info", out, "--json").json["parameters"] == result["parameters"]
    for text in ("Once upon a time", "a<|eos|>b"):
        assert new.tokenizer.encode(text) == old.tokenizer.encode(text)
    assert new.tokenizer.encode("a<|tool|>") == [*old.tokenizer.encode("a"), 512]
    assert new.can_chat == old.can_chat
    prompt = ["--prompt", "Once", "--temperature", "0", "-m", "4", "--json"]
    assert len(tinytale("generate", out, *prompt).json["completions"]) == 1
    again = tinytale("tokenizer", "add", out, "--token", "<|more|>", "--output", tmp_path / "again")
    assert again.out == f"{tmp_path}/again: 515 tokens, 37,120 parameters; <|more|> is 514\n"


def test_add_takes_rows_that_are_free(nano: Path, tinytale) -> None:
    """A model may have more rows than its tokenizer has tokens; what is in them is not what a new token needs."""
    assert tinytale("train", nano, "--steps", "2", "--set", "model.vocab_size=515").code == 0
    before = stages.load().model.model.embed_tokens.weight
    result = tinytale("tokenizer", "add", "--token", "<|tool|>", "-o", "more", "--json").json
    model = stages.load("more").model
    rows = model.model.embed_tokens.weight
    assert (result["vocab_size"], model.config.vocab_size) == (513, 515)
    assert mx.array_equal(rows[:512], before[:512])
    assert float(mx.abs(rows[512] - before[:512].mean(axis=0)).max()) < 0.01 * float(mx.abs(before).max())


def test_add_is_read_by_mlx_lm(trained: Path, tmp_path: Path, tinytale) -> None:
    mlx_lm = pytest.importorskip("mlx_lm")
    assert tinytale("tokenizer", "add", "--token", "<|tool|>", "-o", tmp_path / "more").code == 0
    model, tokenizer = mlx_lm.load(str(tmp_path / "more"))[:2]
    assert tokenizer.encode("<|tool|>", add_special_tokens=False) == [512]
    assert model.args.vocab_size == 513
