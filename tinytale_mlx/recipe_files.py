"""Recipes on disk: find one by name or path, apply `--set a.b=c`, say in one sentence what is wrong with it."""

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from .errors import UserError
from .recipe import Recipe


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-3` as a string, for want of a dot; here it is a number."""


_Loader.yaml_implicit_resolvers = {
    first: list(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def names() -> list[str]:
    """The built-in recipes, in alphabetical order."""
    folder = resources.files("tinytale_mlx.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(name_or_path: str, overrides: list[str] | None = None) -> Recipe:
    """The recipe of that built-in name or YAML file, with `a.b=c` overrides applied in order.

    Raises UserError for an unknown name, a file that is not a recipe, an unknown key or a value out of range.
    """
    text, label = _read(name_or_path)
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{label} is not valid YAML: {_one_line(str(error))}") from None
    if not isinstance(content, dict):
        raise UserError(f"{label} is not a recipe: it should hold keys such as `name:` and `model:`")
    for override in overrides or []:
        _apply(content, override)
    return parse(content, label)


def parse(content: dict[str, Any], label: str) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{label}: {_explain(error)}") from None


def dump(recipe: Recipe) -> str:
    """The resolved recipe, every key written out, as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(old: Recipe, new: Recipe) -> list[str]:
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
    raise UserError(f"there is no recipe {name_or_path!r}{_suggest(name_or_path, names())}; `tinytale recipes` lists them")


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


def _explain(error: ValidationError) -> str:
    """The first problem of a validation error as one sentence; an unknown key comes with the nearest known one."""
    problems = error.errors()
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        return f"there is no key {key}{_suggest(location[-1], _fields_at(location[:-1]))}"
    if first["type"] == "missing":
        return f"the key {key} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    return f"{key}: {message[0].lower()}{message[1:]}, not {first['input']!r}"


def _fields_at(location: list[str]) -> list[str]:
    section: Any = Recipe
    for name in location:
        field = section.model_fields.get(name) if hasattr(section, "model_fields") else None
        if field is None:
            return []
        options = [field.annotation, *getattr(field.annotation, "__args__", [])]
        section = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return list(section.model_fields) if section else []


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else (f"; there are {', '.join(known)}" if known else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())
