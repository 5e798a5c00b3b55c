"""Models that mlx-lm loads and we do not: other architectures, other quantization. The engine runs them as they are."""

from pathlib import Path
from typing import Any

from ..errors import UserError
from ..tokenizers.files import read_json
from .generation_config import end_ids

FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def download(name: str) -> Path:
    """The directory of a model by its name on the Hugging Face hub, downloaded where it is not there yet.

    Raises UserError where that fails: no such model, no network.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # the hub's client has a family of its own for each of its versions
        raise UserError(f"the model {name} can't be downloaded: {_one_line(error)}") from None


def load_other(directory: Path) -> Any:
    """The model through mlx-lm's loader. Raises UserError where mlx-lm can't load it either."""
    from mlx_lm.utils import load_model

    try:
        return load_model(directory)[0]
    except (ValueError, FileNotFoundError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{directory} can't be loaded: {_one_line(error)}") from None


def config_end_ids(directory: Path) -> set[int]:
    """The ids that end a text: of generation_config.json, else of config.json."""
    found = read_json(directory / "config.json").get("eos_token_id")
    return end_ids(directory) or {one for one in (found if isinstance(found, list) else [found]) if type(one) is int}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
