"""Files to read, a way to read them, and a tokenizer small enough to know every id of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from tinytale_mlx.data.sources import Document, documents
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import DataRecipe
from tinytale_mlx.tokenizers.base import Tokenizer
from tinytale_mlx.tokenizers.special import SpecialTokens


class ByteTokenizer(Tokenizer):
    """Byte b is id `len(special_ids)` + b; `extra` unused ids make the vocabulary larger."""

    def __init__(self, specials: SpecialTokens | None = None, extra: int = 0) -> None:
        specials = SpecialTokens.standard() if specials is None else specials
        super().__init__(specials, {name: number for number, name in enumerate(specials.names)})
        self.first, self.extra = len(specials.names), extra

    def _encode_plain(self, text: str) -> list[int]:
        return [self.first + byte for byte in text.encode()]

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id - self.first]) if self.first <= token_id < self.first + 256 else b""

    @property
    def vocab_size(self) -> int:
        return self.first + 256 + self.extra

    def _to_json(self) -> dict[str, Any]:
        return {"bytes": self.extra}

    @classmethod
    def load(cls, directory: object) -> Self:
        return cls()  # there is nothing to read: every instance knows the bytes


@pytest.fixture(name="byte_tokenizer")
def _byte_tokenizer() -> type[ByteTokenizer]:
    """The class: call it for a tokenizer."""
    return ByteTokenizer


@pytest.fixture
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """write(name, content): a file in the test's own folder."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def read() -> Callable[..., list[Document]]:
    """read(source, **fields of the data recipe): all documents, for seed 0."""

    def read(source: Path | str | list[str], **fields: Any) -> list[Document]:
        data = DataRecipe(source=source if isinstance(source, list) else str(source), **fields)
        return list(documents(data, seed=0))

    return read


@pytest.fixture
def refusal(read: Callable[..., list[Document]]) -> Callable[..., str]:
    """As `read`: the message of the UserError that it must raise, a single line."""

    def refusal(source: Path | str | list[str], **fields: Any) -> str:
        with pytest.raises(UserError) as error:
            read(source, **fields)
        assert "\n" not in str(error.value)
        return str(error.value)

    return refusal
