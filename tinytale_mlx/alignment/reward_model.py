"""The reward model: a language model's trunk with one number for a head, read at a response's last token.

It learns from comparisons (Bradley & Terry 1952; Christiano et al. 2017; Ouyang et al. 2022). Its head is drawn from
N(0, 1 / √(d + 1)) as in Ziegler et al. 2019, and stays in float32 as does everything behind it. What it learns is known
up to a constant only, and in a unit of its own; so afterwards rewards are shifted and scaled to mean 0 and deviation 1
over a policy's responses, which gives the price of KL a meaning that does not depend on the reward model.
"""

import copy
import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .. import disk
from ..errors import UserError
from ..models import Transformer
from ..models.parameters import named_arrays
from ..recipe import ModelConfig
from ..recipe.align import RewardRecipe
from ..recipe.tuning import TuneRecipe
from ..tuning.adapters import Adapter, new_adapter
from . import preference_losses
from .measured import Measured, MeasuredLoss
from .scoring import Rows, in_micro_batches, last_places, response_hidden

WEIGHTS, CONFIG = "reward_model.safetensors", "reward_model.json"


class ScalarHead(nn.Module):
    """One number of each hidden state: [..., d] to float32 [...]. Without a key it begins at zero."""

    def __init__(self, width: int, key: mx.array | None = None):
        super().__init__()
        drawn = mx.zeros(width) if key is None else mx.random.normal((width,), key=key) / math.sqrt(width + 1)
        self.weight, self.bias = drawn, mx.zeros(1)

    def __call__(self, hidden: mx.array) -> mx.array:
        return hidden.astype(mx.float32) @ self.weight + self.bias


class RewardModel(nn.Module):
    """`trunk` is a language model of which only `hidden` is used. With an adapter on, it is adapted in place."""

    def __init__(self, trunk: Any, width: int, key: mx.array):
        super().__init__()
        self.trunk = trunk
        self.head = ScalarHead(width, key)
        self.bias, self.gain = 0.0, 1.0

    @property
    def layers(self) -> Any:
        """The trunk's blocks."""
        return self.trunk.layers

    def raw(self, rows: Rows, frozen: bool = False) -> mx.array:
        """What is trained, float32 [B]: the head's number at the last token of each response; `frozen`: of the head."""
        hidden = self.trunk.hidden(rows.ids)
        hidden = mx.stop_gradient(hidden) if frozen else hidden
        return self.head(mx.take_along_axis(hidden, last_places(rows)[:, None, None], axis=1)[:, 0])

    def __call__(self, rows: Rows) -> mx.array:
        """The reward, float32 [B]: shifted and scaled as `normalize` found."""
        return (self.raw(rows) - self.bias) * self.gain

    def values(self, rows: Rows) -> mx.array:
        """As a critic, float32 [B, T]: the number before each token of the response."""
        return self.head(response_hidden(self.trunk.hidden(rows.ids), rows))

    def score(self, rows: Rows, micro_batch_size: int = 16) -> np.ndarray:
        """The rewards of NumPy rows, so many at a time."""
        return in_micro_batches(lambda *arrays: [self(Rows(*arrays))], rows, micro_batch_size)[0]

    def normalize(self, rows: Rows, how: str = "meanstd", micro_batch_size: int = 16) -> None:
        """Mean 0 and, with `meanstd`, deviation 1 over these rows; again over the same rows, nothing changes."""
        self.bias, self.gain = 0.0, 1.0
        if how != "none":
            raw = self.score(rows, micro_batch_size).astype(np.float64)
            deviation = float(raw.std()) if how == "meanstd" else 1.0
            if not math.isfinite(deviation) or deviation < 1e-6:
                raise UserError("the reward model gives all responses the same reward, so it has learned nothing")
            self.bias, self.gain = float(raw.mean()), 1 / deviation

    def as_critic(self) -> "RewardModel":
        """A copy to go on with as PPO's critic: its head predicts normalized rewards. Until one of the two is trained,
        they share their arrays; what is frozen they share for ever."""
        critic = copy.deepcopy(self, {id(array): array for _, array in named_arrays(self.parameters())})
        critic.head.weight = self.head.weight * self.gain
        critic.head.bias = (self.head.bias - self.bias) * self.gain
        critic.bias, critic.gain = 0.0, 1.0
        return critic


