"""An adapter goes on and off without a trace, beside others, and is refused where it does not belong."""

from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from tuned_models import IDS, adapter_for, equal, gradients, make_llama, make_model, near, trained_adapter

from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe.tuning import QuantizeRecipe, TuneRecipe
from tinytale_mlx.tuning.adapter_value import Adapter, fingerprint
from tinytale_mlx.tuning.adapters import attach, new_adapter
from tinytale_mlx.tuning.lora import LoRA
from tinytale_mlx.tuning.quantize import quantize, uniform

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"targets": ["q_proj", "embed_tokens"]},
    "lora_and_more": {"targets": ["q_proj"], "train_final_norm": True, "train_embeddings": True},
    "dora": {"method": "dora"},
    "full": {"method": "full"},
    "last_layer": {"method": "full", "layers": 1},
    "prompt": {"method": "prompt", "prompt_length": 5},
    "prefix": {"method": "prefix", "prompt_length": 5},
}


def parameters(model: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


@pytest.fixture(params=SETTINGS)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SETTINGS[request.param]


@pytest.mark.parametrize("make", [make_model, make_llama], ids=["ours", "mlx_lm"])
def test_disabled_is_the_base_to_the_last_bit(make: Any, settings: dict[str, Any]) -> None:
    model = make()
    before = model(IDS)
    tuned = attach(model, trained_adapter(model, **settings))
    on = tuned.model(IDS)
    assert not near(on, before, 1e-3)
    with tuned.disabled() as reference:
        assert equal(reference(IDS), before)
        assert equal(tuned.base(IDS), before)
    assert equal(tuned.model(IDS), on)


def test_disabled_after_training_and_when_something_goes_wrong(settings: dict[str, Any]) -> None:
    model = make_model()
    before = model(IDS)
    tuned = attach(model, adapter_for(model, **settings))
    whoever_holds_it = tuned.model
    for name, gradient in gradients(tuned.model).items():
        tuned.model.load_weights([(name, parameters(tuned.model)[name] - 0.1 * gradient)], strict=False)
    on = tuned.model(IDS)
    found = []

    def fail() -> None:
        with tuned.disabled() as reference:
            found.append(reference(IDS))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert equal(found[0], before)
    assert equal(whoever_holds_it(IDS), on)
    assert not equal(on, before)


def test_a_compiled_function_notices() -> None:
    model = make_model()
    before = model(IDS)
    tuned = attach(model, trained_adapter(model))
    run = mx.compile(lambda ids: model(ids), inputs=[model.state])
    on = run(IDS)
    with tuned.disabled():
        assert near(run(IDS), before, 1e-6)
    assert near(run(IDS), on, 1e-6)
    assert not near(on, before, 1e-2)


def test_detached_nothing_is_left(settings: dict[str, Any]) -> None:
    model = make_model()
    model.freeze(keys="weight")
    model.model.norm.unfreeze()
    trainable, before = tree_flatten(model.trainable_parameters()), parameters(model)
    base = attach(model, trained_adapter(model, **settings)).detach()
    assert base is model
    after = parameters(model)
    assert before.keys() == after.keys()
    assert all(equal(before[name], after[name]) for name in before)
    assert [name for name, _ in tree_flatten(model.trainable_parameters())] == [name for name, _ in trainable]


def test_what_is_on_can_be_read_back(settings: dict[str, Any]) -> None:
    model = make_model()
    adapter = trained_adapter(model, **settings)
    tuned = attach(model, adapter)
    again = tuned.adapter()
    assert again.weights.keys() == adapter.weights.keys()
    assert all(equal(again.weights[name], adapter.weights[name]) for name in adapter.weights)
    assert (again.method, again.scale, again.base) == (adapter.method, adapter.scale, adapter.base)


def test_side_by_side(settings: dict[str, Any]) -> None:
    """Switching among several, of different methods, gives each one's own results every time."""
    model = make_model()
    several = {"one": trained_adapter(model, 1, **settings), "two": trained_adapter(model, 2, method="dora", rank=3)}
    alone = {}
    for name, adapter in several.items():
        tuned = attach(model, adapter)
        alone[name] = tuned.model(IDS)
        tuned.detach()
    tuned = attach(model, several["one"])
    for name in ("two", "one", "two", "one"):
        tuned.use(several[name])
        assert equal(tuned.model(IDS), alone[name])


def test_a_refused_switch_changes_nothing() -> None:
    model, other = make_model(), make_model(hidden_size=64)
    tuned = attach(model, trained_adapter(model))
    on = tuned.model(IDS)
    with pytest.raises(UserError, match="for another model"):
        tuned.use(trained_adapter(other))
    assert equal(tuned.model(IDS), on)


# ---------------------------------------------------------------------- what is trained
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "full", "layers": 1}, {"model.layers.2"}),
        ({"method": "full", "layers": 1, "train_final_norm": True}, {"model.layers.2", "model.norm"}),
        ({"targets": ["q_proj"], "layers": 1, "train_head": True}, {"model.layers.2", "lm_head"}),
        ({"targets": ["q_proj"], "layers": 1, "train_embeddings": True}, {"model.layers.2", "model.embed_tokens"}),
        ({"method": "full"}, {"model.layers.0", "model.layers.1", "model.layers.2", "model.norm", "model.embed_tokens",
                              "lm_head"}),
    ],
)  # fmt: skip
def test_what_has_gradients(settings: dict[str, Any], expected: set[str]) -> None:
    """mlx-lm's "full" leaves out embeddings, final norm and head (spec 1.3, defect 12)."""
    model = make_model(tie_embeddings=False)
    found = gradients(attach(model, adapter_for(model, **settings)).model)
    assert {".".join(name.split(".")[:3]) if "layers" in name else name.rsplit(".", 1)[0] for name in found} == expected


