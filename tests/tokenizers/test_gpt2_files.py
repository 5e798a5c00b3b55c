"""GPT-2's vocabulary from OpenAI's two files: the ids of `tokenizers` and tiktoken, and files that are cut short."""

import json
import shutil
from pathlib import Path

import pytest
from tricky import TRICKY

from tinytale_mlx.errors import UserError
from tinytale_mlx.tokenizers import ByteBPE, load_tokenizer
from tinytale_mlx.tokenizers.splitting import STANDARD_PATTERNS


@pytest.fixture(scope="module")
def files(shared: Path) -> tuple[Path, Path]:
    return shared / "gpt2" / "vocab.json", shared / "gpt2" / "merges.txt"


@pytest.fixture(scope="module")
def gpt2(files: tuple[Path, Path]) -> ByteBPE:
    return ByteBPE.from_gpt2(*files)


@pytest.fixture(scope="module")
def long_texts(shared: Path) -> list[str]:
    """All shared texts."""
    files = [file for pattern in ("*.txt", "*.json*") for file in sorted(shared.rglob(pattern))]
    return [file.read_text(encoding="utf-8") for file in files if file.parent.name != "gpt2"]


def test_size_and_roles(gpt2: ByteBPE, files):
    assert (gpt2.vocab_size, gpt2.eos_id, gpt2.bos_id, gpt2.pad_id) == (50257, 50256, 50256, None)
    assert gpt2.encode("Hello world<|endoftext|>") == [15496, 995, 50256]
    more = ByteBPE.from_gpt2(*files, ["<|endoftext|>", "<a>"])
    assert more.encode("<a>") == [50257]
    assert ByteBPE.from_gpt2(*files, []).encode("Hello world<|endoftext|>")[:2] == [15496, 995]


def test_tokenizers_agrees(gpt2: ByteBPE, files, long_texts):
    library = pytest.importorskip("tokenizers")
    theirs = library.ByteLevelBPETokenizer.from_file(*map(str, files))
    for text in [*TRICKY[:-1], *(text[:100_000] for text in long_texts)]:
        assert gpt2.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_tiktoken_agrees(gpt2: ByteBPE, long_texts):
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is an optional peer (the extra `peers`)")
    ranks = {name: i for i, name in gpt2.vocab.items() if i != gpt2.eos_id}
    theirs = tiktoken.Encoding(
        "gpt2", pat_str=STANDARD_PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens=gpt2.special_ids
    )
    assert len(long_texts) >= 7
    for text in [*TRICKY, *long_texts]:
        assert gpt2.encode(text) == theirs.encode(text, allowed_special="all")
        assert gpt2.encode(text, special=False) == theirs.encode_ordinary(text)


def test_saved_in_our_way(gpt2: ByteBPE, tmp_path):
    gpt2.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == gpt2.fingerprint


# Where merges.txt is cut: within its first line, after it, in the middle of a merge, after a merge, near the end.
@pytest.mark.parametrize("cut", [0, 5, 14, 2000, 2003, 200_003, 200_004, -3, -100])
def test_merges_cut_short(files, tmp_path, cut):
    shutil.copy(files[0], tmp_path / "vocab.json")
    whole = files[1].read_bytes()
    (tmp_path / "merges.txt").write_bytes(whole[:cut])
    with pytest.raises(UserError, match=r"merges\.txt (holds no byte-level BPE|is not UTF-8)") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [0, 1, 1000, -2])
def test_vocabulary_cut_short(files, tmp_path, cut):
    (tmp_path / "vocab.json").write_bytes(files[0].read_bytes()[:cut])
    shutil.copy(files[1], tmp_path / "merges.txt")
    with pytest.raises(UserError, match=r"vocab\.json is damaged: it is not valid JSON"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ({"a": 0}, "a b", r"merges\.txt .*needs|merges\.txt .*no token for 255 bytes"),
        ({"a": 0, "ab": 1}, "", r"merges\.txt .*no merge makes the token b'ab', so the file is cut short"),
        ({"a": "x"}, "", r"merges\.txt holds no byte-level BPE"),
        ({"a b": 0}, "", r"'a b' is not a byte-level token"),
        ({"a": 0}, "a", r"'a' is not a merge of two tokens"),
        ({"a": 0}, "a b c", r"'a b c' is not a merge of two tokens"),
    ],
)
def test_damaged_files_are_named(tmp_path, vocab, merges, message):
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    with pytest.raises(UserError, match=message):
        ByteBPE.from_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt", [])


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*vocab\.json"):
        ByteBPE.from_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")
