"""Saved tokenizers: read back the same, and read by tokenizers, transformers and mlx-lm with the same ids."""

import json
from pathlib import Path
from typing import Any

import pytest
from tricky import TRICKY

from tinytale_mlx.tokenizers import (
    ByteBPE,
    CharTokenizer,
    LongestMatchTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
)

OURS = (ByteBPE, LongestMatchTokenizer, CharTokenizer, WordTokenizer)


def longest(corpus: list[str], **options: Any) -> LongestMatchTokenizer:
    return LongestMatchTokenizer.from_bpe(ByteBPE.train(corpus, 600, **options))


KINDS = {
    "bpe": lambda corpus: ByteBPE.train(corpus, 600),
    "bpe-gpt4": lambda corpus: ByteBPE.train(corpus, 600, pattern="gpt4"),
    "bpe-nfc": lambda corpus: ByteBPE.train(corpus, 600, normalize="NFC"),
    "bpe-nfkc-lower": lambda corpus: ByteBPE.train(corpus, 600, normalize="NFKC", lowercase=True),
    "bpe-no-specials": lambda corpus: ByteBPE.train(corpus, 500, special_tokens=[]),
    "longest": lambda corpus: longest(corpus),
    "longest-gpt4-nfkc-lower": lambda corpus: longest(corpus, pattern="gpt4", normalize="NFKC", lowercase=True),
    "longest-no-specials": lambda corpus: longest(corpus, special_tokens=[]),
    "char-no-specials": lambda corpus: CharTokenizer.train(corpus, special_tokens=[]),
    "char": lambda corpus: CharTokenizer.train(corpus),
    "word": lambda corpus: WordTokenizer.train(corpus, 40),
    "word-cased": lambda corpus: WordTokenizer.train(corpus, 60, lowercase=False),
}


@pytest.fixture(scope="module", params=KINDS)
def saved(request, corpus, tmp_path_factory) -> tuple[Tokenizer, Path]:
    directory = tmp_path_factory.mktemp(request.param)
    tokenizer = KINDS[request.param](corpus)
    tokenizer.save(directory, model_max_length=256)
    return tokenizer, directory