def test_full_is_every_array() -> None:
    model = make_model()
    tuned = attach(model, adapter_for(model, method="full"), keep_base=False)
    assert gradients(tuned.model).keys() == parameters(model).keys()
    with pytest.raises(UserError, match="the base's weights were not kept"):
        tuned.detach()


def test_a_tied_head_is_the_embedding() -> None:
    model = make_model()
    adapter = adapter_for(model, targets=["q_proj"], train_head=True)
    assert list(adapter.whole) == ["model.embed_tokens.weight"]


def test_the_same_key_draws_the_same_adapter() -> None:
    model = make_model()
    one, same, other = (adapter_for(model, seed).weights for seed in (1, 1, 2))
    assert all(equal(one[name], same[name]) for name in one)
    assert not all(equal(one[name], other[name]) for name in one)
    drawn = [a for name, a in one.items() if name.endswith("q_proj.lora_a")]
    assert not equal(drawn[0], drawn[1])


# ---------------------------------------------------------------------- refusals
def refusal(model: Any, adapter: Adapter, **options: Any) -> str:
    before = model(IDS)
    with pytest.raises(UserError) as caught:
        attach(model, adapter, **options)
    assert "\n" not in str(caught.value)
    assert equal(model(IDS), before)
    return str(caught.value)


def test_an_adapter_for_another_base(settings: dict[str, Any]) -> None:
    adapter = trained_adapter(make_model(seed=1), **settings)
    assert "the same shapes and other weights" in refusal(make_model(seed=2), adapter)
    assert attach(make_model(seed=2), adapter, any_base=True).model(IDS).shape == (2, 8, 48)


@pytest.mark.parametrize("changes", [{"hidden_size": 64}, {"layers": 2}])
def test_an_adapter_of_another_shape(settings: dict[str, Any], changes: dict[str, int]) -> None:
    if settings == SETTINGS["prompt"] and "layers" in changes:
        pytest.skip("a prompt does not ask how many layers there are")
    adapter = trained_adapter(make_model(), **settings)
    smaller = make_model(**changes)
    assert "the adapter is for another model: " in refusal(smaller, adapter, any_base=True)


def test_two_adapters_at_a_time(settings: dict[str, Any]) -> None:
    model = make_model()
    tuned = attach(model, trained_adapter(model, **settings))
    if any(isinstance(module, LoRA) for module in model.modules()):
        with pytest.raises(UserError, match="has an adapter on already"):
            attach(model, trained_adapter(tuned.model))
    tuned.detach()
    attach(model, trained_adapter(model, **settings))


def test_refused_when_made() -> None:
    model = make_model()
    with pytest.raises(UserError, match="no layer matches the target 'query'; there are"):
        adapter_for(model, targets=["query"])
    with pytest.raises(UserError, match=r"rank 33 is more than model.layers.0.mlp.down_proj has, 32"):
        adapter_for(model, rank=33)
    with pytest.raises(UserError, match=r"model\.embed_tokens gets an adapter and is to be trained whole as well"):
        adapter_for(model, targets=["embed_tokens"], train_head=True)
    with pytest.raises(UserError, match="the last 9 layers were asked for, and the model has 3"):
        adapter_for(model, method="full", layers=9)
    with pytest.raises(UserError, match="ids from 0 to 47"):
        new_adapter(model, TuneRecipe(method="prompt"), mx.random.key(0), words=[3, 48])
    quantize(model, uniform(model, QuantizeRecipe(group_size=32)))
    for wrong in ({"method": "full"}, {"train_embeddings": True}):
        with pytest.raises(UserError, match="is quantized and can't be trained itself"):
            adapter_for(model, **wrong)


def test_fingerprint() -> None:
    model = make_model()
    first = fingerprint(model)
    assert first == fingerprint(make_model())
    assert first != fingerprint(make_model(seed=8))
    assert first != fingerprint(make_model(layers=2))
    model.model.norm.weight = model.model.norm.weight.astype(mx.bfloat16)
    rounded = fingerprint(model)
    assert rounded != first
    model.model.norm.weight = model.model.norm.weight.astype(mx.float32)
    assert fingerprint(model) == rounded  # the same numbers, whatever they are kept in
