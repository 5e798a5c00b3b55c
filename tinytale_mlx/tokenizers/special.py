"""The special tokens of a vocabulary: their names in id order, and the roles that some of them have."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UserError
from .splitting import encode_utf8

IM_START, IM_END = "<|im_start|>", "<|im_end|>"

# Names by which other tokenizers call the same thing, so that a plain list of names is enough to find the
# roles.
_KNOWN_NAMES = {
    "pad": ("<|pad|>", "<pad>", "[PAD]", "<PAD>"),
    "unk": ("<|unk|>", "<unk>", "[UNK]", "<UNK>"),
    "bos": ("<|bos|>", "<s>", "[BOS]", "<BOS>", "<|endoftext|>"),
    "eos": ("<|eos|>", "</s>", "[EOS]", "<EOS>", "<|endoftext|>"),
}


@dataclass(frozen=True)
class SpecialTokens:
    """Names in the order of their ids, and the role of those that have one.

    `SpecialTokens(("[PAD]", "[END]"), pad="[PAD]", eos="[END]")` gives names of your own a role.
    """

    names: tuple[str, ...] = ()
    pad: str | None = None
    unk: str | None = None
    bos: str | None = None
    eos: str | None = None

    def __post_init__(self) -> None:
        repeated = {name for name in self.names if self.names.count(name) > 1}
        if repeated:
            raise UserError(f"special token {min(repeated)!r} is listed twice; each needs a name of its own")
        if "" in self.names:
            raise UserError("a special token cannot be the empty string")
        encode_utf8("".join(self.names))
        for role, name in self.roles.items():
            if name not in self.names:
                raise UserError(f"the {role} token {name!r} is not among {list(self.names)}")

    @property
    def roles(self) -> dict[str, str]:
        """Role (pad, unk, bos, eos) to name, for the roles that are filled."""
        named = {"pad": self.pad, "unk": self.unk, "bos": self.bos, "eos": self.eos}
        return {role: name for role, name in named.items() if name is not None}

    @classmethod
    def standard(cls, reserved: int = 2, extra: Iterable[str] = ()) -> "SpecialTokens":
        """Ids 0 to 3 pad, unk, bos, eos; 4 and 5 the chat markers; then `reserved` spare ones and `extra`.

        A reserved token costs one embedding row and can be given a meaning after training.
        """
        spare = tuple(f"<|reserved_{i}|>" for i in range(reserved))
        roles = ("<|pad|>", "<|unk|>", "<|bos|>", "<|eos|>")
        return cls((*roles, IM_START, IM_END, *spare, *extra), *roles)

    @classmethod
    def of(cls, tokens: "SpecialTokens | Iterable[str] | None") -> "SpecialTokens":
        """What a caller may pass: None for the standard ones, names (well-known ones have roles), this."""
        if tokens is None:
            return cls.standard()
        if isinstance(tokens, SpecialTokens):
            return tokens
        return cls().extended(tokens)

    def extended(self, names: Iterable[str]) -> "SpecialTokens":
        """These and further ones. A role that is still free goes to a new token with a well-known name."""
        new = tuple(names)
        for name in new:
            if name in self.names:
                raise UserError(f"{name!r} is a special token already")
        found = {role: name for role, known in _KNOWN_NAMES.items() for name in reversed(known) if name in new}
        return SpecialTokens((*self.names, *new), **{**found, **self.roles})
