"""Models made of models: an adapter written into its base, and weights in fewer bits; both as directories to load."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .. import disk, run
from ..data import sources
from ..data.encode import Encoder, encode_all
from ..errors import UserError
from ..evaluation.loss import Score
from ..generation.memory import context_of
from ..interop.huggingface import save_model
from ..interop.layouts import Layout, layout_of
from ..interop.quantized import dtype_json, format_of, formats_json, is_quantized
from ..models.parameters import QUANTIZED, named_arrays
from ..recipe import DataRecipe
from ..recipe.tuning import QuantizeRecipe
from ..tokenizers.chat import save_template
from ..tuning import Fused, fuse
from ..tuning.quantize import Plan, bits_per_weight, dequantize, mixed, quantize, sensitivities, uniform
from .adapting import is_ours, load_tuned, load_with_adapter, run_of
from .loading import Loaded, is_model, load
from .scoring import score_text, scorer

TALES = 300
"""Embedded tales on which a model without a text of its own is measured."""
PROBE_ROWS, PROBE_TOKENS = 8, 256
"""Of the text by which the sensitivity of each matrix is measured."""


def fuse_adapter(
    reference: str | None, output: Path, adapter: str | None = None, unpack: bool = False, root: Path = run.ROOT
) -> dict[str, Any]:
    """Write a model directory with the adapter of a fine-tuning, or `adapter` on the model `reference`, in its weights.

    A quantized base is quantized again, unless `unpack`. Returns what `tinytale fuse --json` prints.

    Raises:
        UserError: there is no adapter, it is a learned prompt, or `output` is there.
    """
    check_new(output)
    if adapter is not None:
        loaded, tuned = load_with_adapter(reference, adapter, root)
    else:
        loaded, tuned = load_tuned(run.find(reference, root))
    if tuned is None:
        raise UserError(f"{loaded.path} is a whole model already; there is no adapter to fuse")
    packed = is_quantized(tuned.base)
    model, how = fuse(tuned, dequantize=unpack)
    if unpack:
        dequantize(model)
    loaded.model = model
    write_model(output, loaded)
    return {"model": str(output), "quantized": packed and not unpack, **vars(how), "text": _said(how, packed, unpack)}


def _said(how: Fused, packed: bool, unpack: bool) -> str:
    if not packed:
        return f"{how.layers} layers fused: the adapter changed them by {how.changed:.2%}"
    if unpack:
        return f"{how.layers} layers fused in full precision: the adapter changed them by {how.changed:.2%}"
    said = f"{how}; what the adapter learned is lost where the second is not far below the first"
    return f"{said} (--dequantize keeps it all)" if how.rounded > how.changed / 3 else str(how)


def run_meant(reference: str | None, root: Path) -> run.Run | None:
    """The run, by default the latest; None for another model."""
    return run.find(None, root) if reference is None else run_of(reference, root)


def load_whole(reference: str | None, root: Path, adapter: str | None = None, unpack: bool = False) -> Loaded:
    """The model with its adapter, if it has one or `adapter` is given, in its weights; `unpack`: none quantized.

    Raises UserError where there is no such model, and for a learned prompt.
    """
    this = run_meant(reference, root)
    if adapter is not None:
        loaded, tuned = load_with_adapter(reference, adapter, root)
    elif this is not None and this.is_adapter():
        loaded, tuned = load_tuned(this)
    else:
        loaded, tuned = load(reference, root), None
    if tuned is not None:
        loaded.model, _ = fuse(tuned, dequantize=unpack)
    if unpack:
        dequantize(loaded.model)
    return loaded


def quantize_model(
    reference: str | None,
    output: Path,
    settings: QuantizeRecipe,
    high: QuantizeRecipe | None = None,
    budget: float | None = None,
    data: list[str] | None = None,
    root: Path = run.ROOT,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write a directory with the model in few bits, its adapter fused, and measure perplexity before and after.

    With a `budget` of bits per weight, the matrices that bear it least get the format `high`. The text to measure on is
    `data`, else what the run held out, else embedded tales. Returns what `tinytale quantize --json` prints.

    Raises:
        UserError: the model is quantized already, no matrix fits the format, or `output` is there.
    """
    check_new(output)
    if budget is not None and not math.isfinite(budget):
        raise UserError(f"a budget is a number of bits per weight, and {budget} is none")
    loaded = load_whole(reference, root)
    if is_quantized(loaded.model):
        raise UserError(f"{loaded.path} is quantized already")
    plan = uniform(loaded.model, settings)
    score, text = _scoring(reference, loaded, data, root)
    notify(f"measuring on {text}")
    before, bytes_before = score(loaded), _bytes(loaded.model)
    if budget is not None:
        notify("measuring how well each matrix bears it")
        high = high or QuantizeRecipe(bits=8, group_size=settings.group_size)
        hurt = sensitivities(loaded.model, _probe(loaded, data), settings)
        plan = _aligned(mixed(loaded.model, hurt, settings, high, budget), loaded.model)
    quantize(loaded.model, plan)
    after = score(loaded)
    write_model(output, loaded)
    return {
        "model": str(output),
        "text": text,
        "tokens": before.tokens,
        "before": _figures(before, bytes_before, None),
        "after": _figures(after, _bytes(loaded.model), bits_per_weight(loaded.model)),
        "layers": {path: form.num_bits for path, form in plan.items()},
    }


