"""Special tokens added later: new ids at the end, nothing else changes, and other programs agree."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tricky import TRICKY

from tinytale_mlx.errors import UserError
from tinytale_mlx.tokenizers import (
    ByteBPE,
    CharTokenizer,
    LongestMatchTokenizer,
    SpecialTokens,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
)
from tinytale_mlx.tokenizers.huggingface import HuggingFaceTokenizer

NEW = ["<|tool|>", "<|tool|><|tool|>", "[two words]"]


def foreign(corpus: list[str], folder: Path) -> Tokenizer:
    library = pytest.importorskip("tokenizers")
    theirs = library.Tokenizer(library.models.Unigram())
    theirs.pre_tokenizer = library.pre_tokenizers.Metaspace()
    theirs.decoder = library.decoders.Metaspace()
    trainer = library.trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    theirs.train_from_iterator(corpus, trainer)
    theirs.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    decoder = {str(i): {"content": name, **flags} for i, name in enumerate(["<unk>", "<s>", "</s>"])}
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": decoder, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return HuggingFaceTokenizer.load(folder)


KINDS: dict[str, Callable[[list[str], Path], Tokenizer]] = {
    "bpe": lambda corpus, _: ByteBPE.train(corpus, 400),
    "bpe-gpt4-lower": lambda corpus, _: ByteBPE.train(corpus, 400, pattern="gpt4", lowercase=True),
    "bpe-no-specials": lambda corpus, _: ByteBPE.train(corpus, 400, special_tokens=[]),
    "longest": lambda corpus, _: LongestMatchTokenizer.from_bpe(ByteBPE.train(corpus, 400)),
    "char": lambda corpus, _: CharTokenizer.train(corpus),
    "word-cased": lambda corpus, _: WordTokenizer.train(corpus, 60, lowercase=False),
    "huggingface": foreign,
}


@pytest.fixture(params=KINDS)
def tokenizer(request, corpus, tmp_path) -> Tokenizer:
    return KINDS[request.param](corpus, tmp_path)


def test_new_ids_at_the_end_and_the_old_ones_as_before(tokenizer):
    before, size = tokenizer.encode_batch(TRICKY), tokenizer.vocab_size
    more = tokenizer.add_tokens(NEW)
    assert type(more) is type(tokenizer)
    assert [more.special_ids[name] for name in NEW] == [size, size + 1, size + 2]
    assert more.vocab_size == size + 3
    assert more.encode_batch(TRICKY) == before
    assert more.special_ids.items() >= tokenizer.special_ids.items()
    for token_id in range(size):
        assert more.token_bytes(token_id) == tokenizer.token_bytes(token_id)
    assert (more.specials.roles, more.begins_with_bos) == (tokenizer.specials.roles, tokenizer.begins_with_bos)
    assert tokenizer.vocab_size == size  # the old one is as it was
    assert more.fingerprint != tokenizer.fingerprint
    found = [i for i in more.encode("a<|tool|><|tool|><|tool|>a[two words]") if i >= size]
    assert found == [size + 1, size, size + 2]
    assert max(more.encode("".join(NEW), special=False), default=0) < size
    assert more.decode([size, size + 2], skip_special=False).replace("> [", ">[") == "<|tool|>[two words]"
    again = more.add_tokens(["<|last|>"])
    assert again.special_ids["<|last|>"] == size + 3


def test_other_programs_agree(tokenizer, tmp_path):
    more, folder = tokenizer.add_tokens(NEW), tmp_path / "more"
    more.save(folder)
    texts = [*TRICKY, "the<|tool|> cat <|tool|><|tool|>[two words]."]
    ids = more.encode_batch(texts)
    loaded = load_tokenizer(folder)
    assert type(loaded) is type(tokenizer)
    assert loaded.encode_batch(texts) == ids
    assert (loaded.fingerprint, loaded.specials) == (more.fingerprint, more.specials)
    library = pytest.importorskip("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert [library.encode(text, add_special_tokens=False).ids for text in texts] == ids
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert [theirs.encode(text, add_special_tokens=False) for text in texts] == ids
    assert len(theirs) == more.vocab_size


def test_free_roles_are_filled_and_others_are_kept():
    tokenizer = ByteBPE.train("text", 257, special_tokens=["</s>"])
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.begins_with_bos) == (None, None, False)
    more = tokenizer.add_tokens(["<pad>", "<|eos|>", "<s>"])
    assert (more.pad_id, more.eos_id, more.bos_id, more.begins_with_bos) == (257, 0, 259, True)
    own = SpecialTokens(("[STOP]",), eos="[STOP]").extended(["<|endoftext|>"])
    assert own.roles == {"bos": "<|endoftext|>", "eos": "[STOP]"}


def test_roles_reach_the_files_of_a_wrapped_tokenizer(corpus, tmp_path):
    more = foreign(corpus, tmp_path).add_tokens(["<pad>"])
    assert more.pad_id == more.vocab_size - 1
    more.save(tmp_path / "more")
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path / "more", local_files_only=True)
    assert (theirs.pad_token_id, theirs.bos_token_id) == (more.pad_id, more.bos_id)


def test_names_that_are_there_already_are_refused(tokenizer):
    ordinary = next(
        name.decode()
        for i in range(tokenizer.vocab_size)
        if (name := tokenizer.token_bytes(i)).isalpha() and name.isascii()
    )
    cases = {
        "listed twice": ["<|x|>", "<|x|>"],
        "in the vocabulary already": ["<|x|>", ordinary],
        "empty string": [""],
        "lone surrogate": ["\ud83d"],
    }
    if tokenizer.special_ids:
        cases["is a special token already"] = ["<|x|>", next(iter(tokenizer.special_ids))]
    for message, names in cases.items():
        with pytest.raises(UserError, match=message) as error:
            tokenizer.add_tokens(names)
        assert "\n" not in str(error.value)


def test_none_at_all(tokenizer):
    assert tokenizer.add_tokens([]).fingerprint == tokenizer.fingerprint


def test_a_wrapped_vocabulary_with_gaps_has_no_room():
    library = pytest.importorskip("tokenizers")
    backend = library.Tokenizer(library.models.WordLevel({"a": 0, "b": 2}, unk_token="a"))
    with pytest.raises(UserError, match=r"no room for <\|x\|> at the end of its vocabulary"):
        HuggingFaceTokenizer(backend, {}).add_tokens(["<|x|>"])


def test_the_cache_size_comes_along(corpus):
    bpe = ByteBPE.train(corpus, 400)
    bpe.cache_size = 7
    longest = LongestMatchTokenizer.from_bpe(bpe)
    assert bpe.add_tokens(NEW).cache_size == longest.add_tokens(NEW).cache_size == 7
