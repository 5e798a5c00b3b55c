"""Models that mlx-lm wrote, quantized or of architectures that we lack; runs that have not finished."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.optimizers import AdamW
from mlx_lm import stream_generate
from mlx_lm.models import gemma, qwen2
from mlx_lm.sample_utils import make_sampler
from mlx_lm.utils import load as mlx_lm_load
from mlx_lm.utils import quantize_model, save_config, save_model

from tinytale_mlx import generate, generate_all, load
from tinytale_mlx.errors import UserError
from tinytale_mlx.generation.conversation import Conversation
from tinytale_mlx.interop import huggingface, mlx_lm_models
from tinytale_mlx.models import Transformer
from tinytale_mlx.recipe import GenerateRecipe, ModelConfig
from tinytale_mlx.stages import loading
from tinytale_mlx.tokenizers import ByteBPE
from tinytale_mlx.tokenizers.chat import encode_prompt, template_from
from tinytale_mlx.training import checkpoint

PROMPT = "the fox and the "


@pytest.fixture(scope="module")
def tokenizer() -> ByteBPE:
    return ByteBPE.train(["abab the fox "], 265)


def write_other(path: Path, module: Any, tokenizer: ByteBPE, **config: Any) -> Path:
    """A directory as mlx-lm writes it, of an untrained model."""
    base = {"model_type": module.__name__.split(".")[-1], "hidden_size": 64, "num_hidden_layers": 2,
            "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
            "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 64, "rope_theta": 10000.0,
            "tie_word_embeddings": False, "eos_token_id": tokenizer.eos_id}  # fmt: skip
    content = {**base, **config}
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict(content))
    opinions = mx.random.normal((tokenizer.vocab_size, 64))
    model.update({"model": {"embed_tokens": {"weight": opinions}}})
    if hasattr(model, "lm_head"):
        model.update({"lm_head": {"weight": opinions[::-1]}})
    path.mkdir()
    save_model(path, model)
    save_config(content, path / "config.json")
    tokenizer.save(path)
    return path


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory, tokenizer: ByteBPE) -> Path:
    """An architecture that we lack: queries, keys and values with a bias."""
    return write_other(tmp_path_factory.mktemp("others") / "qwen", qwen2, tokenizer)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, tokenizer: ByteBPE) -> Path:
    """A model of ours that mlx-lm has quantized to four bits."""
    folder = tmp_path_factory.mktemp("quantized")
    config = ModelConfig(hidden_size=64, layers=2, heads=4, intermediate_size=96, context=64,
                         vocab_size=tokenizer.vocab_size, tie_embeddings=False, init_std=0.2)  # fmt: skip
    huggingface.save_model(folder / "model", Transformer(config), tokenizer, GenerateRecipe(), chat_template=False)
    model, _, raw = mlx_lm_load(str(folder / "model"), return_config=True)  # type: ignore[misc]
    model, raw = quantize_model(model, raw, 32, 4)
    shutil.copytree(folder / "model", folder / "small", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    save_model(folder / "small", model)
    save_config(raw, folder / "small" / "config.json")
    return folder / "small"


@pytest.mark.parametrize("which", ["qwen", "quantized"])
def test_the_same_greedy_tokens_as_mlx_lm(which: str, request: pytest.FixtureRequest):
    path = request.getfixturevalue(which)
    model, tokenizer = mlx_lm_load(str(path))[:2]
    theirs = stream_generate(model, tokenizer, PROMPT, max_tokens=30, sampler=make_sampler(temp=0.0))
    expected = [one.token for one in theirs if one.finish_reason != "stop"]
    loaded = load(str(path))
    found = generate(loaded, PROMPT, temperature=0.0, max_new_tokens=30)
    assert found.tokens == expected
    assert len(set(expected)) > 1
    together = generate_all(loaded, [PROMPT, "a"], temperature=0.0, max_new_tokens=30)
    assert together[0][0].tokens == expected


def test_beams_and_choices(qwen: Path):
    loaded = load(str(qwen))
    assert generate(loaded, PROMPT, beams=4, choices=["fox", "dog"]).text in ("fox", "dog")


def test_what_ends_a_text(tmp_path: Path, tokenizer: ByteBPE):
    """generation_config.json may name other tokens than the tokenizer's."""
    path = write_other(tmp_path / "qwen", qwen2, tokenizer)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [70, 71, 9999], "temperature": 0.3}))
    loaded = load(str(path))
    assert loaded.stop == {tokenizer.eos_id, tokenizer.special_ids["<|im_end|>"], 70, 71}
    assert loaded.settings.temperature == 0.3