def _aligned(plan: Plan, model: Any) -> Plan:
    """q, k and v of a layout that stores them as one matrix get one format: the smallest, which the budget allows."""
    if not is_ours(model) or layout_of(model.config).model_type != "gpt2":
        return plan
    groups: dict[str, list[str]] = {}
    for path in plan:
        if path.endswith(("q_proj", "k_proj", "v_proj")):
            groups.setdefault(path[:-6], []).append(path)
    shared = {
        path: min((plan[one] for one in group), key=lambda form: form.num_bits)
        for group in groups.values()
        for path in group
    }
    return {**plan, **shared}


def _figures(score: Score, size: int, bits: float | None) -> dict[str, Any]:
    return {
        "loss": score.loss,
        "perplexity": score.perplexity,
        "bits_per_byte": score.bits_per_byte,
        "bytes": size,
        "bits_per_weight": bits,
    }


def _scoring(
    reference: str | None, loaded: Loaded, data: list[str] | None, root: Path
) -> tuple[Callable[[Loaded], Score], str]:
    """How to score, and on what."""
    if data:
        return lambda one: score_text(one, DataRecipe(source=data)), ", ".join(data)
    this = run_meant(reference, root)
    if this is not None:
        return scorer(this, loaded), f"what the run {this.name} held out"
    return lambda one: score_text(one, DataRecipe(documents=TALES)), f"{TALES} embedded tales (--data FILE: another)"


def _probe(loaded: Loaded, data: list[str] | None) -> list[mx.array]:
    """Rows of running text, [PROBE_ROWS, T]."""
    length = min(context_of(loaded.model) or PROBE_TOKENS, PROBE_TOKENS)
    recipe = DataRecipe(source=data) if data else DataRecipe(documents=TALES)
    items = ((one, None) for one in sources.documents(recipe, seed=0))
    tokens: list[int] = []
    for part in encode_all(Encoder(loaded.tokenizer), items):
        tokens += part.tokens[: PROBE_ROWS * length].tolist()
        if len(tokens) >= PROBE_ROWS * length:
            break
    rows = [tokens[start : start + length] for start in range(0, PROBE_ROWS * length, length)]
    return [mx.array([row]) for row in rows if row]


def _bytes(model: nn.Module) -> int:
    return sum(array.nbytes for _, array in named_arrays(model.parameters()))


# ---------------------------------------------------------------------- directories
def place_for(reference: str | None, name: str, root: Path = run.ROOT) -> Path:
    """Where what is made of a run goes by default: inside it. Raises UserError where there is no run."""
    if reference is not None and run_of(reference, root) is None and ("/" in reference or is_model(Path(reference))):
        raise UserError(f"{reference} is no run that the result could go into; say where with --output")
    return run.find(reference, root).path / name


def write_model(output: Path, loaded: Loaded, layout: Layout | None = None) -> None:
    """A directory that mlx-lm loads, or in `layout`; of another architecture than ours, with the other files of the
    directory it came from."""
    if is_ours(loaded.model):
        template = loaded.can_chat and (loaded.template or True)
        save_model(output, loaded.model, loaded.tokenizer, loaded.settings, template, layout)
    else:
        _write_other(output, loaded)


def _write_other(output: Path, loaded: Loaded) -> None:
    """mlx-lm's own format, from the parameters as mlx-lm names them."""
    source = loaded.base_path or loaded.path
    config = json.loads((source / "config.json").read_text("utf-8"))
    for key in ("quantization", "quantization_config"):  # of the base, which may have been unpacked
        config.pop(key, None)
    packed = [(path, layer) for path, layer in loaded.model.named_modules() if isinstance(layer, QUANTIZED)]
    arrays = dict(named_arrays(loaded.model.parameters()))
    config |= {**formats_json({path: format_of(layer) for path, layer in packed}), **dtype_json(arrays)}
    with disk.writing("the model", output), disk.replacing_folder(output) as temporary:
        for file in source.iterdir():
            if file.is_file() and not file.name.startswith("model") and file.name != "config.json":
                shutil.copy2(file, temporary)
        mx.save_safetensors(str(temporary / "model.safetensors"), arrays, metadata={"format": "mlx"})
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if loaded.template is not None:
            save_template(temporary, loaded.template)


def check_new(output: Path) -> None:
    if output.exists():
        raise UserError(f"{output} exists; choose another --output")
