"""SentencePiece: every text comes back, and the package, `tokenizers` and transformers make the same ids."""

import copy
import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece_checks import ALGORITHMS, TALES, VERY_TRICKY, check, rust
from tokenizers import Tokenizer as RustTokenizer
from tricky import TRICKY

from tinytale_mlx.data.tales import tales
from tinytale_mlx.tokenizers import ByteBPE, SpecialTokens, StreamDecoder, load_tokenizer
from tinytale_mlx.tokenizers.sentencepiece import SentencePieceTokenizer

odd = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" ▁▅\0\t\n\r<0xE2>|eos aTe日😀\u0301")),
    max_size=60,
)
stretches = st.lists(st.sampled_from(["<|eos|>", "<|bos|>", "<0x41>", " the", "ing", "  ", "▁", "\n"])).map("".join)


@pytest.fixture(scope="module", params=ALGORITHMS)
def trained(request) -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train([*TALES, *TRICKY], 900, algorithm=request.param)


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    trained.save(directory, model_max_length=512)
    return directory


@pytest.fixture(scope="module")
def theirs(saved) -> dict[bool, RustTokenizer]:
    """The same of `tokenizers`, with special tokens in the text meant as such, and as plain text."""
    return {special: rust(saved, special=special) for special in (True, False)}


# ---------------------------------------------------------------------- text to ids and back
@pytest.mark.parametrize("text", VERY_TRICKY)
def test_tricky_texts_come_back_and_tokenizers_agrees(trained, theirs, text):
    check(trained, theirs, text)
    assert not {*range(8)} & {*trained.encode(text, special=False)}


@settings(max_examples=300, deadline=None)
@given(text=odd | stretches)
def test_every_text_comes_back_and_tokenizers_agrees(trained, theirs, text):
    check(trained, theirs, text)


