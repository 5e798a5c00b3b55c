"""SentencePiece models: how they are trained, and what becomes of those that somebody else has trained."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from sentencepiece_checks import ALGORITHMS, TALES, VERY_TRICKY, check, rust
from tricky import TRICKY

from tinytale_mlx.tokenizers import SpecialTokens, load_tokenizer, sentencepiece_training
from tinytale_mlx.tokenizers.sentencepiece import SentencePieceTokenizer
from tinytale_mlx.tokenizers.sentencepiece_training import SpacedRules


# ---------------------------------------------------------------------- training
def test_bpe_learns_what_the_package_learns_from_the_text_itself(monkeypatch):
    monkeypatch.setattr(sentencepiece_training, "_COVERAGE", 1.0)
    lines = [*(line for tale in TALES for line in tale.splitlines()), *"<0x123456789ABCDEF>|_"]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, model_type="bpe", vocab_size=700,
        control_symbols=list(SpecialTokens.standard().names[4:]), unk_piece="<|unk|>", bos_piece="<|bos|>",
        eos_piece="<|eos|>", pad_piece="<|pad|>", pad_id=0, unk_id=1, bos_id=2, eos_id=3, byte_fallback=True,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=1.0, minloglevel=3,
    )  # fmt: skip
    package = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    ours = SentencePieceTokenizer.train("\n".join(lines), 700, algorithm="bpe")
    theirs = [package.id_to_piece(i).replace("▁", " ").encode() for i in range(264, 700)]
    ours_written = [ours.token_bytes(i) for i in range(264, 700)]
    merged = sum(len(piece.decode()) > 1 for piece in theirs)
    assert merged > 300
    assert ours_written[:merged] == theirs[:merged]
    assert set(ours_written) == set(theirs)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_the_counts_matter(algorithm, tmp_path):
    def train(*source: str | Path) -> str:
        return SentencePieceTokenizer.train(source, 600, algorithm=algorithm).fingerprint

    (tmp_path / "text.txt").write_text("\n".join(TALES), encoding="utf-8", newline="")
    once = train(*TALES)
    assert train(*reversed(TALES)) == once
    assert train("<|eos|>".join(TALES)) == once
    assert train(tmp_path / "text.txt") == once
    assert train(*TALES[:-20]) != once


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_text_is_dropped_for_its_length_or_a_reserved_character(algorithm):
    """SentencePiece leaves out sentences over 4,192 bytes, and those that hold U+2585."""
    text = ("wonderful " * 2000).strip()
    for whole in (text, text.replace(" ", "▅ "), text.replace(" ", "\0")):
        tokenizer = SentencePieceTokenizer.train([whole, *TALES], 600, algorithm=algorithm)
        assert 1 in (len(tokenizer.encode("wonderful")), len(tokenizer.encode(" wonderful")))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rare_characters_are_left_to_the_bytes(algorithm):
    tokenizer = SentencePieceTokenizer.train([*TALES, "ꙮ"], 500, algorithm=algorithm)
    assert tokenizer.encode("ꙮ") == [8 + byte for byte in "ꙮ".encode()]
    tokenizer = SentencePieceTokenizer.train([*TALES, "ꙮ" * 500], 500, algorithm=algorithm)
    assert len(tokenizer.encode("ꙮ")) == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_must_be_spelled_has_pieces(algorithm, tmp_path):
    """A text without spaces and Latin letters: still a space is no "▁", and the name of a token is not the token."""
    specials = ["<unk>", "<end_of_text>", "<a\tb>", "▁▁"]
    tokenizer = SentencePieceTokenizer.train("日本語" * 50, 294, algorithm=algorithm, special_tokens=specials)
    tokenizer.save(tmp_path)
    theirs = {special: rust(tmp_path, special=special) for special in (True, False)}
    for text in ("日 本", "<0x41><0xEF>", "<unk>日<end_of_text> ▁▁▁<a\tb>", "<a\tb ▁"):
        check(tokenizer, theirs, text)
    assert len(tokenizer.encode(" ")) == 1


def test_even_the_rarest_of_them_in_a_large_text():
    """In a billion characters SentencePiece takes one for none: then all seems covered before it comes to it."""
    words = sentencepiece_training._known_words({" abc": 10**9, "abd": 10**9}, {" ", "q"})
    pieces = {piece.piece for piece in sentencepiece_training._run(words, "bpe", 280).pieces}
    assert {"q", "▁", "a", "d"} < pieces


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_vocabulary_has_the_size_asked_for_and_says_its_limits(algorithm):
    with pytest.raises(ValueError, match=r"a vocabulary of 264 is too small .* needs at least \d+$") as small:
        SentencePieceTokenizer.train(TALES, 264, algorithm=algorithm)
    with pytest.raises(ValueError, match=r"too small for a vocabulary of 99999; it gives at most \d+ tokens") as large:
        SentencePieceTokenizer.train(TALES, 99999, algorithm=algorithm)
    least, most = int(str(small.value).split()[-1]), int(str(large.value).split()[-2])
    assert 264 < least < most
    for size in (least, least + 1, 517, most):
        assert SentencePieceTokenizer.train(TALES, size, algorithm=algorithm).vocab_size == size
    for size in (least - 1, most + 1):
        with pytest.raises(ValueError, match=r"at (least|most)"):
            SentencePieceTokenizer.train(TALES, size, algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("normalize", "lowercase"), [("NFC", False), ("NFKC", True), (None, True)])
def test_text_is_normalized_alike_in_training_and_encoding(algorithm, normalize, lowercase, tmp_path):
    rules = SpacedRules(normalize=normalize, lowercase=lowercase)
    texts = [*TALES, *(text * 3 for text in TRICKY)]
    options: dict[str, Any] = {"algorithm": algorithm, "normalize": normalize, "lowercase": lowercase}
    tokenizer = SentencePieceTokenizer.train(texts, 700, **options)
    normalized = SentencePieceTokenizer.train(map(rules.normalized, texts), 700, **options)
    assert normalized.fingerprint == tokenizer.fingerprint
    assert SentencePieceTokenizer.train(texts, 700, algorithm=algorithm).fingerprint != tokenizer.fingerprint
    tokenizer.save(tmp_path)
    theirs, again = rust(tmp_path, special=False), SentencePieceTokenizer.load(tmp_path)
    for text in VERY_TRICKY:
        ids = tokenizer.encode(text, special=False)
        assert tokenizer.decode(ids) == rules.normalized(text)
        assert tokenizer.encode(rules.normalized(text), special=False) == ids
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        assert again.encode(text, special=False) == ids


def test_bad_requests():
    train = SentencePieceTokenizer.train
    for nothing in ([], "", "\n\n", "▁", ["<|eos|>"]):
        with pytest.raises(ValueError, match="there is no text to train a tokenizer on"):
            train(nothing, 500)
    with pytest.raises(ValueError, match=r"lone surrogate U\+D83D"):
        train(["fine", "half \ud83d"], 500)
    with pytest.raises(ValueError, match="unknown algorithm 'word'; SentencePiece has unigram and bpe"):
        train(TALES, 500, algorithm="word")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="unknown normal form 'NFD'"):
        train(TALES, 500, normalize="NFD")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="SentencePiece needs an unk token"):
        train(TALES, 500, special_tokens=["<|endoftext|>"])
    with pytest.raises(ValueError, match="'§' is one character, too short"):
        train(TALES, 500, special_tokens=["<unk>", "§"])
    with pytest.raises(ValueError, match="'<0x41>' is in the vocabulary already"):
        train(TALES, 500, special_tokens=["<unk>", "<0x41>"])


def test_it_is_quiet(capfd):
    steps = []
    SentencePieceTokenizer.train(TALES, 500, progress=lambda *step: steps.append(step))
    with pytest.raises(ValueError, match="at most"):
        SentencePieceTokenizer.train("a b c", 5000)
    assert capfd.readouterr() == ("", "")
    assert ("learning", 0, 500) in steps
    assert any(stage == "reading" for stage, _, _ in steps)


# ---------------------------------------------------------------------- somebody else's models
THEIRS: dict[str, dict[str, Any]] = {
    "default": {},
    "llama": {
        "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "split_digits": True,
        "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True,
    },
    "t5": {
        "byte_fallback": True, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1,
        "normalization_rule_name": "nfkc_cf",
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=THEIRS)
def foreign(request, tmp_path_factory) -> tuple[SentencePieceTokenizer, sentencepiece.SentencePieceProcessor]:
    prefix = tmp_path_factory.mktemp("foreign") / "tokenizer"
    lines = [line for text in [*TALES, *TRICKY] for line in text.split("\n")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(prefix), vocab_size=800, minloglevel=3, **THEIRS[request.param]
    )
    path = prefix.with_suffix(".model")
    return SentencePieceTokenizer.from_file(path), sentencepiece.SentencePieceProcessor(model_file=str(path))


def test_their_models_keep_their_ids(foreign, tmp_path):
    tokenizer, package = foreign
    assert tokenizer.vocab_size == 800
    assert {role: tokenizer.special_ids[name] for role, name in tokenizer.specials.roles.items()} == {
        role: number for role in ("pad", "unk", "bos", "eos") if (number := getattr(package, f"{role}_id")()) >= 0
    }
    tokenizer.save(tmp_path)
    theirs, loaded = rust(tmp_path, special=False), load_tokenizer(tmp_path)
    assert type(loaded) is SentencePieceTokenizer
    assert loaded.fingerprint == tokenizer.fingerprint
    for text in [*TRICKY, *TALES[:30], "\n".join(TALES), " one", "  two  spaces ", "a▁b"]:
        ids = tokenizer.encode(text, special=False)
        assert ids == package.encode(text) == loaded.encode(text, special=False)
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        if package.unk_id() not in ids:
            assert tokenizer.decode(ids) == package.decode(ids)
        assert list(tokenizer.encode_iterable(list(text), special=False)) == ids


def test_their_special_tokens(foreign):
    tokenizer, package = foreign
    eos = package.eos_id()
    assert tokenizer.encode("one</s>two") == [*package.encode("one"), eos, *package.encode("two")]
    assert eos not in tokenizer.encode("one</s>two", special=False)
    more = tokenizer.add_tokens(["<|im_start|>"])
    assert more.encode("one<|im_start|>") == [*package.encode("one"), 800]
    assert copy.deepcopy(more).encode("a  b") == package.encode("a  b")


def test_a_model_of_another_type_is_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TALES[0].split("\n")), model_prefix=str(tmp_path / "word"), model_type="word",
        vocab_size=20, minloglevel=3,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"word.model .* neither a unigram nor a BPE model"):
        SentencePieceTokenizer.from_file(tmp_path / "word.model")
