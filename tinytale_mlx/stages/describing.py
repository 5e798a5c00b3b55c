"""What a recipe or a model is, before or after training."""

from pathlib import Path
from typing import Any

from .. import recipe_files, run
from ..errors import UserError
from ..interop.layouts import layout_of, why_own
from ..models.parameters import count_parameters, named_arrays
from .loading import blueprint, is_model, load


def describe(what: str | None, overrides: list[str], root: Path = run.ROOT) -> dict[str, Any]:
    """Facts about a recipe, a run or a model directory; `shapes` lists every parameter."""
    if what is not None and (what in recipe_files.names() or what.endswith((".yaml", ".yml"))):
        recipe = recipe_files.load(what, overrides)
        model, title = blueprint(recipe), {"recipe": recipe.name, "description": recipe.description}
    else:
        if overrides:
            raise UserError("--set changes a recipe; a trained model is what it is")
        loaded = load(_known(what, root), root)
        model, title = loaded.model, {"model": str(loaded.path)}
    config = model.config
    layout = layout_of(config)
    return {
        **title,
        "parameters": count_parameters(model),
        "trainable_parameters": sum(array.size for _, array in named_arrays(model.trainable_parameters())),
        "layout": layout.name,
        "layout_note": why_own(config) if layout.name == "own" else "loads in mlx-lm as it is",
        "context": config.context,
        "vocab_size": config.vocab_size,
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "heads": config.heads,
        "kv_heads": config.num_kv_heads,
        "positions": config.positions,
        "shapes": [(name, array.shape, array.size) for name, array in named_arrays(model.parameters())],
    }


def _known(what: str | None, root: Path) -> str | None:
    """`what` again, where it is a run or a model; the error otherwise speaks of recipes too."""
    if what is None or is_model(Path(what)):
        return what
    try:
        run.find(what, root)
    except UserError as error:
        raise UserError(f"{error}; nor is there such a recipe, see `tinytale recipes`") from None
    return what
