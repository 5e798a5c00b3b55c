"""Model directories as mlx-lm and transformers have them: ours written and read, others' read.

A directory holds config.json, model.safetensors, tokenizer files, generation_config.json and, for a chat
model, chat_template.jinja. It is written under another name, flushed to the disk, then renamed: complete,
or not there. Pickled weights are never opened, since reading them runs whatever code is inside.
"""

from pathlib import Path

import mlx.core as mx
from pydantic import ValidationError

from .. import disk
from ..errors import UserError
from ..models import Transformer
from ..models.parameters import named_arrays
from ..recipe import GenerateRecipe, ModelConfig
from ..tokenizers.base import Tokenizer
from ..tokenizers.chat import ChatTemplate, marker_id, save_template
from ..tokenizers.files import read_json, write_json
from ..tokenizers.special import IM_END
from . import quantized
from .generation_config import NAME, generation_json
from .layouts import LAYOUTS, OWN, Layout, layout_of
from .spelling import Json, Weights

WEIGHTS, INDEX, TEMPLATE = "model.safetensors", "model.safetensors.index.json", "chat_template.jinja"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
SUPPORTED = ", ".join(layout.model_type for layout in LAYOUTS)


# ---------------------------------------------------------------------- writing
def save_model(
    directory: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    generation: GenerateRecipe,
    chat_template: bool | ChatTemplate,
    layout: Layout | None = None,
) -> None:
    """Write `directory`, replacing what an earlier save left there, in the layout that `layout_of` chooses.

    `chat_template` says that the model was tuned on conversations: mlx-lm then takes every prompt for a
    message, and generation ends at <|im_end|> too. It may be the template itself; True is ChatML, or the tokenizer's.
    `layout` is another one that can express the model.

    Raises:
        UserError: the disk is full or read-only; the directory holds something else; more tokens than rows.
    """
    directory = directory.resolve()
    tokens = _token_ids(tokenizer, bool(chat_template))
    check_rows(tokenizer, model)
    _check_replaceable(directory)
    with disk.writing("the model", directory), disk.replacing_folder(directory) as temporary:
        _write_weights(temporary, model, tokens, layout or layout_of(model.config))
        write_json(temporary / NAME, generation_json(generation, tokens))
        tokenizer.save(temporary, model_max_length=model.config.context)
        if not isinstance(chat_template, bool):
            save_template(temporary, chat_template)
        elif chat_template and not (temporary / TEMPLATE).exists():  # another's tokenizer may bring its own
            save_template(temporary)


def check_rows(tokenizer: Tokenizer, model: Transformer) -> None:
    """Raises UserError for more tokens than the embedding has rows."""
    rows = model.config.vocab_size or 0
    if tokenizer.vocab_size > rows:
        raise UserError(f"the tokenizer has {tokenizer.vocab_size} tokens and the model only {rows}")


def _write_weights(directory: Path, model: Transformer, tokens: Json, layout: Layout) -> None:
    weights, said = dict(named_arrays(model.parameters())), {}
    dtype = quantized.dtype_json(weights)
    if quantized.is_quantized(model):
        weights, said = quantized.weights_out(model, layout)
    else:
        weights = layout.weights_out(weights, model.config)
    mx.save_safetensors(str(directory / WEIGHTS), weights, metadata={"format": "mlx"})
    write_json(directory / "config.json", {**layout.to_config(model.config), **tokens, **dtype, **said})


def _token_ids(tokenizer: Tokenizer, chat: bool) -> Json:
    """The ids that programs ask for; null where there is none, or transformers would take its own default."""
    eos: int | list[int] | None = tokenizer.eos_id
    if chat and (IM_END in tokenizer.special_ids or eos is None):
        eos = [*([] if eos is None else [eos]), marker_id(tokenizer, IM_END)]
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos, "pad_token_id": tokenizer.pad_id}


