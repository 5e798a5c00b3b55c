"""Which layers of a model a name, a path or a pattern means; and which are embeddings, final norm and head.

Nothing here knows an architecture. A model has `layers`, its blocks; what lies outside them is told by its type. So
it works on mlx-lm's models as on ours.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from ..errors import UserError
from ..models.norms import LayerNorm, RMSNorm
from ..models.parameters import named_arrays

LINEAR = (nn.Linear, nn.QuantizedLinear)
EMBEDDING = (nn.Embedding, nn.QuantizedEmbedding)
NORM = (nn.RMSNorm, nn.LayerNorm, RMSNorm, LayerNorm)

Targets = Literal["all-linear"] | Sequence[str]
Layers = dict[str, Any]
"""Path to module."""


def modules(model: nn.Module) -> Layers:
    """Path to module, in the order in which a person would list them: layer 2 before layer 10."""
    found = [(path, module) for path, module in model.named_modules() if path]
    return dict(sorted(found, key=lambda item: [(int(p), "") if p.isdigit() else (-1, p) for p in item[0].split(".")]))


def block_paths(model: Any, last: int | None = None) -> list[str]:
    """The paths of the last so many blocks, or of all. A block that is used at several depths is there once."""
    blocks = model.layers
    if last is not None and last > len(blocks):
        raise UserError(f"the last {last} layers were asked for, and the model has {len(blocks)}")
    wanted = {id(block) for block in blocks[len(blocks) - (last or len(blocks)) :]}
    return [path for path, module in modules(model).items() if id(module) in wanted]


def match_targets(model: nn.Module, targets: Targets, layers: int | None = None) -> Layers:
    """Path to layer of every Linear (and, where it is named, Embedding) that `targets` mean.

    "all-linear" is every matrix inside the blocks. Otherwise each target is the end of a path, such as q_proj or
    self_attn.q_proj, a whole path, or a pattern with * ? [ ]. `layers` leaves only the last so many blocks.

    Raises:
        UserError: a target matches nothing; the sentence lists what there is.
    """
    every = {path: m for path, m in modules(model).items() if isinstance(m, (*LINEAR, *EMBEDDING))}
    inside, allowed = block_paths(model), block_paths(model, layers)
    reachable = {p: m for p, m in every.items() if not _within(p, inside) or _within(p, allowed)}
    if targets == "all-linear":
        found = {p: m for p, m in reachable.items() if isinstance(m, LINEAR) and _within(p, inside)}
        if not found:
            raise UserError(f"the model has no matrix inside its blocks; there are {_known(every)}")
        return found
    chosen: set[str] = set()
    for target in targets:
        matching = {path for path in reachable if matches(path, target)}
        if not matching:
            where = "" if layers is None else f" in the last {layers} layers"
            raise UserError(f"no layer matches the target {target!r}{where}; there are {_known(reachable)}")
        chosen |= matching
    return {path: module for path, module in reachable.items() if path in chosen}


def matches(path: str, target: str) -> bool:
    pattern = any(letter in target for letter in "*?[")
    return path == target or path.endswith(f".{target}") or (pattern and fnmatchcase(path, target))


def embeddings(model: nn.Module) -> Layers:
    """Tables of tokens and of learned positions."""
    return {path: module for path, module in _outside(model).items() if isinstance(module, EMBEDDING)}


def token_embedding(model: nn.Module) -> tuple[str, Any]:
    """The table of tokens: of the embeddings outside the blocks the one that is called so, or the only one."""
    found = embeddings(model)
    named = [path for path in found if path.rsplit(".", 1)[-1] in ("embed_tokens", "wte", "tok_embeddings")]
    path = named[0] if named else next(iter(found))
    return path, found[path]


def final_norm(model: nn.Module) -> Layers:
    return {path: module for path, module in _outside(model).items() if isinstance(module, NORM)}


def head(model: nn.Module) -> Layers:
    """The matrix that makes logits; of a tied model, its embedding."""
    found = {path: module for path, module in _outside(model).items() if isinstance(module, LINEAR)}
    return found or dict([token_embedding(model)])


def is_tied(model: nn.Module) -> bool:
    return not any(isinstance(module, LINEAR) for module in _outside(model).values())


def array_paths(found: Layers) -> dict[str, mx.array]:
    """Path to array of every parameter of these modules."""
    return {
        f"{path}.{name}": array for path, module in found.items() for name, array in named_arrays(module.parameters())
    }


def _outside(model: nn.Module) -> Layers:
    blocks = block_paths(model)
    return {path: module for path, module in modules(model).items() if not _within(path, blocks)}


def _within(path: str, parents: list[str]) -> bool:
    return any(path.startswith(f"{parent}.") for parent in parents)


def _known(found: Layers) -> str:
    """Their names, each once: what follows the number of the block, or the last part of the path."""
    names = [
        re.sub(r"^.*\.\d+\.", "", path) if re.search(r"\.\d+\.", path) else path.rsplit(".", 1)[-1] for path in found
    ]
    return ", ".join(dict.fromkeys(names))
