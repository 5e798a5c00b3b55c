"""Any other tokenizer that Hugging Face's `tokenizers` library can read, behind our interface."""

import json
import re
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer

from ..errors import UserError
from .base import Tokenizer, check_id
from .byte_level import from_written
from .files import Json, read_config, read_json, read_text, reading, specials_from, write_json
from .special import SpecialTokens

_HEX_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizers.Tokenizer` with the roles of its special tokens, and its chat template if it has one.

    Two promises are weaker here than elsewhere: `vocab_size` is the highest id plus one although ids may be
    missing below it, and `encode_iterable` equals `encode` of the joined text only where a space starts a new
    word in that tokenizer.
    """

    def __init__(self, backend: RustTokenizer, config: Json, template: str | None = None) -> None:
        """`config` and `template` are the contents of tokenizer_config.json and chat_template.jinja."""
        self._backend, self._config, self._template = backend, config, template
        added = backend.get_added_tokens_decoder()
        self._added = {number: token.content for number, token in added.items()}
        special_ids = {token.content: number for number, token in sorted(added.items()) if token.special}
        super().__init__(specials_from(config, tuple(special_ids)), special_ids)
        self.begins_with_bos = self.bos_id is not None and backend.encode("").ids[:1] == [self.bos_id]
        self._size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self._byte_level = '"ByteLevel"' in json.dumps(self._to_json()["decoder"])

    def _encode_plain(self, text: str) -> list[int]:
        return self.encode(text, special=False)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        # The library's name for: special tokens are plain text.
        self._backend.encode_special_tokens = not special
        try:
            return self._backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):
            raise UserError("the text holds a lone surrogate, which is no character") from None

    def decode(self, ids: Any, *, skip_special: bool = True) -> str:
        ids = list(ids)
        for token_id in ids:
            if not 0 <= token_id < self._size:
                raise check_id(token_id, self._size)
        return self._backend.decode(ids, skip_special_tokens=skip_special)

    @property
    def vocab_size(self) -> int:
        return self._size

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < self._size:
            raise check_id(token_id, self._size)
        name = self._backend.id_to_token(int(token_id))
        if name is None or token_id in self._special_names:
            return b""
        if token_id in self._added:
            return name.encode()
        if self._byte_level:
            return from_written(name)
        if match := _HEX_BYTE.fullmatch(name):  # SentencePiece's byte fallback
            return bytes.fromhex(match[1])
        return name.replace("▁", " ").encode()

    def _with_specials(self, specials: SpecialTokens) -> Self:
        backend = RustTokenizer.from_str(self._backend.to_str())
        new = specials.names[len(self.specials.names) :]
        backend.add_special_tokens([AddedToken(name, normalized=False) for name in new])
        if [backend.token_to_id(name) for name in new] != list(range(self._size, self._size + len(new))):
            raise UserError(f"this tokenizer has no room for {', '.join(new)} at the end of its vocabulary")
        roles = {f"{role}_token": name for role, name in specials.roles.items() if name in new}
        return type(self)(backend, self._config | roles, self._template)

    def _to_json(self) -> Json:
        return json.loads(self._backend.to_str())

    def save(self, directory: str | Path, *, model_max_length: int | None = None) -> None:
        directory = Path(directory)
        write_json(directory / "tokenizer.json", self._to_json())
        longest = {} if model_max_length is None else {"model_max_length": model_max_length}
        write_json(directory / "tokenizer_config.json", self._config | longest)
        if self._template is not None:
            (directory / "chat_template.jinja").write_text(self._template, encoding="utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        path = Path(directory) / "tokenizer.json"
        content = json.dumps(read_json(path))
        with reading(path, "tokenizer"):
            try:
                backend = RustTokenizer.from_str(content)
            except Exception as error:  # the library raises nothing narrower
                raise UserError(str(error)) from None
            backend.no_truncation()
            backend.no_padding()
            template = path.with_name("chat_template.jinja")
            return cls(backend, read_config(path.parent), read_text(template) if template.exists() else None)
