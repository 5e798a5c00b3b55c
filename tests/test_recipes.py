"""Recipes: what is written comes back, one key can be set, and what is wrong is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytale_mlx import recipe_files
from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import GenerateRecipe, Recipe, TokenizerRecipe, TrainRecipe

MINIMAL = """
name: small
model: {hidden_size: 32, layers: 2, heads: 4, context: 16, intermediate_size: 48}
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Recipe]:
    """load(text, *overrides): the recipe of a file that holds `text`."""

    def load(text: str | bytes, *overrides: str) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return recipe_files.load(str(path), list(overrides))

    return load


@pytest.fixture
def refusal(load: Callable[..., Recipe]) -> Callable[..., str]:
    """As `load`: the message of the UserError that it must raise, a single line."""

    def refusal(text: str | bytes, *overrides: str) -> str:
        with pytest.raises(UserError) as error:
            load(text, *overrides)
        assert "\n" not in str(error.value)
        return str(error.value)

    return refusal


# ---------------------------------------------------------------------- reading and writing
@pytest.mark.parametrize("name", recipe_files.names())
def test_a_dumped_recipe_loads_as_it_was(name: str, load: Callable[..., Recipe]):
    recipe = recipe_files.load(name)
    assert load(recipe_files.dump(recipe)) == recipe


@pytest.mark.parametrize(
    "text",
    [
        *("1e5", "-1e-3", "2E+4", "1.5e3", "12", "0x1f", "yes", "null", "~", "2024-01-01", "", " a ", "é 日本 😀"),
        *("a: b", "# a", "- a", "[a]", "two\nlines\n", "tab\tbed", "'", '"', "\u2028", "\x07"),
        *("%", "&a", "*a", "!a", "=", "<<"),
    ],
)
def test_text_that_looks_like_something_else_stays_text(text: str, load: Callable[..., Recipe]):
    changed = {"description": text, "generate": GenerateRecipe(prompts=[text, text])}
    recipe = recipe_files.load("tale").model_copy(update=changed)
    assert load(recipe_files.dump(recipe)) == recipe


# PyYAML itself reads U+0085 as a line break.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x85"))


@settings(deadline=None)
@given(st.floats(min_value=1e-30, max_value=1e30), TEXT, st.lists(TEXT))
def test_any_number_and_any_text_come_back(rate: float, text: str, names: list[str]):
    recipe = recipe_files.load("tale").model_copy(
        update={
            "description": text,
            "train": TrainRecipe(learning_rate=rate),
            "tokenizer": TokenizerRecipe(special_tokens=names),
        }
    )
    assert recipe_files.parse(recipe_files.parse_yaml(recipe_files.dump(recipe)), "it") == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 1e-3), ("1E-3", 1e-3), ("6e4", 6e4), ("1.5e3", 1500.0), ("-2e-1", -0.2), (".5e1", 5.0)),
        *(("+1e+2", 100.0), ("0.5", 0.5), ("1_000", 1000), ("3", 3), ("true", True)),
        *((text, text) for text in ("1e", "e3", "v1e3", "2024-01-02", "2024-13-45")),
    ],
)
def test_a_yaml_number_is_a_number_and_nothing_else_is(text: str, value: Any):
    parsed = recipe_files.parse_yaml(f"a: {text}")["a"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_the_dump_is_plain_yaml_for_everyone(load: Callable[..., Recipe]):
    """Other programs read it with the standard loader, and find the same values."""
    recipe = recipe_files.load("tale", ["description=x", "train.min_learning_rate=1e-5"])
    assert yaml.safe_load(recipe_files.dump(recipe)) == recipe.model_dump(mode="json")


def test_differences_name_the_keys_that_changed(load: Callable[..., Recipe]):
    old = load(MINIMAL)
    scaling = "model.rope_scaling={type: linear, factor: 2.0, original_context: 64}"
    new = load(MINIMAL, "train.steps=70", scaling)
    assert recipe_files.differences(old, old) == []
    changed = recipe_files.differences(old, new)
    assert "train.steps: 1000 -> 70" in changed
    assert any("model.rope_scaling.factor" in line for line in changed)


# ---------------------------------------------------------------------- --set a.b=c
@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("train.steps=500", lambda r: r.train.steps, 500),
        ("train.steps = 500", lambda r: r.train.steps, 500),
        ("train.learning_rate=1e-4", lambda r: r.train.learning_rate, 1e-4),
        ("train.learning_rate=1", lambda r: r.train.learning_rate, 1.0),
        ("model.qk_norm=true", lambda r: r.model.qk_norm, True),
        ("model.tie_embeddings=false", lambda r: r.model.tie_embeddings, False),
        ("model.tie_embeddings=no", lambda r: r.model.tie_embeddings, False),
        ("train.max_grad_norm=null", lambda r: r.train.max_grad_norm, None),
        ("train.max_grad_norm=", lambda r: r.train.max_grad_norm, None),
        ("name=other", lambda r: r.name, "other"),
        ("name=2024-01-01", lambda r: r.name, "2024-01-01"),
        ("description=a=b", lambda r: r.description, "a=b"),
        ("description=it's [so", lambda r: r.description, "it's [so"),
        ("description='1e3'", lambda r: r.description, "1e3"),
        ('generate.prompts=["a, b", c]', lambda r: r.generate.prompts, ["a, b", "c"]),
        ("data.source=[tales, ./a.txt]", lambda r: r.data.source, ["tales", "./a.txt"]),
        ("data.source=./a.txt", lambda r: r.data.source, "./a.txt"),
    ],
)
def test_set_changes_one_key(override: str, read: Callable[[Recipe], Any], value: Any, load: Callable[..., Recipe]):
    before, after = load(MINIMAL), load(MINIMAL, override)
    assert read(after) == value
    assert type(read(after)) is type(value)
    assert read(before) != value
    changed = [line.split(": ")[0] for line in recipe_files.differences(before, after)]
    assert changed == [override.partition("=")[0].strip()]


