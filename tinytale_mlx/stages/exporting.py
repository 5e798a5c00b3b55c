"""Models for other programs: a directory as transformers has it, or one GGUF file for llama.cpp.

The model directory of a run is the first already. What is done here is the rest: adapters become weights, quantized
weights full ones, and the files as large as one wants them.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import run
from ..errors import UserError
from ..interop.gguf import FILE_TYPES, save_gguf
from ..interop.layouts import OWN, layout_for_transformers, why_own
from ..interop.quantized import float_dtype, is_quantized
from ..models.parameters import named_arrays
from ..tokenizers.templates import CHATML
from .adapting import is_ours
from .loading import Loaded
from .shrinking import check_new, load_whole, run_meant, write_model

FORMATS = ("hf", "gguf")
DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
LARGEST = 65504
"""In float16."""


def export_model(
    reference: str | None,
    output: Path,
    form: str = "gguf",
    adapter: str | None = None,
    dtype: str | None = None,
    unpack: bool = False,
    root: Path = run.ROOT,
) -> dict[str, Any]:
    """Write the model, or `adapter` on it, in the format `form` with weights in `dtype`, by default as they are.

    An adapter becomes part of the weights. Quantized ones stay so in a directory, which then only MLX reads, unless
    `unpack`. Returns what `tinytale export --json` prints.

    Raises:
        UserError: the format can't express the model, its tokenizer or the dtype; a learned prompt; `output` is there.
    """
    if form not in FORMATS:
        raise UserError(f"there is no format {form!r} to export to; there are {' and '.join(FORMATS)}")
    wanted = _dtype(form, dtype)
    check_new(output)
    loaded = load_whole(reference, root, adapter, unpack)
    if form == "gguf":
        this = run_meant(reference, root)
        used = _write_gguf(output, loaded, wanted, output.stem if this is None else this.name)
    else:
        used = _write_directory(output, loaded, wanted)
    packed = is_quantized(loaded.model)
    return {
        "model": str(output),
        "format": form,
        "dtype": str(used).removeprefix("mlx.core."),
        "quantized": packed,
        "bytes": sum(file.stat().st_size for file in ([output] if output.is_file() else output.iterdir())),
        "text": "the weights stay quantized, which only MLX reads; --dequantize unpacks them" if packed else "",
    }


def _dtype(form: str, name: str | None) -> mx.Dtype | None:
    if name is None:
        return None
    if name not in DTYPES:
        raise UserError(f"there is no dtype {name!r}; there are {', '.join(DTYPES)}")
    if form == "gguf" and DTYPES[name] not in FILE_TYPES:
        raise UserError(f"MLX writes no {name} into GGUF files; choose float32 or float16")
    return DTYPES[name]


def _write_directory(output: Path, loaded: Loaded, dtype: mx.Dtype | None) -> mx.Dtype:
    model = loaded.model
    if dtype is not None:
        _check_range(model, dtype)
        model.set_dtype(dtype)
    layout = layout_for_transformers(model.config) if is_ours(model) else None
    if layout is OWN:
        raise UserError(f"transformers can't express this model: {why_own(model.config)}")
    write_model(output, loaded, layout)
    return float_dtype(dict(named_arrays(model.parameters())))


def _write_gguf(output: Path, loaded: Loaded, dtype: mx.Dtype | None, name: str) -> mx.Dtype:
    """Weights in a dtype that MLX does not write become float32, which holds them all."""
    model = loaded.model
    if not is_ours(model):
        raise UserError("GGUF files are written of Llama, Qwen3 and GPT-2, and this model is of another architecture")
    found = float_dtype(dict(named_arrays(model.parameters())))
    used = dtype or (found if found in FILE_TYPES else mx.float32)
    _check_range(model, used)
    text = (loaded.template or CHATML).jinja if loaded.can_chat else None
    save_gguf(output, model, loaded.tokenizer, name=name, dtype=used, chat_template=text)
    return used


def _check_range(model: Any, dtype: mx.Dtype) -> None:
    if dtype != mx.float16:
        return
    for name, array in named_arrays(model.parameters()):
        if mx.issubdtype(array.dtype, mx.floating) and float(mx.abs(array).max()) > LARGEST:
            raise UserError(
                f"{name} holds more than {LARGEST:,}, the largest number in float16; choose another --dtype"
            )
