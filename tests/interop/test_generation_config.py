"""Sampling settings in generation_config.json: transformers' names, and all of them back."""

import json
from pathlib import Path
from typing import Any

import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.interop.generation_config import NAME, end_ids, generation_json, read_generation
from tinytale_mlx.recipe import GenerateRecipe

FULL = GenerateRecipe(
    max_new_tokens=50, min_new_tokens=3, stop=["END", "\n\n"], temperature=0.6, top_k=20, top_p=0.9, min_p=0.05,
    typical_p=0.95, repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=-0.4, no_repeat_ngram=3,
    logit_bias={7: -2.5, 9: 1.0},
)  # fmt: skip
SAME = [
    FULL,
    GenerateRecipe(),
    GenerateRecipe(temperature=0.0, repetition_penalty=1.1, stop=["x"]),
    GenerateRecipe(temperature=0.0, beams=4, length_penalty=0.5),
]


def write(folder: Path, content: Any) -> Path:
    (folder / NAME).write_text(json.dumps(content))
    return folder


def sampled(settings: GenerateRecipe) -> GenerateRecipe:
    """What greedy decoding makes meaningless is not written."""
    default = GenerateRecipe()
    greedy = {"top_p": default.top_p, "top_k": default.top_k} if settings.temperature == 0 else {}
    return settings.model_copy(update=greedy)


@pytest.mark.parametrize("settings", SAME, ids=["full", "default", "greedy", "beams"])
def test_all_come_back(settings: GenerateRecipe, tmp_path: Path):
    write(tmp_path, generation_json(settings, {"eos_token_id": [3, 5]}))
    assert read_generation(tmp_path) == sampled(settings)
    assert end_ids(tmp_path) == {3, 5}


def test_the_names_of_transformers():
    found = generation_json(FULL, {})
    assert found == {
        "max_new_tokens": 50, "min_new_tokens": 3, "do_sample": True, "stop_strings": ["END", "\n\n"],
        "temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.95, "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3, "sequence_bias": [[[7], -2.5], [[9], 1.0]],
        "tinytale": {"frequency_penalty": 0.3, "presence_penalty": -0.4},
    }  # fmt: skip


def test_what_changes_nothing_is_not_said():
    settings = GenerateRecipe(temperature=0.7, top_p=0.9)
    assert set(generation_json(settings, {})) == {"max_new_tokens", "do_sample", "temperature", "top_p", "top_k"}


def test_beams_are_not_sampled():
    found = generation_json(GenerateRecipe(beams=3), {})
    assert (found["do_sample"], found["num_beams"]) == (False, 3)
    assert "temperature" not in found


@pytest.mark.parametrize("settings", SAME, ids=["full", "default", "greedy", "beams"])
def test_transformers_reads_it(settings: GenerateRecipe, tmp_path: Path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    write(tmp_path, generation_json(settings, {"eos_token_id": 3, "pad_token_id": 0}))
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert theirs.repetition_penalty in (None, settings.repetition_penalty) or settings.repetition_penalty == 1
    assert theirs.stop_strings == (settings.stop or None)
    assert theirs.do_sample == (settings.temperature > 0)
    theirs.validate(strict=True)


# ---------------------------------------------------------------------- other people's
def test_none_at_all(tmp_path: Path):
    assert read_generation(tmp_path) == GenerateRecipe()
    assert end_ids(tmp_path) == set()


def test_others_files(tmp_path: Path):
    """Whole numbers, nulls, keys that we have no use for."""
    content = {"temperature": 1, "top_k": 50, "top_p": 1, "max_new_tokens": None, "transformers_version": "4",
               "do_sample": True, "eos_token_id": 2, "sequence_bias": [[[1, 2], 3.0], [[4], -1]],
               "stop_strings": "END"}  # fmt: skip
    expected = GenerateRecipe(temperature=1.0, top_k=50, top_p=1.0, logit_bias={4: -1.0}, stop=["END"])
    assert read_generation(write(tmp_path, content)) == expected
    assert end_ids(tmp_path) == {2}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [({"top_p": 2.0}, "top_p: "), ({"temperature": "hot"}, "temperature: "), ({"sequence_bias": [3]}, "sequence_bias")],
)
def test_bad_values(content: Any, complaint: str, tmp_path: Path):
    with pytest.raises(UserError, match=f"{NAME}: {complaint}"):
        read_generation(write(tmp_path, content))