def test_set_makes_a_section_that_was_not_there(load: Callable[..., Recipe]):
    overrides = [f"model.rope_scaling.{pair}" for pair in ("type=linear", "factor=2", "original_context=16")]
    scaling = load(MINIMAL, *overrides).model.rope_scaling
    assert scaling is not None
    assert (scaling.type, scaling.factor, scaling.original_context) == ("linear", 2.0, 16)
    assert load(MINIMAL + "train:\n", "train.steps=3").train.steps == 3  # an empty section is None in YAML


def test_the_last_of_several_sets_wins(load: Callable[..., Recipe]):
    assert load(MINIMAL, "train.steps=5", "train.steps=6").train.steps == 6


@pytest.mark.parametrize("override", ["train.steps", "=5", "train..steps=5", ".steps=5", "train.=5", ""])
def test_a_set_that_is_not_key_value(override: str, refusal: Callable[..., str]):
    assert "KEY=VALUE" in refusal(MINIMAL, override)


def test_set_below_a_value(refusal: Callable[..., str]):
    assert "is a value, not a section" in refusal(MINIMAL, "name.first=5")
    assert "is a value, not a section" in refusal(MINIMAL, "model.heads.number=5")


# ---------------------------------------------------------------------- what is wrong is named
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.steps=5", "there is no key trian; did you mean train?"),
        ("train.step=5", "there is no key train.step; did you mean train.steps?"),
        ("model.hiden_size=5", "there is no key model.hiden_size; did you mean model.hidden_size?"),
        ("generate.topk=5", "there is no key generate.topk; did you mean generate.top_k?"),
        ("model.rope_scaling={type: linear, facter: 2.0, original_context: 9}",
         "there is no key model.rope_scaling.facter; did you mean model.rope_scaling.factor?"),
        ("steps=5", "there is no key steps; did you mean train.steps?"),
        ("model.batch_size=5", "there is no key model.batch_size; did you mean train.batch_size?"),
        ("train.zzz=5", "there is no key train.zzz; there are steps, batch_size,"),
    ],
)  # fmt: skip
def test_a_mistyped_key_gets_a_suggestion(override: str, message: str, refusal: Callable[..., str]):
    assert message in refusal(MINIMAL, override)