def _check_replaceable(directory: Path) -> None:
    """Only what we wrote is replaced; a folder of somebody's files is not ours to delete."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    config = directory / "config.json"
    if not config.is_file() or "tinytale" not in read_json(config):
        raise UserError(f"{directory} holds something that tinytale did not write; choose another folder")


# ---------------------------------------------------------------------- reading
def load_model(directory: Path) -> tuple[Transformer, ModelConfig]:
    """The model in a directory that we, mlx-lm or transformers wrote, in the dtype of the file.

    Raises UserError for a missing or damaged file, pickled weights, an architecture we lack, another program's
    quantization, and weights that do not fit the configuration.
    """
    raw = _read_config(directory)
    weights = _read_weights(directory)
    config = _config(raw, directory, weights)
    weights = quantized.weights_in(weights, _layout(raw), config)
    model = Transformer(config)
    if raw.get("quantization") and not quantized.fit(model, weights):
        raise UserError(f"{directory / 'config.json'} says that the model is quantized, and its weights are not")
    _check_weights(weights, model, directory)
    model.load_weights(list(weights.items()))
    try:
        mx.eval(model.parameters())
    except RuntimeError as error:
        raise UserError(f"the weights in {directory} can't be read: {error}") from None
    return model, config


def load_config(directory: Path) -> ModelConfig:
    """The configuration alone; of the weights no more than the names, where config.json leaves a doubt."""
    raw = _read_config(directory)
    return _config(raw, directory, {} if "tinytale" in raw else _read_weights(directory))


def from_config(raw: Json) -> ModelConfig:
    """The configuration in somebody's config.json of model_type llama, qwen3, gpt2 or nanochat.

    Raises UserError for another model_type, a missing key, and a feature that tinytale does not have.
    """
    layout = _layout(raw)
    if layout is OWN:
        raise UserError('model_type tinytale goes with a key "tinytale", which is missing')
    tied = raw.get("tie_word_embeddings")
    try:
        fields = {**layout.fields(raw), "vocab_size": raw["vocab_size"]}
    except KeyError as error:
        raise UserError(f"a {layout.model_type} model needs the key {error}, which is missing") from None
    except (TypeError, AttributeError) as error:
        raise UserError(f"a value has the wrong type: {error}") from None
    return _validated({**fields, "tie_embeddings": layout.tied_by_default if tied is None else tied})


def _config(raw: Json, directory: Path, weights: Weights) -> ModelConfig:
    try:
        if "tinytale" in raw:
            return _validated(raw["tinytale"])
        if raw.get("tie_word_embeddings") is None and weights:
            # mlx-lm takes tied for granted, transformers untied; the weights know.
            raw = {**raw, "tie_word_embeddings": "lm_head.weight" not in weights}
        return from_config(raw)
    except UserError as error:
        raise UserError(f"{directory / 'config.json'}: {error}") from None


def _validated(fields: Json) -> ModelConfig:
    try:
        config = ModelConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {said}" if where else said) from None
    if config.vocab_size is None:
        raise UserError("vocab_size is missing")
    return config


def _layout(raw: Json) -> Layout:
    found = next((layout for layout in LAYOUTS if layout.model_type == raw.get("model_type")), None)
    if found is None:
        raise UserError(f"tinytale has no architecture {raw.get('model_type')!r}; supported are {SUPPORTED}")
    return found


def _read_config(directory: Path) -> Json:
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} holds no model: there is no config.json")
    raw = read_json(path)
    if raw.get("quantization_config") and not raw.get("quantization"):
        raise UserError(f"{path}: the model is quantized by another program than mlx-lm; tinytale can't read that")
    try:
        _layout(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return raw


def _read_weights(directory: Path) -> Weights:
    """Every array of every file, still on the disk: MLX reads an array when it is needed."""
    found: Weights = {}
    for file in _weight_files(directory):
        try:
            arrays = mx.load(str(file))
        except (RuntimeError, OSError) as error:
            raise UserError(f"{file} can't be read: {error}") from None
        assert isinstance(arrays, dict)
        found |= arrays
    return found


def _weight_files(directory: Path) -> list[Path]:
    """The one file, or the shards that the index names, or without an index those that look like it."""
    if (directory / INDEX).is_file():
        named = read_json(directory / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise UserError(f"{directory / INDEX} is damaged: it has no weight_map")
        files = [directory / Path(name).name for name in sorted(set(named.values()))]  # never outside it
    else:
        files = sorted(directory.glob("model*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{directory} is incomplete: {', '.join(missing)} is missing")
    if not files and any(any(directory.glob(pattern)) for pattern in PICKLED):
        raise UserError(
            f"the weights in {directory} are pickled, and reading those can run any code, so tinytale "
            "refuses them; convert them to safetensors"
        )
    if not files:
        raise UserError(f"{directory} holds no weights: there is no {WEIGHTS}")
    return files


def _check_weights(weights: Weights, model: Transformer, directory: Path) -> None:
    expected = {name: tuple(array.shape) for name, array in named_arrays(model.parameters())}
    wrong = [
        f"{name} is {list(weights[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    problems = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of the wrong shape": wrong,
    }
    said = [f"{what}: {_few(names)}" for what, names in problems.items() if names]
    if said:
        raise UserError(f"the weights in {directory} do not fit config.json; {'; '.join(said)}")


def _few(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
