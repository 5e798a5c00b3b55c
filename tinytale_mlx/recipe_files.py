"""Recipes on disk: find one by name or path, apply `--set a.b=c`, say in one sentence what is wrong with it."""

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from .errors import UserError
from .recipe import ALIGNMENTS, AlignRecipe, FinetuneRecipe, Recipe

AnyRecipe = Recipe | FinetuneRecipe | AlignRecipe
Tuning = TypeVar("Tuning", FinetuneRecipe, AlignRecipe)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-3` as a string, for want of a dot, and `2024-01-02` as a date: here a number, and a string.

    A key that is there twice is refused, where YAML would forget the first one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around a text that `_Loader` would read as a number."""


_NUMBER = re.compile(r"^[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except ValueError as error:  # what looks like a number and is none, such as 0b_
        raise yaml.YAMLError(str(error)) from None


def names() -> list[str]:
    """The built-in recipes, in alphabetical order."""
    folder = resources.files("tinytale_mlx.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(name_or_path: str, overrides: list[str] | None = None) -> Recipe:
    """The recipe of that built-in name or YAML file, with `a.b=c` overrides applied in order.

    Raises UserError for an unknown name, a file that is not a recipe, an unknown key or a value out of range.
    """
    text, label = _read(name_or_path)
    content = _with_overrides(text, label, overrides)
    if "base" in content and "model" not in content:
        command = "rlhf" if "kind" in content else "finetune"
        raise UserError(f"{label} is the recipe of a `tinytale {command}`, and this needs that of a `tinytale train`")
    return parse(content, label)


def load_finetune(path: Path, overrides: list[str] | None = None) -> FinetuneRecipe:
    """The recipe of a fine-tuning, as its run keeps it. Raises UserError as `load` does."""
    return _parse_tuning(*_content(path, overrides), FinetuneRecipe)


def make_finetune(content: dict[str, Any], overrides: list[str]) -> FinetuneRecipe:
    """A new one of these keys and `a.b=c` overrides. Raises UserError as `load` does."""
    return _parse_tuning(_overridden(content, overrides), "the recipe", FinetuneRecipe)


def load_align(path: Path, overrides: list[str] | None = None) -> AlignRecipe:
    """The recipe of an alignment, of whichever kind, as its run keeps it. Raises UserError as `load` does."""
    content, label = _content(path, overrides)
    if content.get("kind") not in ALIGNMENTS:
        raise UserError(f"{label}: kind is {content.get('kind')!r}; there are {', '.join(ALIGNMENTS)}")
    return _parse_tuning(content, label, ALIGNMENTS[content["kind"]])


def make_align(kind: str, content: dict[str, Any], overrides: list[str]) -> AlignRecipe:
    """A new one of these keys and `a.b=c` overrides. Raises UserError as `load` does."""
    return _parse_tuning(_overridden(content, overrides), "the recipe", ALIGNMENTS[kind])


def _content(path: Path, overrides: list[str] | None) -> tuple[dict[str, Any], str]:
    """What a file says, with overrides, and what to call it in a message."""
    text, label = _read(str(path))
    return _with_overrides(text, label, overrides), label


def _parse_tuning(content: dict[str, Any], label: str, of: type[Tuning]) -> Tuning:
    try:
        return of.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{label}: {_explain(error, of)}") from None


def _with_overrides(text: str, label: str, overrides: list[str] | None) -> dict[str, Any]:
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{label} is not valid YAML: {_one_line(str(error))}") from None
    if not isinstance(content, dict):
        raise UserError(f"{label} is not a recipe: it should hold keys such as `name:` and `model:`")
    return _overridden(content, overrides)


def _overridden(content: dict[str, Any], overrides: list[str] | None) -> dict[str, Any]:
    for override in overrides or []:
        _apply(content, override)
    return content


def parse(content: dict[str, Any], label: str) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{label}: {_explain(error)}") from None


def dump(recipe: AnyRecipe) -> str:
    """The resolved recipe, every key written out, as YAML that `load` reads back to an equal recipe."""
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def differences(old: AnyRecipe, new: AnyRecipe) -> list[str]:
    """`key: old -> new` for each key in which the two differ."""
    before, after = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    keys = [*before, *(key for key in after if key not in before)]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _read(name_or_path: str) -> tuple[str, str]:
    """The text of a recipe and what to call it in a message."""
    if name_or_path in names():
        resource = resources.files("tinytale_mlx.recipes") / f"{name_or_path}.yaml"
        return resource.read_text(encoding="utf-8"), f"recipe {name_or_path}"
    path = Path(name_or_path)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except UnicodeDecodeError:
            raise UserError(f"{path} is not a text file, so it can't be a recipe") from None
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise UserError(f"there is no recipe file {path}")
    suggestion = _suggest(name_or_path, names())
    raise UserError(f"there is no recipe {name_or_path!r}{suggestion}; `tinytale recipes` lists them")


def _apply(content: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set takes KEY=VALUE, such as train.steps=500, not {override!r}")
    node = content
    for key in keys[:-1]:
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: {key} is a value, not a section")
    try:
        node[keys[-1]] = parse_yaml(value)
    except yaml.YAMLError:
        node[keys[-1]] = value


def _explain(error: ValidationError, of: type[BaseModel] = Recipe) -> str:
    """The first problem of a validation error as one sentence; an unknown key comes with the nearest known one."""
    problems = error.errors()
    first = next((p for p in problems if p["type"] in ("extra_forbidden", "invalid_key")), problems[0])
    key = _key(first["loc"], of)
    # Of a value that may be this or that, each way of reading it is a problem; the one that got furthest says most.
    same = [p for p in problems if _key(p["loc"], of) == key]
    first = max(same, key=lambda p: (len(p["loc"]), not p["type"].endswith("_type")))
    message = first["msg"].removeprefix("Value error, ")
    match first["type"]:
        case "extra_forbidden":
            return f"there is no key {key}{_suggest_key(key, of)}"
        case "missing":
            return f"the key {key} is missing"
        case "model_type":
            return f"{key} is a section with keys of its own, not {first['input']!r}"
        case "value_error":
            return message
    value = "" if ", not " in message else f", not {first['input']!r}"
    return f"{key}: {message[0].lower()}{message[1:]}{value}"


def _key(location: tuple[int | str, ...], of: type[BaseModel]) -> str:
    """The recipe's key for a place in it; pydantic goes on with members of unions and indices of lists."""
    parts = [str(part) for part in location]
    depth = 1
    while depth < len(parts) and _section(parts[:depth], of) is not None:
        depth += 1
    return ".".join(parts[:depth])


def _section(location: list[str], of: type[BaseModel]) -> type[BaseModel] | None:
    """The section of that name; None where there is a value, or nothing."""
    section: type[BaseModel] | None = of
    for name in location:
        field = section.model_fields.get(name) if section else None
        options = [field.annotation, *getattr(field.annotation, "__args__", [])] if field else []
        section = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return section


def _suggest_key(key: str, of: type[BaseModel]) -> str:
    """For an unknown key: the same name in another section, or the nearest one in its own, or all that are there."""
    *location, name = key.split(".")
    for other in of.model_fields:
        section = _section([other], of)
        if section and name in section.model_fields:
            return f"; did you mean {other}.{name}?"
    section = _section(location, of)
    return _suggest(name, list(section.model_fields) if section else [], ".".join([*location, ""]))


def _suggest(name: str, known: list[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else (f"; there are {', '.join(known)}" if known else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())