def test_ids_are_laid_out_as_for_every_tokenizer(trained):
    assert list(trained.special_ids) == list(SpecialTokens.standard().names)
    assert (trained.pad_id, trained.unk_id, trained.bos_id, trained.eos_id) == (0, 1, 2, 3)
    assert trained.vocab_size == 900
    assert [trained.token_bytes(i) for i in range(8)] == [b""] * 8
    assert [trained.token_bytes(8 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    written = [trained.token_bytes(i) for i in range(264, 900)]
    assert len(set(written)) == 636
    assert b" the" in written
    assert not any(set(piece) & set(b"\t\n\r\0") or "▁".encode() in piece for piece in written)


def test_it_compresses(trained):
    text = "".join(tales(20, seed=9))
    assert len(text.encode()) / len(trained.encode(text)) > 2.5


def test_what_has_no_piece_is_written_in_bytes(trained):
    assert trained.encode("▁\t", special=False) == [8 + byte for byte in "▁\t".encode()]
    assert [trained.token_bytes(i) for i in trained.encode("ꙮ")] == [b"\xea", b"\x99", b"\xae"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_longest_special_token_wins_and_stays_whole(algorithm):
    specials = ["<unk>", "<a>", "<a>b", "my token", "<|END|>"]
    tokenizer = SentencePieceTokenizer.train(TALES, 500, algorithm=algorithm, special_tokens=specials)
    assert tokenizer.encode("<a>b<a>my token<|END|>") == [2, 1, 3, 4]
    assert tokenizer.decode([2, 1, 3], skip_special=False) == "<a>b<a>my token"
    assert tokenizer.decode([2, 1, 3]) == ""
    assert not {1, 2, 3, 4} & set(tokenizer.encode("<a>b<a>my token<|END|>", special=False))
    assert (tokenizer.unk_id, tokenizer.bos_id) == (0, None)


def test_decoding_any_ids(trained):
    ids = list(range(trained.vocab_size))
    assert trained.decode_bytes(reversed(ids)) == b"".join(map(trained.token_bytes, reversed(ids)))
    decoder = StreamDecoder(trained)
    assert [decoder.add(i) for i in trained.encode("ꙮ")] == ["", "", "ꙮ"]
    for wrong in (-1, 900):
        with pytest.raises(ValueError, match=f"token id {wrong} is not in the vocabulary; ids run from 0 to 899"):
            trained.decode([5, wrong])


@pytest.mark.parametrize("size", [7, 777])
def test_a_stream_equals_the_joined_text(trained, size):
    text = "".join([*VERY_TRICKY, *TALES[:10]]) * 2
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    for special in (True, False):
        assert list(trained.encode_iterable(chunks, special=special)) == trained.encode(text, special=special)


def test_what_travels_is_the_model_alone(trained):
    trained.encode(TALES[0])  # fills the cache, which is not sent along
    assert trained.__reduce__() == (SentencePieceTokenizer, (trained.model,), {"begins_with_bos": True})
    again = copy.deepcopy(trained)  # through the same parts as to another process
    assert again.fingerprint == trained.fingerprint
    assert again.begins_with_bos == trained.begins_with_bos
    assert again.encode_batch(VERY_TRICKY) == trained.encode_batch(VERY_TRICKY)


@pytest.mark.slow
def test_several_processes_give_the_same(trained):
    assert trained.encode_batch(VERY_TRICKY, workers=2) == trained.encode_batch(VERY_TRICKY)


def test_the_package_makes_the_same_ids_of_the_model(trained):
    package = sentencepiece.SentencePieceProcessor(model_proto=trained.model)
    for text in [*TALES[:30], "A  few   spaces", "naïve 日本語 😀"]:
        for line in text.splitlines():
            assert trained.encode(line) == package.encode(line)


def test_lone_surrogates_are_refused(trained):
    with pytest.raises(ValueError, match=r"lone surrogate U\+DE00"):
        trained.encode("a \ude00")


# ---------------------------------------------------------------------- more tokens
def test_added_tokens_come_last(trained, saved, tmp_path):
    more = trained.add_tokens(["<|tool|>", "ꙮꙮ"])
    assert type(more) is SentencePieceTokenizer
    assert (more.special_ids["<|tool|>"], more.special_ids["ꙮꙮ"], more.vocab_size) == (900, 901, 902)
    assert more.specials.roles == trained.specials.roles
    assert more.encode("<|tool|>ꙮꙮ<|eos|>") == [900, 901, 3]
    for text in VERY_TRICKY:
        assert more.encode(text) == trained.encode(text)
    more.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == more.fingerprint != trained.fingerprint
    for special in (True, False):
        for text in (*VERY_TRICKY, "<|tool|>ꙮꙮ ꙮ<|tool"):
            ids = rust(tmp_path, special=special).encode(text, add_special_tokens=False).ids
            assert ids == more.encode(text, special=special)


def test_tokens_that_cannot_be_added(trained):
    piece = next(name for i in range(264, 900) if len(name := trained.token_bytes(i).decode()) > 3)
    for name in (piece, piece.replace(" ", "▁")):
        with pytest.raises(ValueError, match="is in the vocabulary already, as an ordinary token"):
            trained.add_tokens([name])
    with pytest.raises(ValueError, match="is a special token already"):
        trained.add_tokens(["<|eos|>"])


# ---------------------------------------------------------------------- files
def test_saving_keeps_the_tokenizer(trained, saved):
    names = ["sentencepiece.model", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in saved.iterdir()) == names
    assert SentencePieceTokenizer.can_read_directory(saved)
    loaded = load_tokenizer(saved)
    assert type(loaded) is SentencePieceTokenizer
    assert (loaded.fingerprint, loaded.specials) == (trained.fingerprint, trained.specials)
    assert loaded.encode_batch(VERY_TRICKY) == trained.encode_batch(VERY_TRICKY)
    loaded.begins_with_bos = False
    assert copy.deepcopy(loaded).begins_with_bos is False


def test_transformers_agrees(trained, saved):
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(saved, local_files_only=True)
    assert (theirs.pad_token_id, theirs.unk_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2, 3)
    assert theirs.model_max_length == 512
    for text in VERY_TRICKY:
        if len(text) < 500:
            ids = trained.encode(text)
            assert theirs.encode(text, add_special_tokens=False) == ids
            assert theirs.encode(text) == [2, *ids]
            assert theirs.decode(ids, skip_special_tokens=False) == text


def test_a_directory_is_ours_only_while_its_files_agree(trained, tmp_path):
    assert not SentencePieceTokenizer.can_read_directory(tmp_path)
    trained.save(tmp_path)
    kept = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    content = json.loads(kept)
    content["truncation"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert SentencePieceTokenizer.can_read_directory(tmp_path)
    content["added_tokens"].append({**content["added_tokens"][0], "id": 900, "content": "<|new|>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert not SentencePieceTokenizer.can_read_directory(tmp_path)
    assert load_tokenizer(tmp_path).special_ids["<|new|>"] == 900
    ByteBPE.train(TALES, 400).save(tmp_path)
    assert not SentencePieceTokenizer.can_read_directory(tmp_path)
    assert type(load_tokenizer(tmp_path)) is ByteBPE


def test_damaged_files(trained, tmp_path):
    trained.save(tmp_path)
    path = tmp_path / "sentencepiece.model"
    model = path.read_bytes()
    middle = model.index(b"<0x41>")
    for content in (
        b"", b"hello", model[:-1], model[: len(model) // 2], model[:middle] + b"\xff" + model[middle + 1 :],
        model.replace(b"<0x41>", b"<0x42>"), model.replace(b"<|reserved_1|>", b"\xff|reserved_1|>"),
    ):  # fmt: skip
        path.write_bytes(content)
        assert SentencePieceTokenizer.can_read_directory(tmp_path)
        with pytest.raises(ValueError, match=r"sentencepiece.model holds no SentencePiece model"):
            load_tokenizer(tmp_path)
    # Whole pieces are missing at the end of the table: what follows is intact.
    path.write_bytes(_without_last_piece(model))
    with pytest.raises(ValueError, match=r"sentencepiece.model holds no SentencePiece model .* it is damaged"):
        SentencePieceTokenizer.load(tmp_path)
    with pytest.raises(ValueError, match=r"cannot read .*: No such file"):
        SentencePieceTokenizer.from_file(tmp_path / "absent.model")


def _without_last_piece(model: bytes) -> bytes:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # pyright: ignore[reportAttributeAccessIssue]

    proto = ModelProto.FromString(model)
    del proto.pieces[-1]
    return proto.SerializeToString()