def reward_adapter(model: RewardModel, settings: TuneRecipe, key: mx.array) -> Adapter:
    """An adapter of the trunk with the head in it, which is trained whole: to `attach` to the reward model."""
    trunk = new_adapter(model.trunk, settings, key)
    weights = {f"trunk.{name}": array for name, array in trunk.weights.items()}
    head = {f"head.{name}": array for name, array in named_arrays(model.head.parameters())}
    return Adapter(trunk.method, weights | head, trunk.scale, trunk.dropout)


# ---------------------------------------------------------------------- training
def comparison_loss(settings: RewardRecipe) -> MeasuredLoss:
    """-log σ(r_better - r_worse - margin), the mean over a prompt's pairs, and of those the sum over prompts.

    For a `MeasuredStep` of a RewardModel, on the arrays of `Comparisons`. All responses of a prompt are in one pass,
    and each is in it once.
    """

    def loss(model: RewardModel, arrays: Any) -> Measured:
        ids, starts, mask, ranks, margins = arrays
        prompts, responses = ranks.shape
        flat = Rows(ids.reshape(-1, ids.shape[-1]), starts.reshape(-1), mask.reshape(-1, mask.shape[-1]))
        rewards = model.raw(flat, settings.trunk == "frozen").reshape(prompts, responses)
        there = mask.sum(axis=-1) > 0
        pairs = (ranks[:, :, None] < ranks[:, None]) & there[:, :, None] & there[:, None]
        better, worse = mx.broadcast_arrays(rewards[:, :, None], rewards[:, None])
        each = preference_losses.bradley_terry(better, worse, margins[:, None, None], settings.centring)
        weights = pairs / mx.maximum(pairs.sum(axis=(1, 2), keepdims=True), 1)
        total = lambda x: mx.where(pairs, x * weights, 0).sum()  # noqa: E731
        right = (better > worse) + 0.5 * (better == worse)
        return total(each), weights.sum(), {"accuracy": total(right), "margin": total(better - worse)}

    return loss


# ---------------------------------------------------------------------- files
def save_reward_model(directory: Path, model: RewardModel) -> None:
    """Write the weights and the configuration, with bias and gain. Raises UserError where the disk refuses."""
    config = {"bias": model.bias, "gain": model.gain, "model": model.trunk.config.model_dump(mode="json")}
    with disk.writing("the reward model", directory):
        directory.mkdir(parents=True, exist_ok=True)
        with disk.replacing(directory / WEIGHTS) as temporary:
            arrays = dict(sorted(named_arrays(model.parameters())))
            with open(temporary, "wb") as file:  # of a path, MLX would change the ending
                mx.save_safetensors(file, arrays, metadata={"format": "mlx"})
        with disk.replacing(directory / CONFIG) as temporary:
            temporary.write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_reward_model(directory: Path) -> RewardModel:
    """What `save_reward_model` wrote. Raises UserError for missing or damaged files."""
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        shape = ModelConfig.model_validate(config["model"])
        model = RewardModel(Transformer(shape), shape.hidden_size, mx.random.key(0))
        model.bias, model.gain = float(config["bias"]), float(config["gain"])
        model.load_weights(str(directory / WEIGHTS))
        mx.eval(model.parameters())
    except FileNotFoundError as error:
        raise UserError(f"{directory} holds no reward model: there is no {Path(error.filename).name}") from None
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"the reward model in {directory} is damaged: {' '.join(str(error).split())}") from None
    return model