def test_a_mistyped_recipe_gets_a_suggestion():
    with pytest.raises(UserError, match=r"there is no recipe 'tiny-tail'; did you mean tiny-tale\?"):
        recipe_files.load("tiny-tail")
    with pytest.raises(UserError, match="there is no recipe file "):
        recipe_files.load("nowhere/tale.yaml")
    with pytest.raises(UserError, match=r"there is no recipe file nowhere\.yaml"):
        recipe_files.load("nowhere.yaml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        # the wrong type
        ("train.steps=many", ["train.steps:", "integer", "'many'"]),
        ("train.steps=1.5", ["train.steps:", "integer", "1.5"]),
        ("train.steps=true", ["train.steps:", "integer", "True"]),
        ("train.steps=null", ["train.steps:", "integer", "None"]),
        ("train.learning_rate=fast", ["train.learning_rate:", "number", "'fast'"]),
        ("model.qk_norm=1", ["model.qk_norm:", "boolean", "1"]),
        ("name=5", ["name:", "string", "5"]),
        ("train=5", ["train ", "section", "5"]),
        ("model=null", ["model ", "section", "None"]),
        ("model.rope_scaling=yarn", ["model.rope_scaling ", "section", "'yarn'"]),
        ("data.source=5", ["data.source:", "string", "5"]),
        ("data.source=[tales, 5]", ["data.source", "string", "5"]),
        ("data.validation_source=5", ["data.validation_source:", "string", "5"]),
        ("generate.prompts=hello", ["generate.prompts:", "list", "'hello'"]),
        # out of range
        ("train.steps=0", ["train.steps:", "greater than 0"]),
        ("train.warmup_steps=-1", ["train.warmup_steps:", "greater than or equal to 0"]),
        ("train.learning_rate=0", ["train.learning_rate:", "greater than 0"]),
        ("train.learning_rate=.nan", ["train.learning_rate:", "finite"]),
        ("train.weight_decay=.inf", ["train.weight_decay:", "finite"]),
        ("train.beta2=1", ["train.beta2:", "less than 1"]),
        ("model.residual_dropout=1.0", ["model.residual_dropout:", "less than 1"]),
        ("model.norm_eps=-1e-5", ["model.norm_eps:", "greater than 0"]),
        ("model.rope_theta=1", ["model.rope_theta:", "greater than 1"]),
        ("generate.temperature=-0.1", ["generate.temperature:", "greater than or equal to 0"]),
        ("generate.top_p=0", ["generate.top_p:", "greater than 0"]),
        ("generate.top_p=1.1", ["generate.top_p:", "less than or equal to 1"]),
        ("generate.prompts=[]", ["generate.prompts:", "at least 1"]),
        ("data.validation=1", ["data.validation:", "less than 1"]),
        ("seed=-1", ["seed:", "greater than or equal to 0"]),
        ("model.positions=rotary", ["model.positions:", "'rope'", "'rotary'"]),
        # keys that do not go together
        ("model.heads=5", ["hidden_size 32 is not divisible by model.heads 5", "30 and 35"]),
        ("model.kv_heads=3", ["heads 4 is not a multiple of model.kv_heads 3"]),
        ("model.head_dim=7", ["even head size", "7"]),
        ("model.distinct_layers=3", ["layers 2 is not a multiple of model.distinct_layers 3"]),
        ("tokenizer.kind=directory", ["tokenizer.path goes with tokenizer.kind directory or gpt2"]),
        ("tokenizer.path=x", ["tokenizer.path goes with tokenizer.kind directory or gpt2"]),
        ("tokenizer.algorithm=bpe", ["tokenizer.algorithm means nothing to a tokenizer of the kind bpe"]),
        ("train.warmup_steps=1000", ["train.warmup_steps 1000 leaves no step"]),
        ("train.min_learning_rate=1", ["train.min_learning_rate is above train.learning_rate"]),
        ("model.rope_scaling={type: llama3, factor: 2, original_context: 9, high_freq_factor: 1}",
         ["low_freq_factor is not below high_freq_factor"]),
    ],
)  # fmt: skip
def test_a_value_that_can_not_be(override: str, words: list[str], refusal: Callable[..., str]):
    message = refusal(MINIMAL, override)
    assert [word for word in words if word not in message] == [], message
    assert "ModelConfig" not in message
    assert "Recipe" not in message


def test_rope_scaling_without_rope(refusal: Callable[..., str]):
    scaling = "model.rope_scaling={type: linear, factor: 2.0, original_context: 16}"
    assert "needs model.positions: rope, not alibi" in refusal(MINIMAL, scaling, "model.positions=alibi")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [a", "is not valid YAML"),
        ("a: 1\n\tb: 2", "is not valid YAML"),
        ("name: !!python/name:os.system x", "is not valid YAML"),
        (b"\x00\x01", "is not valid YAML"),
        ("name: a\nname: b", "is not valid YAML: the key name is there twice"),
        ("model: {heads: 2, heads: 4}", "the key heads is there twice"),
        ("", "is not a recipe"),
        ("just words", "is not a recipe"),
        ("- a\n- b", "is not a recipe"),
        (b"\xff\xfe\x00", "is not a text file"),
        ("name: x", "the key model is missing"),
        ("name: x\nmodel: {layers: 2}", "the key model.hidden_size is missing"),
        ("5: x", "5"),
    ],
)
def test_a_file_that_is_no_recipe(text: str | bytes, words: str, refusal: Callable[..., str]):
    message = refusal(text)
    assert words in message
    assert "recipe.yaml" in message


def test_a_recipe_can_not_be_changed_behind_its_back():
    with pytest.raises(ValueError, match="frozen"):
        recipe_files.load("tale").train.steps = 5  # type: ignore[misc]