def test_an_architecture_with_caches_of_its_own(tmp_path: Path, tokenizer: ByteBPE):
    path = write_other(tmp_path / "gemma", gemma, tokenizer, head_dim=16)
    assert len(generate(load(str(path)), PROMPT, temperature=0.0, max_new_tokens=5, min_new_tokens=5).tokens) == 5


def test_what_mlx_lm_can_not_load_either(tmp_path: Path, tokenizer: ByteBPE):
    path = write_other(tmp_path / "other", qwen2, tokenizer)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "model_type": "never_heard_of"}))
    with pytest.raises(UserError, match=r"can't be loaded: .*never_heard_of"):
        load(str(path))


# ---------------------------------------------------------------------- names on the hub
@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, qwen: Path) -> list[str]:
    """What was asked of the hub, which has one model."""
    import huggingface_hub

    asked: list[str] = []

    def snapshot_download(name: str, **_: Any) -> str:
        asked.append(name)
        if name != "somebody/qwen":
            raise OSError("no such\nrepository")
        return str(qwen)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_a_name_on_the_hub(downloads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert generate(load("somebody/qwen"), "a", max_new_tokens=2).tokens
    with pytest.raises(UserError, match="the model somebody/else can't be downloaded: no such repository"):
        load("somebody/else")
    assert downloads == ["somebody/qwen", "somebody/else"]


def test_a_folder_is_not_looked_for_on_the_hub(downloads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for name in ("runs/none", "./somebody/qwen", "qwen", "/somebody/qwen"):
        with pytest.raises(UserError, match="there is no run"):
            load(name)
    assert downloads == []


# ---------------------------------------------------------------------- chat templates
TEMPLATE = """{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}
{{- bos_token }}
{%- for message in messages %}[{{ message['role'] }}] {{ message['content'] | trim }}
{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"""


def test_somebody_s_template_is_rendered_as_transformers_does(tokenizer: ByteBPE, tmp_path: Path):
    messages = [{"role": "user", "content": " Hi. "}, {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "Bye."}]  # fmt: skip
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    template = template_from(TEMPLATE)
    ids = encode_prompt(tokenizer, messages, template)
    assert ids == tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_id
    with pytest.raises(UserError, match="refuses this conversation: no system here"):
        encode_prompt(tokenizer, [{"role": "system", "content": "x"}], template)
    with pytest.raises(UserError, match="template is not valid"):
        template_from("{% if %}")


def test_it_is_used_in_a_chat(tmp_path: Path, tokenizer: ByteBPE):
    path = write_other(tmp_path / "qwen", qwen2, tokenizer)
    (path / "chat_template.jinja").write_text(TEMPLATE)
    loaded = load(str(path))
    assert loaded.can_chat
    assert tokenizer.decode(loaded.encode([{"role": "user", "content": "Hi."}])) == "[user] Hi.\n[assistant]"
    conversation = Conversation(loaded.model, loaded.tokenizer, loaded.settings, 0, loaded.encode, loaded.stop)
    with pytest.raises(UserError, match="no system here"):
        conversation.system = "Be brief."
    assert conversation.system == ""


def test_ours_is_known_again(tmp_path: Path, tokenizer: ByteBPE, tiny: Callable[..., ModelConfig]):
    model = Transformer(tiny(vocab_size=tokenizer.vocab_size))
    huggingface.save_model(tmp_path / "model", model, tokenizer, GenerateRecipe(), chat_template=True)
    encode = load(str(tmp_path / "model")).encode
    assert isinstance(encode, partial)
    assert encode.func.__name__ == "chat_prompt"


# ---------------------------------------------------------------------- runs that have not finished
@pytest.fixture
def unfinished(tmp_path: Path, tokenizer: ByteBPE, tiny: Callable[..., ModelConfig]) -> Callable[..., Path]:
    """unfinished({step: validation loss}): a run with these checkpoints, as a killed training leaves it."""

    def make(losses: dict[int, float | None]) -> Path:
        path = tmp_path / "half"
        tokenizer.save(path / "data" / "tokenizer")
        config = {"hidden_size": 32, "layers": 2, "heads": 4, "context": 24, "intermediate_size": 48}
        (path / "recipe.yaml").write_text(json.dumps({"name": "half", "model": config}))
        for step, loss in losses.items():
            model = Transformer(tiny(vocab_size=tokenizer.vocab_size), seed=step)
            checkpoint.save(path / "checkpoints", step, model, AdamW(1e-3), {"val_loss": loss})
        return path

    return make


def is_that_of(loaded: Any, step: int) -> bool:
    expected = Transformer(loaded.model.config, seed=step).model.embed_tokens.weight
    return mx.array_equal(loaded.model.model.embed_tokens.weight, expected).item()


@pytest.mark.parametrize(
    ("losses", "kind", "step"),
    [({5: None, 10: None}, "newest", 10), ({5: 2.0, 10: 3.0}, "best", 5), ({5: 3.0, 10: 2.0, 15: None}, "best", 10)],
)
def test_it_is_read_from_a_checkpoint_and_says_so(
    losses: dict[int, float | None], kind: str, step: int, unfinished: Callable[..., Path]
):
    loaded = load(str(unfinished(losses)))
    assert loaded.note == f"the run half has not finished; this is its {kind} checkpoint, of step {step}"
    assert is_that_of(loaded, step)


def test_a_checkpoint_that_is_deleted_while_it_is_read(
    unfinished: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    """Training deletes old ones; the next look finds another."""
    path = unfinished({5: None, 10: None})
    read = checkpoint.load_weights

    def slow(path: Path, model: Transformer) -> None:
        if path.name == "step-000010":
            shutil.rmtree(path)
        read(path, model)

    monkeypatch.setattr(loading.checkpoint, "load_weights", slow)
    loaded = load(str(path))
    assert loaded.note.endswith("step 5")
    assert is_that_of(loaded, 5)


def test_a_damaged_checkpoint_is_an_error(unfinished: Callable[..., Path]):
    path = unfinished({5: None})
    (path / "checkpoints" / "step-000005" / "model.safetensors").write_text("nonsense")
    with pytest.raises(UserError, match="step-000005 is damaged"):
        load(str(path))


def test_no_checkpoint_yet(unfinished: Callable[..., Path]):
    with pytest.raises(UserError, match="half has no checkpoint yet"):
        load(str(unfinished({})))


def test_a_finished_run_has_nothing_to_say(
    unfinished: Callable[..., Path], tokenizer: ByteBPE, tiny: Callable[..., ModelConfig]
):
    path = unfinished({5: None})
    model = Transformer(tiny(vocab_size=tokenizer.vocab_size))
    huggingface.save_model(path / "model", model, tokenizer, GenerateRecipe(), chat_template=False)
    assert load(str(path)).note == ""


def test_offline_says_so(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    def snapshot_download(*_: Any, **__: Any) -> str:
        raise ConnectionError("network is unreachable")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError, match="can't be downloaded: network is unreachable"):
        mlx_lm_models.download("a/b")
