"""What a GGUF file says of the tokenizer: every id, its kind, the merges, and how text is cut by llama.cpp's name."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.interop.gguf_tokenizer import CONTROL, NORMAL, SPLITS, UNUSED, USER_DEFINED, tokenizer_metadata
from tinytale_mlx.tokenizers import ByteBPE, CharTokenizer, WordTokenizer, load_tokenizer
from tinytale_mlx.tokenizers.base import Tokenizer
from tinytale_mlx.tokenizers.longest import LongestMatchTokenizer
from tinytale_mlx.tokenizers.sentencepiece import SentencePieceTokenizer
from tinytale_mlx.tokenizers.splitting import STANDARD_PATTERNS

TEXT = ["the cat went home, and the dog went home. The cat's 12 friends went, too.\n"] * 20


def bpe(**options: Any) -> ByteBPE:
    return ByteBPE.train(TEXT, 280, **options)


def said(tokenizer: Tokenizer, rows: int | None = None, chat_template: str | None = None) -> dict[str, Any]:
    """The metadata without its prefix, arrays as lists and numbers."""
    found = tokenizer_metadata(tokenizer, rows or tokenizer.vocab_size, chat_template)
    return {
        key.removeprefix("tokenizer.ggml."): value.tolist() if isinstance(value, mx.array) else value
        for key, value in found.items()
    }


def test_byte_level_bpe() -> None:
    tokenizer = bpe()
    found = said(tokenizer, rows=284)
    assert (found["model"], found["pre"]) == ("gpt2", "gpt-2")
    assert found["tokens"][:9] == [*tokenizer.special_ids, "Ā"]
    assert found["tokens"][280:] == ["[PAD280]", "[PAD281]", "[PAD282]", "[PAD283]"]
    assert found["token_type"] == [CONTROL] * 8 + [NORMAL] * 272 + [UNUSED] * 4
    assert len(found["merges"]) == 280 - 256 - 8
    first, second = found["merges"][0].split(" ")
    assert first + second == found["tokens"][264]
    roles = {key: found[f"{key}_token_id"] for key in ("bos", "eos", "padding", "unknown")}
    assert roles == {"bos": 2, "eos": 3, "padding": 0, "unknown": 1}
    assert (found["add_bos_token"], found["add_eos_token"]) == (True, False)
    assert "eot_token_id" not in found
    assert "tokenizer.chat_template" not in found


def test_a_conversation_ends_with_a_token_of_its_own() -> None:
    found = said(bpe(), chat_template="{{ messages }}")
    assert (found["eos_token_id"], found["eot_token_id"]) == (3, 5)
    assert found["tokenizer.chat_template"] == "{{ messages }}"
    markers = bpe(special_tokens=["<|im_start|>", "<|im_end|>"])
    assert said(markers, chat_template="{{ messages }}")["eos_token_id"] == 1


def test_one_token_may_begin_and_end_a_text() -> None:
    found = said(bpe(special_tokens=["[EOS]"]))
    assert (found["bos_token_id"], found["eos_token_id"], found["add_bos_token"]) == (0, 0, False)


def test_another_pattern() -> None:
    assert said(bpe(pattern="gpt4"))["pre"] == "dbrx"
    assert said(bpe(normalize="NFC"))["pre"] == "gpt-2"


def other(folder: Path, steps: list[dict[str, Any]], **changes: Any) -> Tokenizer:
    """A tokenizer.json of somebody else's, which tinytale leaves to the library `tokenizers`."""
    content = bpe()._to_json()
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    content["model"] |= changes
    content["added_tokens"][7]["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|eos|>"}')
    return load_tokenizer(folder)


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


@pytest.mark.parametrize("regexes", SPLITS, ids=SPLITS.values())
def test_others_patterns(regexes: tuple[str, ...], tmp_path: Path) -> None:
    last = regexes[-1] == STANDARD_PATTERNS["gpt2"]
    steps = [split(one) for one in regexes[: -1 if last else None]]
    found = said(other(tmp_path, [*steps, byte_level(last)]))
    assert found["pre"] == SPLITS[regexes]
    assert found["token_type"][:8] == [CONTROL] * 7 + [USER_DEFINED]


def test_others_that_look_words_up_first(tmp_path: Path) -> None:
    steps = [split(STANDARD_PATTERNS["gpt4"]), byte_level(False)]
    assert said(other(tmp_path, steps, ignore_merges=True))["pre"] == "llama-bpe"
    digits = [{"type": "Digits", "individual_digits": True}, byte_level(True)]
    assert said(other(tmp_path, digits))["pre"] == "smollm"


def test_sentencepiece() -> None:
    tokenizer = SentencePieceTokenizer.train(TEXT, 320, algorithm="bpe")
    found = said(tokenizer, rows=322)
    assert found["model"] == "llama"
    assert found["token_type"][:9] == [CONTROL, 2, *[CONTROL] * 6, 6]
    assert found["tokens"][8:10] == ["<0x00>", "<0x01>"]
    assert found["token_type"][320:] == [UNUSED] * 2
    assert "▁" in "".join(found["tokens"][264:320])
    assert found["scores"][290] < found["scores"][270] <= 0
    assert not found["add_space_prefix"]


@pytest.mark.parametrize(
    ("tokenizer", "lacking"),
    [
        (lambda: CharTokenizer.train(TEXT), "byte-level BPE and SentencePiece's BPE only"),
        (lambda: WordTokenizer.train(TEXT, 20), "byte-level BPE and SentencePiece's BPE only"),
        (lambda: LongestMatchTokenizer.from_bpe(bpe()), "byte-level BPE and SentencePiece's BPE only"),
        (lambda: bpe(lowercase=True), "none that changes text before it is cut"),
        (lambda: bpe(normalize="NFKC"), "none that changes text before it is cut"),
        (lambda: bpe(special_tokens=["<|pad|>"]), "none without a token for the end of a text"),
        (lambda: ByteBPE.train(TEXT, 264), "none without merges"),
        (lambda: SentencePieceTokenizer.train(TEXT, 310), "no SentencePiece unigram model"),
        (lambda: SentencePieceTokenizer.train(TEXT, 310, algorithm="bpe", lowercase=True), "none that changes text"),
    ],
)
def test_refused(tokenizer: Any, lacking: str) -> None:
    with pytest.raises(UserError, match=f"GGUF can't express this tokenizer: llama.cpp has {lacking}"):
        said(tokenizer())


def test_a_split_without_a_name_is_refused(tmp_path: Path) -> None:
    for steps in ([split(r"\w+"), byte_level(False)], [{"type": "Whitespace"}, byte_level(True)]):
        with pytest.raises(UserError, match="no name for the way in which it cuts text"):
            said(other(tmp_path, steps))
