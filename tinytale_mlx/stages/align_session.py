"""One sitting of an alignment, of whichever kind: rows, figures before and after, samples, checkpoints, the result."""

import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.optimizers as optim

from .. import device
from ..errors import UserError
from ..generation.completions import complete
from ..interop.huggingface import save_model
from ..models.parameters import count_parameters, named_arrays
from ..randomness import key
from ..recipe import AlignRecipe, GenerateRecipe
from ..recipe.align import PolicyRecipe
from ..run import Run
from ..tokenizers.templates import PLAIN, Template
from ..tuning import Tuned, lora_plus, save_adapter
from .adapting import chat_encoder, is_ours
from .align_data import AlignData, Wanted, align_template, encode_items, fit_lengths, read_items, split_items
from .finetune_data import check_same
from .finetuning import save_tuned
from .loading import Loaded
from .planning import this_machine
from .sitting import Sitting
from .tokenizing import Notify
from .tune_planning import tuning_peak


class AlignSession(Sitting):
    """A base, what is learned on top of it, and rows to learn from. `build` makes the parts that differ."""

    tuned: Tuned

    def __init__(self, this: Run, recipe: AlignRecipe, loaded: Loaded, root: Path, notify: Notify, force: bool):
        super().__init__(this, notify)
        if not is_ours(loaded.model):
            raise UserError(f"alignment needs an architecture of tinytale's own, and {recipe.base} has another")
        self.loaded, self.root = loaded, root
        self.tokenizer, self.stop = loaded.tokenizer, loaded.stop
        if not self.stop:
            raise UserError(f"the tokenizer of {recipe.base} has no token that ends a text, so no response would end")
        self.vocabulary = loaded.tokenizer.vocab_size
        self.template = align_template(recipe.data, loaded)
        self.is_dialogue = recipe.data.template is not None or self.template is not PLAIN
        if self.is_dialogue and isinstance(self.template, Template):
            data = recipe.data.model_copy(update={"template": self.template.name})
            recipe = recipe.model_copy(update={"data": data})
        notify({"event": "phase", "text": "preparing the rows"})
        self.data, self.recipe = self._read(recipe)
        if not force:
            self._check_memory()
        check_same(this, self.data.fingerprint)
        self.recipe = self.recipe.model_copy(update={"generate": recipe.generate or self._samples()})
        self.generate: GenerateRecipe = self.recipe.generate or loaded.settings
        this.write_recipe(self.recipe)
        self.before: dict[str, float] = {}
        self.texts_before: list[str] = []
        self.trainer_state: dict[str, Any] | None = None
        self.build()

    def _read(self, recipe: AlignRecipe) -> tuple[AlignData, AlignRecipe]:
        items = read_items(recipe.data, recipe.seed, self.wanted(recipe))
        train, held = split_items(recipe.data, items)
        recipe = fit_lengths(recipe, train, self.loaded, self.template)
        return encode_items(recipe, train, held, self.tokenizer, self.template), recipe

    def _samples(self) -> GenerateRecipe:
        """The base's settings, and as prompts what two of the held-out rows ask."""
        return self.loaded.settings.model_copy(update={"prompts": self.data.first})

    @staticmethod
    @abstractmethod
    def wanted(recipe: Any) -> Wanted:
        """What it makes of rows."""

    @abstractmethod
    def build(self) -> None:
        """Make the models, look at them before anything is trained, then `prepare` them."""

    @property
    @abstractmethod
    def rows_at_a_time(self) -> int:
        """Responses that are in memory on the way back."""

    def _check_memory(self) -> None:
        """Raises UserError where not even the steps on the model itself fit; reference, critic and reward model come
        on top."""
        lengths, config = self.recipe.method, self.loaded.model.config
        config = config.model_copy(update={"context": lengths.prompt_tokens + lengths.response_tokens})
        train = self.train.model_copy(update={"batch_size": self.rows_at_a_time})
        machine = this_machine(config, "float32", seconds=0.01)
        peak = tuning_peak(config, train, self.recipe.tune, machine.backend)
        if peak > machine.usable:
            raise UserError(
                f"aligning {self.recipe.base} would take at least {peak / 1e6:,.0f} MB, and {machine.usable / 1e6:,.0f}"
                f" MB can be used here; add --lora or make {self.rows_key} smaller (--force tries all the same)"
            )

    rows_key: str
    """Of the recipe, what sets `rows_at_a_time`."""

    def look_before(self) -> None:
        """Of a model on which nothing is trained yet."""
        self.before = self.judge_now()
        self.texts_before = list(self.samples(0))

    def judge_now(self) -> dict[str, float]:
        """The figures of the model as it is that are compared before and after."""
        return {}

    def look_after(self) -> None:
        """The same of the trained model, where the last validation has not said it."""
        if not self.figures:  # resumed, with nothing left to do
            self.validate()

    @abstractmethod
    def step(self) -> tuple[Any, Callable[[int], Any]]:
        """The step that the loop takes, and its batches by number."""

    # ------------------------------------------------------------------ samples
    @property
    def writer(self) -> Any:
        """The model that writes."""
        return self.tuned.model

    def prompt(self, text: str) -> tuple[list[int], str]:
        return chat_encoder(self.tokenizer, self.template)([{"role": "user", "content": text}]), ""

    def samples(self, step: int) -> Iterator[str]:
        """What follows each of the recipe's prompts, with the same chances each time."""
        for number, text in enumerate(self.generate.prompts):
            ids, _ = self.prompt(text)
            draw = key(self.recipe.seed, "sample", number)
            yield complete(self.writer, self.tokenizer, ids, self.generate, draw, self.stop).text.strip()

    def log(self, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            event = event | self.step_figures()
        if event["event"] == "sample" and self.texts_before:
            number = event.get("number", 0)
            event = event | {"prompt": self.generate.prompts[number], "before": self.texts_before[number]}
        super().log(event)

    def closing_samples(self) -> list[str]:
        texts = list(self.samples(self.progress.step))
        for number, text in enumerate(texts):
            self.log({"event": "sample", "step": self.progress.step, "number": number, "text": text})
        return texts

    def step_figures(self) -> dict[str, Any]:
        """What is said of a step beside what the loop says."""
        return {}

    # ------------------------------------------------------------------ checkpoints
    def state(self) -> dict[str, Any]:
        return super().state() | {"trainer": self.trainer_json()}

    def trainer_json(self) -> dict[str, Any]:
        return {}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self.trainer_state = state.get("trainer")

    # ------------------------------------------------------------------ beginning and end
    def start(self) -> None:
        """Log what is about to be trained. What an earlier sitting made of it goes: its checkpoint stays."""
        if self.progress.step < self.train.steps:
            for made in (self.run.model, self.run.adapter, self.run.reward):
                shutil.rmtree(made, ignore_errors=True)
        self._prune()
        self.log({"event": "rows", **self.data.counts, "prompts": len(self.data.prompts)})
        left = {name: count for name, count in self.data.counts.items() if count and name != "kept"}
        if left:
            said = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in left.items())
            self.warn(f"not all rows are used as they are: {said}")
        trained = sum(array.size for _, array in named_arrays(self.model.trainable_parameters()))
        self.log(
            {
                "event": "start",
                "run": str(self.run.path),
                "recipe": self.recipe.name,
                "kind": self.recipe.kind,
                "method": self.recipe.tune.method,
                "parameters": count_parameters(self.model),
                "trained_parameters": trained,
                "step": self.progress.step,
                "steps": self.train.steps,
                "vocab_size": self.vocabulary,
                "prompts": len(self.data.prompts),
                "prompt_tokens": self.recipe.method.prompt_tokens,
                "response_tokens": self.recipe.method.response_tokens,
                **device.describe(),
            }
        )

    def save_result(self) -> None:
        """The aligned model as a directory, where all of it was trained; else the adapter. It writes conversations as
        it was aligned to; where it was aligned on plain text, as its base did."""
        template = self.template if self.is_dialogue else self.loaded.template
        with self.averaged():
            adapter = self.tuned.adapter()
            if adapter.method == "full":
                settings = self.loaded.settings
                save_model(self.run.model, self.tuned.model, self.tokenizer, settings, template or False)
            elif template is None:
                save_adapter(self.run.adapter, adapter)
            else:
                save_tuned(self.run.adapter, adapter, template.jinja)

    def details(self) -> dict[str, Any]:
        """What only this kind has to say in the end."""
        return {}

    @property
    def tokens_per_second(self) -> float:
        """Of responses, learned from."""
        return self.progress.tokens_per_second


def rated(recipe: AlignRecipe, make: Callable[[], optim.Optimizer]) -> optim.Optimizer:
    ratio = recipe.tune.lora_plus_ratio
    return lora_plus(make, ratio) if ratio else make()


def sampling(recipe: AlignRecipe) -> PolicyRecipe:
    """How responses are sampled to look at them, where nothing is learned from them."""
    lengths = recipe.method
    return PolicyRecipe(prompt_tokens=lengths.prompt_tokens, response_tokens=lengths.response_tokens)