def test_loading_gives_the_same_tokenizer(saved, tmp_path):
    tokenizer, directory = saved
    loaded = load_tokenizer(directory)
    assert type(loaded) is type(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.vocab_size, loaded.special_ids) == (tokenizer.vocab_size, tokenizer.special_ids)
    assert loaded.specials == tokenizer.specials
    assert loaded.encode_batch(TRICKY) == tokenizer.encode_batch(TRICKY)
    loaded.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (directory / "tokenizer.json").read_bytes()
    assert sorted(path.name for path in directory.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_tokenizers_agrees(saved):
    tokenizer, directory = saved
    theirs = pytest.importorskip("tokenizers").Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert theirs.get_vocab_size() == tokenizer.vocab_size
    for text in [*TRICKY, "".join(TRICKY)]:
        ids = tokenizer.encode(text)
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        for skip in (True, False):
            assert theirs.decode(ids, skip_special_tokens=skip) == tokenizer.decode(ids, skip_special=skip)


def test_tokenizers_writes_the_same_file(saved):
    _, directory = saved
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    theirs = pytest.importorskip("tokenizers").Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert json.loads(theirs.to_str()) == content


def test_transformers_agrees(saved):
    tokenizer, directory = saved
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(directory, local_files_only=True)
    assert len(theirs) == tokenizer.vocab_size
    assert theirs.model_max_length == 256
    assert (theirs.pad_token_id, theirs.unk_token_id, theirs.bos_token_id, theirs.eos_token_id) == (
        tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id
    )  # fmt: skip
    for text in [*TRICKY, "".join(TRICKY)]:
        ids = tokenizer.encode(text)
        begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs(text)["input_ids"] == begin + ids
        assert theirs.decode(ids) == tokenizer.decode(ids, skip_special=False)


def test_mlx_lm_agrees(saved):
    tokenizer, directory = saved
    utils = pytest.importorskip("mlx_lm.tokenizer_utils")
    theirs = utils.load(directory)
    for text in TRICKY:
        ids = tokenizer.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ids
        detokenizer = theirs.detokenizer
        detokenizer.reset()
        for token_id in ids:
            detokenizer.add_token(token_id)
        detokenizer.finalize()
        # mlx-lm 0.32's streaming detokenizer writes a NUL byte as U+0100.
        if tokenizer.unk_id not in ids and "<|" not in text and "\0" not in text:
            assert detokenizer.text.strip() == tokenizer.decode(ids).strip()
    if tokenizer.eos_id is not None:
        assert tokenizer.eos_id in theirs.eos_token_ids


def test_tokens_with_commas_survive(tmp_path):
    tokenizer = ByteBPE.train("a,b,,c, ,\n,", 259, min_frequency=1, special_tokens=["<,>"])
    assert any(b"," in first or b"," in second for first, second in tokenizer.merges)
    tokenizer.save(tmp_path)
    assert ByteBPE.load(tmp_path).merges == tokenizer.merges
    assert ByteBPE.load(tmp_path).encode("a,b,,c, <,>,") == tokenizer.encode("a,b,,c, <,>,")


def test_the_fingerprint_changes_with_anything_that_changes_ids(corpus, bpe):
    others = [
        ByteBPE.train(corpus, 599),
        ByteBPE.train(corpus, 600, pattern="gpt4"),
        ByteBPE(bpe.vocab, bpe.merges, list(bpe.special_ids)[1:]),
    ]
    prints = {bpe.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 4
    assert ByteBPE(bpe.vocab, bpe.merges, bpe.specials).fingerprint == bpe.fingerprint


def test_foreign_tokenizers_are_wrapped(tmp_path, corpus):
    library = pytest.importorskip("tokenizers")
    theirs = library.Tokenizer(library.models.Unigram())
    theirs.pre_tokenizer = library.pre_tokenizers.Metaspace()
    theirs.decoder = library.decoders.Metaspace()
    trainer = library.trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    theirs.train_from_iterator(corpus, trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}')
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    ours = load_tokenizer(tmp_path)
    assert (ours.bos_id, ours.eos_id, ours.pad_id, ours.unk_id) == (1, 2, None, None)
    assert ours.vocab_size == theirs.get_vocab_size()
    ids = ours.encode("the cat sat</s>")
    assert ids == theirs.encode("the cat sat</s>").ids
    assert ids[-1] == 2
    assert ours.encode("</s>", special=False) != [2]
    assert ours.decode(ids) == "the cat sat"
    assert ours.decode_bytes(ids) == b" the cat sat"
    with pytest.raises(ValueError, match="token id 99999 is not in the vocabulary"):
        ours.decode([99999])
    with pytest.raises(ValueError, match="lone surrogate"):
        ours.encode("\ud83d")
    ours.save(tmp_path / "again", model_max_length=64)
    again = load_tokenizer(tmp_path / "again")
    assert again.fingerprint == ours.fingerprint
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_tokens_added_by_transformers(tmp_path, bpe):
    transformers = pytest.importorskip("transformers")
    bpe.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    theirs.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    theirs.save_pretrained(tmp_path / "special")
    ours = load_tokenizer(tmp_path / "special")
    assert isinstance(ours, ByteBPE)
    assert (ours.encode("a<|tool|>"), ours.vocab_size) == (theirs.encode("a<|tool|>", add_special_tokens=False), 601)
    assert (ours.eos_id, ours.pad_id) == (3, 0)
    theirs.add_tokens(["wizard"])
    theirs.save_pretrained(tmp_path / "plain")
    wrapped = load_tokenizer(tmp_path / "plain")
    assert type(wrapped).__name__ == "HuggingFaceTokenizer"
    assert wrapped.encode("a wizard<|tool|>") == theirs.encode("a wizard<|tool|>", add_special_tokens=False)
    assert wrapped.token_bytes(601) == b"wizard"


def test_a_foreign_byte_level_bpe_is_wrapped(tmp_path, bpe):
    bpe.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["ignore_merges"] = True
    path.write_text(json.dumps(content))
    wrapped = load_tokenizer(tmp_path)
    assert type(wrapped).__name__ == "HuggingFaceTokenizer"
    ids = wrapped.encode("naïve 😀 cat")
    assert b"".join(map(wrapped.token_bytes, ids)) == "naïve 😀 cat".encode()
    with pytest.raises(ValueError, match=r"tokenizer\.json holds no byte-level BPE .* way of its own"):
        ByteBPE.load(tmp_path)


def test_damaged_files_are_named(tmp_path, bpe):
    bpe.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = path.read_text(encoding="utf-8")
    content = json.loads(whole)
    no_vocab = {**content, "model": {k: v for k, v in content["model"].items() if k != "vocab"}}
    odd_merge = {**content, "model": {**content["model"], "merges": [["a", "b", "c"]]}}
    odd_id = {**content, "model": {**content["model"], "vocab": {**content["model"]["vocab"], "a": "x"}}}
    damaged = ["", "{", whole[: len(whole) // 2], "[1]", "{}", '{"model": 3}', "\ud83d"]
    damaged += [json.dumps(c) for c in (no_vocab, odd_merge, odd_id)]
    for text in damaged:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        for load in (load_tokenizer, *(kind.load for kind in OURS)):
            with pytest.raises(ValueError, match=r"tokenizer\.json") as error:
                load(tmp_path)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"eos_token": "<|e'])
def test_a_damaged_config_is_named(tmp_path, corpus, bpe, text):
    for tokenizer in (bpe, CharTokenizer.train(corpus), WordTokenizer.train(corpus, 50), longest(corpus)):
        tokenizer.save(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text(text)
        with pytest.raises(ValueError, match=r"tokenizer_config\.json is damaged") as error:
            load_tokenizer(tmp_path)
        assert "\n" not in str(error.value)


def test_roles_of_tokens_that_are_not_there_are_left_out(tmp_path, bpe):
    bpe.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<end>", "pad_token": 5, "bos_token": ["x"]}')
    loaded = load_tokenizer(tmp_path)
    assert (loaded.specials.roles, loaded.special_ids) == ({}, bpe.special_ids)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer in .*nowhere"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"cannot read .*tokenizer\.json"):
        ByteBPE.load(tmp_path)


def test_a_failed_save_leaves_the_old_file(tmp_path, bpe, monkeypatch):
    bpe.save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        ByteBPE.train("other text", 272, min_frequency=1).save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
