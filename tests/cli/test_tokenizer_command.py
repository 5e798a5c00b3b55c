"""`tinytale tokenizer`: trained once and used again, found by name, text to ids and back, more tokens for a model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tinytale_mlx import recipe_files, stages
from tinytale_mlx.errors import UserError
from tinytale_mlx.stages import tokenizing
from tinytale_mlx.tokenizers import ByteBPE, load_tokenizer

TEXT = "".join(f"The {animal} number {i} went home.\n" for i in range(100) for animal in ("cat", "dog"))
SMALL = ["--vocab-size", "300"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What tokenizers have been trained (not loaded) since the test began."""
    found: list[Any] = []
    make = tokenizing.make_tokenizer

    def counted(recipe: Any, *arguments: Any, **options: Any) -> Any:
        if recipe.kind not in tokenizing.LOADED:
            found.append((recipe, options["workers"]))
        return make(recipe, *arguments, **options)

    monkeypatch.setattr(tokenizing, "make_tokenizer", counted)
    return found


@pytest.fixture(scope="session")
def tok(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level BPE of 300 tokens."""
    path = tmp_path_factory.mktemp("tok")
    ByteBPE.train([TEXT], 300).save(path)
    return path


def kept(root: Path = Path("runs")) -> list[Path]:
    return sorted((root / ".cache" / "tokenizers").iterdir())


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


def test_train_json(folder: Path, tinytale) -> None:
    result = tinytale("tokenizer", "train", "-d", "book.txt", *SMALL, "-o", "here", "--json").json
    assert (result["tokenizer"], result["vocab_size"], result["reused"]) == ("here", 300, False)
    assert result["seconds"] > 0
    assert result["bytes_per_token"] == pytest.approx(len(TEXT) / len(load_tokenizer("here").encode(TEXT)))
    assert "".join(result["sample"]) == TEXT[: len("".join(result["sample"]))]


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


def test_another_text_does_not_replace_it(folder: Path, trainings: list, tinytale) -> None:
    train = ["tokenizer", "train", "-d", "book.txt", *SMALL, "-o", "tok"]
    assert tinytale(*train).code == 0
    before = load_tokenizer("tok").fingerprint
    Path("book.txt").write_text(TEXT.upper())
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


# ---------------------------------------------------------------------- kept between runs
def test_train_uses_the_tokenizer_of_an_earlier_run(nano: Path, trainings: list, tinytale) -> None:
    once = ["train", nano, "--steps", "1"]
    first, second = tinytale(*once), tinytale(*once)
    assert "training the tokenizer (byte-level BPE, 512 tokens)" in first.out
    assert "using the tokenizer trained before (byte-level BPE, 512 tokens)" in second.out
    assert len(trainings) == 1
    models = [load_tokenizer(Path("runs") / name / "model").fingerprint for name in ("nano", "nano-2")]
    assert models[0] == models[1]
    assert tinytale(*once, "--retrain").code == 0
    assert len(trainings) == 2
    assert len(kept()) == 1
    assert tinytale("tokenizer", "train", nano, "--json").json["reused"]


def test_a_run_shows_its_tokenizer_once(nano: Path, tinytale) -> None:
    assert "2.34 bytes per token" in tinytale("train", nano, "--steps", "1").out
    events = map(json.loads, Path("runs/nano/log.jsonl").read_text().splitlines())
    (event,) = (event for event in events if event["event"] == "tokenizer")
    assert event["vocab_size"] == 512
    assert event["bytes_per_token"] == pytest.approx(2.34, abs=0.01)
    assert len(event["sample"]) > 5
    assert "bytes per token" not in tinytale("train", "--resume").out


def test_resume_keeps_the_runs_own(nano: Path, trainings: list, tinytale) -> None:
    assert tinytale("train", nano, "--steps", "1").code == 0
    shutil.rmtree("runs/.cache")
    assert tinytale("train", "--resume").code == 0
    assert len(trainings) == 1
    assert "a run that is resumed keeps its tokenizer" in tinytale("train", "--resume", "--retrain").complaint


def recipe(*overrides: str) -> Any:
    return recipe_files.load("tale", ["data.source=book.txt", "data.documents=null", *overrides])


OTHER = {
    "size": "tokenizer.vocab_size=301",
    "pattern": "tokenizer.pattern=gpt4",
    "kind": "tokenizer.kind=word",
    "text": "data.source=other.txt",
    "more text": "data.source=[book.txt, other.txt]",
    "cleaning": "data.clean.lowercase=true",
    "fewer documents": "data.documents=1",
    "tales": "data.source=tales",
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_makes_another_tokenizer(change: str, folder: Path) -> None:
    Path("other.txt").write_text(TEXT)
    assert tokenizing.made_from(recipe()) != tokenizing.made_from(recipe(change))


@pytest.mark.parametrize(
    "change",
    ["name=x", "model.layers=1", "train.steps=99", "data.rows=windows", "data.validation=0.2", "seed=5",
     "data.source=./book.txt", "data.source=[book.txt]"],
)  # fmt: skip
def test_what_makes_the_same_tokenizer(change: str, folder: Path) -> None:
    assert tokenizing.made_from(recipe()) == tokenizing.made_from(recipe(change))


def test_a_changed_file_makes_another_tokenizer(folder: Path) -> None:
    before = tokenizing.made_from(recipe())
    os.utime("book.txt", (0, 0))
    assert tokenizing.made_from(recipe()) != before


def test_the_same_name_elsewhere_is_another_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tokenizing.made_from(recipe())
    Path("other").mkdir()
    shutil.copy2("book.txt", "other/book.txt")
    monkeypatch.chdir("other")
    assert tokenizing.made_from(recipe()) != before


def test_it_learns_from_the_cleaned_text(folder: Path) -> None:
    """As the model does."""
    tokenizer = stages.tokenizer_for(recipe("tokenizer.kind=char", "data.clean.lowercase=true"), folder)
    assert tokenizer.encode("the") != [tokenizer.unk_id] * 3
    assert tokenizer.encode("T") == [tokenizer.unk_id]


def test_tales_count_by_their_seed(folder: Path) -> None:
    assert len({tokenizing.made_from(recipe("data.source=tales", f"seed={seed}")) for seed in (0, 1)}) == 2


def test_a_damaged_one_is_trained_again(folder: Path, trainings: list) -> None:
    wanted = recipe("tokenizer.vocab_size=300")
    first = stages.tokenizer_for(wanted, folder)
    (one,) = kept(folder)
    (one / "tokenizer.json").write_text("{")
    assert stages.tokenizer_for(wanted, folder).fingerprint == first.fingerprint
    assert stages.tokenizer_for(wanted, folder).fingerprint == first.fingerprint
    assert len(trainings) == 2


def test_two_processes_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is done between any two steps of this one: a whole folder is there in the end, and nothing else."""
    wanted = recipe("tokenizer.vocab_size=300")
    expected = stages.tokenizer_for(wanted, folder / "other").fingerprint
    (theirs,) = kept(folder / "other")
    rename = os.rename

    def meanwhile(source: Path, target: Path) -> None:
        if Path(target).name == theirs.name and not Path(target).exists():
            shutil.copytree(theirs, target)
        rename(source, target)

    for before in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(tokenizing.os, "rename", meanwhile)
            assert stages.tokenizer_for(wanted, folder, retrain=before).fingerprint == expected
        assert [path.name for path in kept(folder)] == [theirs.name]
        assert load_tokenizer(kept(folder)[0]).fingerprint == expected


def test_killed_while_saving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is half written is never used."""
    save, wanted = ByteBPE.save, recipe("tokenizer.vocab_size=300")

    def half(self: ByteBPE, directory: Path, **options: Any) -> None:
        save(self, directory)
        (Path(directory) / "tokenizer_config.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ByteBPE, "save", half)
        with pytest.raises(KeyboardInterrupt):
            stages.tokenizer_for(wanted, folder)
    assert kept(folder) == []
    assert stages.tokenizer_for(wanted, folder).vocab_size == 300


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(UserError, match="the tokenizer could not be written to"):
        stages.tokenizer_for(recipe("tokenizer.vocab_size=300"), folder / "file")


# ---------------------------------------------------------------------- encode and decode
def test_encode(folder: Path, tok: Path, tinytale) -> None:
    text = "The cat, née <|eos|>\n"
    expected = load_tokenizer(tok).encode(text)
    assert tinytale("tokenizer", "encode", tok, text).out == " ".join(map(str, expected)) + "\n"
    assert tinytale("tokenizer", "encode", tok, "-", stdin=text).out == " ".join(map(str, expected)) + "\n"
    Path("a.txt").write_bytes(text.encode())
    found = tinytale("tokenizer", "encode", tok, "--file", "a.txt", "--json").json
    assert found["ids"] == expected
    assert found["tokens"][:2] == ["The", " cat"]
    assert "\\xc3" in found["tokens"]
    plain = tinytale("tokenizer", "encode", tok, text, "--no-special", "--json").json
    assert 3 in expected
    assert 3 not in plain["ids"]


def test_encode_pieces(tok: Path, tinytale) -> None:
    said = tinytale("tokenizer", "encode", tok, "The cat\n\tx<|eos|>", "--pieces").out
    assert said == "The│·cat│↵\n│→│x│<|eos|>\n"


@pytest.mark.parametrize("text", ["", "\0", "\r\n", "née 日本 😀\n\n", "<|eos|> <|pad|>", " 12 cats "])
def test_round_trip(text: str, tok: Path, tinytale) -> None:
    ids = tinytale("tokenizer", "encode", tok, text).out
    assert tinytale("tokenizer", "decode", tok, stdin=ids).out == text
    assert tinytale("tokenizer", "decode", tok, ids).out == text


def test_round_trip_through_pipes(folder: Path, tok: Path) -> None:
    """To the last byte, line ends included."""
    content = text = "née\r\n日本 \x85 end".encode()
    for command in ("encode", "decode"):
        program = f"from tinytale_mlx.cli.app import main; main(['tokenizer', {command!r}, {str(tok)!r}, '-'])"
        content = subprocess.run(
            [sys.executable, "-c", program], input=content, stdout=subprocess.PIPE, check=True,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        ).stdout  # fmt: skip
    assert content == text


def test_decode(tok: Path, tinytale) -> None:
    tokenizer = load_tokenizer(tok)
    ids = [*tokenizer.encode("The cat"), 3]
    for form in (["[" + ", ".join(map(str, ids)) + "]"], [*map(str, ids)]):
        assert tinytale("tokenizer", "decode", tok, *form).out == "The cat<|eos|>"
    assert tinytale("tokenizer", "decode", tok, *map(str, ids), "--no-special").out == "The cat"
    found = tinytale("tokenizer", "decode", tok, *map(str, ids), "--json").json
    assert found == {"text": "The cat<|eos|>", "tokens": ["The", " cat", "<|eos|>"]}
    assert tinytale("tokenizer", "decode", tok, *map(str, ids), "--pieces").out == "The│·cat│<|eos|>\n"


# ---------------------------------------------------------------------- inspect
def test_inspect(folder: Path, tok: Path, tinytale) -> None:
    other = ByteBPE.train([TEXT], 264)
    other.save("other")
    result = tinytale("tokenizer", "inspect", tok, "--data", "book.txt", "--compare", "other", "--json").json
    assert (result["tokenizer"], result["kind"], result["vocab_size"]) == (str(tok), "byte-level BPE", 300)
    assert result["special_tokens"][3] == {"id": 3, "token": "<|eos|>", "roles": ["eos"]}
    mine, theirs = result["figures"]
    assert mine["bytes"] == theirs["bytes"] == theirs["tokens"] == len(TEXT)
    assert mine["bytes_per_token"] > 2 > theirs["bytes_per_token"] == 1
    assert mine["unknown"] == 0
    assert "".join(one["text"] for one in result["pieces"]).startswith("The cat number 0 went home.")
    said = tinytale("tokenizer", "inspect", tok, "--data", "book.txt", "--compare", "other").out
    for part in ("byte-level BPE", "300 tokens", "3 <|eos|> (eos)", "other", "bytes per token", "The│·cat│·"):
        assert part in said


def test_inspect_a_text(tok: Path, tinytale) -> None:
    result = tinytale("tokenizer", "inspect", tok, "--text", "The é<|eos|>", "--json").json
    assert [one["text"] for one in result["pieces"]] == ["The", " ", "\\xc3", "\\xa9", "<|eos|>"]
    assert result["figures"][0]["tokens"] == 5
    assert tinytale("tokenizer", "inspect", tok, "--text", "").code == 0
    assert "give one of them" in tinytale("tokenizer", "inspect", tok, "--text", "a", "--data", "b").complaint


def test_inspect_tales(tok: Path, tinytale) -> None:
    result = tinytale("tokenizer", "inspect", tok, "--json").json
    assert result["text"] == "200 embedded tales"
    assert result["figures"][0]["tokens"] > 10_000


def test_inspect_what_cannot_write_tales(folder: Path, tinytale) -> None:
    trained = tinytale("tokenizer", "train", "-d", "book.txt", "--kind", "char", "--set", "tokenizer.special_tokens=[]")
    assert trained.code == 0, trained.err
    result = tinytale("tokenizer", "inspect", "tokenizers/book-char", "--json").json
    assert result["figures"] == result["pieces"] == []
    assert "pass --data or --text" in tinytale("tokenizer", "inspect", "tokenizers/book-char").out
    said = tinytale("tokenizer", "inspect", "tokenizers/book-char", "--text", "Zoo").complaint
    assert "'Z' is not in the vocabulary" in said


def test_inspect_gpt2(shared_data: Path, tok: Path, tinytale) -> None:
    result = tinytale("tokenizer", "inspect", tok, "--compare", shared_data / "gpt2", "--json").json
    assert result["figures"][1]["vocab_size"] == 50257
    assert tinytale("tokenizer", "encode", shared_data / "gpt2", "Hello world").out == "15496 995\n"


def test_in_colour(tok: Path, tinytale, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours differ in their background where there are colours, and have a bar between them where not."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    said = tinytale("tokenizer", "encode", tok, "The cat", "--pieces").out
    assert "│" not in said
    assert said.count("\x1b[30;46m") == said.count("\x1b[30;43m") == 1
    monkeypatch.setenv("NO_COLOR", "1")
    assert tinytale("tokenizer", "encode", tok, "The cat", "--pieces").out == "The│·cat\n"


# ---------------------------------------------------------------------- found by name
def test_names(trained: Path, tinytale, tmp_path: Path) -> None:
    ids = tinytale("tokenizer", "encode", "a b c").out
    for name in ("nano", "runs/nano", "runs/nano/model", "nano.yaml"):
        assert tinytale("tokenizer", "encode", name, "a b c").out == ids
    assert tinytale("tokenizer", "inspect", "--json").json["tokenizer"] == "runs/nano"
    assert "`tinytale tokenizer train tiny-llm" not in tinytale("tokenizer", "encode", "tale", "a").complaint


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


# ---------------------------------------------------------------------- bad input
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
