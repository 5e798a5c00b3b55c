"""`from tinytale_mlx import load, generate, stream`: what a person writes in Python."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import tinytale_mlx
from tinytale_mlx import generate, generate_all, load, stream
from tinytale_mlx.errors import UserError
from tinytale_mlx.generation.prompts import text_prompt
from tinytale_mlx.generation.text import Completion
from tinytale_mlx.interop.huggingface import save_model
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig
from tinytale_mlx.stages import Loaded
from tinytale_mlx.tokenizers import ByteBPE

SETTINGS = GenerateRecipe(max_new_tokens=12, temperature=1.0, top_p=1.0, top_k=40)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Untrained, loud enough to have opinions, and with a chat template."""
    tokenizer = ByteBPE.train(["abab the fox "], 265)
    config = ModelConfig(hidden_size=32, layers=2, heads=4, intermediate_size=48, context=32,
                         vocab_size=tokenizer.vocab_size, tie_embeddings=False, init_std=0.2)  # fmt: skip
    path = tmp_path_factory.mktemp("api") / "model"
    save_model(path, Transformer(config, seed=3), tokenizer, SETTINGS, chat_template=True)
    return load(str(path))


def logprobs_of(model: Loaded, prompt: str, tokens: list[int]) -> np.ndarray:
    """[tokens, vocabulary]: of the whole text read at once."""
    begin = text_prompt(model.tokenizer, prompt)
    logits = model.model(mx.array([begin + tokens]))[0, len(begin) - 1 : -1, : model.tokenizer.vocab_size]
    return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


# ---------------------------------------------------------------------- the same text every way
def test_settings_travel_with_the_model(model: Loaded):
    assert model.settings == SETTINGS


def test_a_text_and_its_pieces_are_the_same(model: Loaded):
    completion = Completion()
    pieces = list(stream(model, "the fox", seed=4, completion=completion))
    found = generate(model, "the fox", seed=4)
    assert "".join(pieces) == completion.text == str(found)
    assert found.tokens == completion.tokens
    assert len(pieces) > 1
    assert generate(model, "the fox", seed=5).tokens != found.tokens


def test_many_are_what_each_is_alone(model: Loaded):
    prompts = ["the fox", "", "a" * 20]
    together = generate_all(model, prompts, samples=3, seed=2)
    assert [len(some) for some in together] == [3, 3, 3]
    for number, prompt in enumerate(prompts):
        for sample in range(3):
            alone = Completion()
            "".join(stream(model, prompt, seed=2, place=(number, sample), completion=alone))
            assert together[number][sample] == alone
    assert len({tuple(one.tokens) for some in together for one in some}) == 9
    later = generate_all(model, prompts[1:], samples=1, seed=2, first=1)
    assert [some[0] for some in later] == [some[0] for some in together[1:]]


def test_messages(model: Loaded):
    """The chat template is used: another text than that of the words alone."""
    messages = [{"role": "user", "content": "the fox"}]
    assert generate(model, messages, temperature=0.0).tokens != generate(model, "the fox", temperature=0.0).tokens


def test_an_empty_prompt_starts_from_bos(model: Loaded):
    best = int(mx.argmax(model.model(mx.array([[model.tokenizer.bos_id]]))[0, -1]).item())
    assert generate(model, temperature=0.0, max_new_tokens=1).tokens == [best]


def test_a_long_prompt_counts_with_its_end(model: Loaded):
    with pytest.warns(UserWarning, match=r"the prompt has 41 tokens and the model's context is 32: it reads the end"):
        found = generate(model, "x" * 8 + "z" * 32, seed=1)
    with pytest.warns(UserWarning, match="reads the end"):
        assert generate(model, "z" * 32, seed=1).tokens == found.tokens


# ---------------------------------------------------------------------- stop texts, log-probabilities
def test_stop_texts_end_every_row_at_its_place(model: Loaded):
    """The text before it, nothing of it, and hardly a token more; the other rows go on."""
    how = {"samples": 40, "seed": 1, "logit_bias": {model.tokenizer.encode("e")[0]: 2.0}}
    free = generate_all(model, [""], **how)[0]
    cut = generate_all(model, [""], **how, stop=["e", "zzz"])[0]
    assert [one.text for one in cut] == [one.text.partition("e")[0] for one in free]
    ended = [(one, whole) for one, whole in zip(cut, free, strict=True) if "e" in whole.text]
    assert 3 < len(ended) < 40
    for one, whole in ended:
        assert one.finish_reason == "stop"
        assert one.tokens == whole.tokens[: len(one.tokens)]
        assert "e" in model.tokenizer.decode(one.tokens[-1:])  # the token that completed it is the last one


