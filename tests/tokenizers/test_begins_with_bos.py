"""Whether a text is meant to begin with BOS: ours yes, others as their own files say."""

import json

import pytest

from tinytale_mlx.tokenizers import ByteBPE, CharTokenizer, LongestMatchTokenizer, WordTokenizer, load_tokenizer
from tinytale_mlx.tokenizers.files import begin_json, begins_with
from tinytale_mlx.tokenizers.huggingface import HuggingFaceTokenizer

BOS = begin_json("<|bos|>", 2)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BOTH = {"type": "Sequence", "processors": [BYTE_LEVEL, BOS]}


def change(directory, **content):
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | content))


def test_ours_do_where_they_have_one(corpus, bpe):
    for tokenizer in (bpe, LongestMatchTokenizer.from_bpe(bpe), CharTokenizer.train(corpus)):
        assert tokenizer.begins_with_bos
    assert not ByteBPE.train(corpus, 300, special_tokens=["<|eos|>"]).begins_with_bos


@pytest.mark.parametrize("kind", ["bpe", "longest", "char", "word"])
def test_files_say_it(kind, corpus, bpe, tmp_path):
    tokenizer = {
        "bpe": lambda: bpe,
        "longest": lambda: LongestMatchTokenizer.from_bpe(bpe),
        "char": lambda: CharTokenizer.train(corpus),
        "word": lambda: WordTokenizer.train(corpus, 50),
    }[kind]()
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).begins_with_bos
    change(tmp_path, post_processor=None)
    loaded = load_tokenizer(tmp_path)
    assert not loaded.begins_with_bos
    assert loaded.bos_id == 2
    assert loaded.fingerprint == tokenizer.fingerprint  # the ids of a text are the same
    more = loaded.add_tokens(["<|x|>"])
    assert not more.begins_with_bos
    more.save(tmp_path / "again")  # and it stays so
    assert not load_tokenizer(tmp_path / "again").begins_with_bos


@pytest.mark.parametrize(("processor", "begins"), [(BOS, True), (BOTH, True), (BYTE_LEVEL, False), (None, False)])
def test_wrapped_ones_do_what_their_post_processor_does(processor, begins, bpe, tmp_path):
    library = pytest.importorskip("tokenizers")
    bpe.save(tmp_path)
    change(tmp_path, post_processor=processor)
    theirs = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (theirs.encode("the cat").ids[0] == 2) == begins
    assert HuggingFaceTokenizer.load(tmp_path).begins_with_bos == begins
    assert load_tokenizer(tmp_path).begins_with_bos == begins  # read as ours
    wrapped = HuggingFaceTokenizer.load(tmp_path)
    assert wrapped.encode("the cat") == bpe.encode("the cat")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert not HuggingFaceTokenizer.load(tmp_path).begins_with_bos  # it names no BOS token


def test_another_token_in_front_is_no_bos():
    assert begins_with(BOS, "<|bos|>")
    assert not begins_with(BOS, "<|eos|>")
    assert not begins_with(BOS, None)
    ending = {**BOS, "single": BOS["single"][::-1]}
    assert not begins_with(ending, "<|bos|>")
