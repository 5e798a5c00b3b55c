"""The embedded corpus: the same for the same seed, with conversations a model can learn to chat from."""

import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from tinytale_mlx.data import sources
from tinytale_mlx.data.sources import Document, documents, validation_documents
from tinytale_mlx.recipe import DataRecipe

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., list[Document]]


def test_tales_are_a_pure_function_of_seed_and_index(read: Read) -> None:
    few, more = read("tales", documents=40), read("tales", documents=60)
    assert more[:40] == few
    assert len(more) == 60
    assert list(documents(DataRecipe(documents=40), seed=1)) != few


def test_there_are_20000_tales_unless_told_otherwise(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.embedded, "document", lambda seed, index: str(index))
    assert read("tales") == [str(index) for index in range(20_000)]


def test_every_sixth_document_is_a_conversation_that_ends_with_an_answer(read: Read) -> None:
    corpus = read("tales", documents=400)
    for index, document in enumerate(corpus):
        assert isinstance(document, list) == (index % 6 == 5)
        if isinstance(document, list):
            roles = [message["role"] for message in document]
            assert roles == ["user", "assistant"] * (len(roles) // 2)
            assert all(message["content"].strip() for message in document)


def test_a_wish_for_a_tale_about_someone_is_fulfilled(read: Read) -> None:
    wished = re.compile(r"(?:tale|story) about (?:an? )?(\w+)[.?,]")
    heroes = set()
    for document in read("tales", documents=2000):
        if isinstance(document, list) and (found := wished.search(document[0]["content"][:60])):
            heroes.add(found[1])
            assert found[1] in document[1]["content"]
    assert len(heroes) > 20


def test_every_answer_about_the_model_is_trained_on(read: Read) -> None:
    """The split puts equal documents on one side; no answer may be only on the validation side."""
    from tinytale_mlx.data.split import split
    from tinytale_mlx.data.tales import IDENTITY

    corpus = [document for document in read("tales", documents=20_000) if isinstance(document, list)]
    trained = {message["content"] for document in corpus if split(document, 0.1) == "train" for message in document}
    assert len(IDENTITY) == 50
    assert {pair["answer"] for pair in IDENTITY} <= trained


def test_validation_tales_are_other_tales() -> None:
    data = DataRecipe(source="tales", validation_source="tales")
    training = {json.dumps(document) for document in islice(documents(data, 0), 1000)}
    validation = [json.dumps(document) for document in validation_documents(data, 0)]
    assert len(validation) == 1000
    assert len(training.intersection(validation)) < 30  # only questions about the model may come twice


def test_validation_source_is_read_whole(write: Write) -> None:
    path = write("v.json", '["1", "2", "3"]')
    data = DataRecipe(source="tales", documents=2, validation_source=str(path))
    assert list(validation_documents(data, 0)) == ["1", "2", "3"]