def test_log_probabilities_are_those_of_reading_it(model: Loaded):
    for found in (
        generate(model, "the fox", logprobs=3, temperature=2.0, repetition_penalty=1.5),
        generate_all(model, ["", "the fox"], samples=2, logprobs=3)[1][1],
    ):
        expected = logprobs_of(model, "the fox", found.tokens)
        assert [one.id for one in found.logprobs] == found.tokens
        for one, row in zip(found.logprobs, expected, strict=True):
            assert one.logprob == pytest.approx(row[one.id], abs=1e-4)
            assert [other.id for other in one.alternatives] == np.argsort(-row)[:3].tolist()
            assert [other.logprob for other in one.alternatives] == pytest.approx(np.sort(-row)[:3] * -1, abs=1e-4)


def test_no_log_probabilities_unless_asked(model: Loaded):
    assert generate(model, "a").logprobs == []


# ---------------------------------------------------------------------- constraints and beams
def test_one_of_some_choices(model: Loaded):
    texts = {generate(model, "the", choices=[" fox", " dog", " foxes"], seed=seed).text for seed in range(12)}
    assert len(texts) > 1
    assert texts <= {" fox", " dog", " foxes"}
    found = generate_all(model, ["the", "a"], samples=5, choices=[" fox", " dog"])
    assert {one.text for some in found for one in some} <= {" fox", " dog"}
    assert {one.finish_reason for some in found for one in some} == {"stop"}


def test_json_and_nothing_else(model: Loaded):
    found = generate_all(model, [""], samples=30, json=True, max_new_tokens=60)[0]
    ended = [one.text for one in found if one.finish_reason == "stop"]
    assert len(ended) > 3
    assert all(isinstance(json.loads(text), (dict, list)) for text in ended)


def test_beams_are_the_best_and_do_not_depend_on_the_seed(model: Loaded):
    def logprob(tokens: list[int], ended: bool) -> float:
        tokens = [*tokens, model.tokenizer.eos_id] if ended else tokens  # type: ignore[list-item]
        rows = logprobs_of(model, "the", tokens)
        return float(rows[np.arange(len(tokens)), tokens].sum() / len(tokens))

    found = generate_all(model, ["the"], samples=3, beams=6, max_new_tokens=5, seed=1)[0]
    assert [one.tokens for one in generate_all(model, ["the"], samples=3, beams=6, max_new_tokens=5)[0]] == [
        one.tokens for one in found
    ]
    scores = [logprob(one.tokens, one.finish_reason == "stop") for one in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] >= logprob(generate(model, "the", temperature=0.0, max_new_tokens=5).tokens, False) - 1e-4
    assert "".join(stream(model, "the", beams=6, max_new_tokens=5)) == found[0].text


def test_the_shortest_text(model: Loaded):
    """EOS is what the model wants most, and may not have for a while."""
    eager = {"logit_bias": {model.tokenizer.eos_id: 100.0}}
    assert generate(model, "a", **eager).tokens == []
    assert len(generate(model, "a", min_new_tokens=4, **eager).tokens) == 4


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temprature": 1.0}, "there is no setting temprature; did you mean temperature?"),
        ({"temperature": -1.0}, "temperature: input should be greater than or equal to 0, not -1.0"),
        ({"top_p": 0.0}, "top_p: input should be greater than 0, not 0.0"),
        ({"top_p": 1.5}, "top_p: input should be less than or equal to 1, not 1.5"),
        ({"temperature": math.nan}, "temperature: input should be a finite number"),
        ({"stop": [""]}, "stop: string should have at least 1 character"),
        ({"beams": 0}, "beams: input should be greater than 0"),
        ({"logprobs": -1}, "logprobs: a number of alternatives, 0 or more, not -1"),
        ({"choices": ["a"], "json": True}, "either one of some choices or JSON, not both"),
        ({"choices": []}, "choices are texts"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens 9 is more than max_new_tokens 8"),
        ({"logit_bias": {10**6: 1.0}}, "logit_bias: there is no token 1000000; the tokenizer has the ids 0 to"),
    ],
    ids=str,
)
def test_one_sentence(options: dict, said: str, model: Loaded):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        generate(model, "a", **options)
    with pytest.raises(UserError):
        list(stream(model, "a", **options))


def test_more_samples_than_beams(model: Loaded):
    with pytest.raises(UserError, match="2 beams find no more than 2 texts; 3 were asked for"):
        generate_all(model, ["a"], samples=3, beams=2)
    with pytest.raises(UserError, match="at least 1"):
        generate_all(model, ["a"], samples=0)


# ---------------------------------------------------------------------- the package itself
def test_to_import_the_package_imports_no_mlx():
    """mlx must come after the fast BLAS, and takes its time."""
    program = "import sys, tinytale_mlx; assert 'mlx.core' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_public_names(tiny: Callable[..., ModelConfig]):
    assert tinytale_mlx.load is load
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        tinytale_mlx.lode  # type: ignore[attr-defined]  # noqa: B018


def test_nothing_to_load(tmp_path: Path):
    with pytest.raises(UserError, match="there is no run"):
        load(str(tmp_path / "nothing"))
