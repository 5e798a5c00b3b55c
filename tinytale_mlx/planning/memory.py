"""The peak of a training step's memory, by going through the step and adding up what is alive.

Three moments can be the highest. At the loss, all activations are there, and the logits with what their derivative
needs. On the way back through the blocks, activations go and gradients come; with checkpointing, one block's
activations come back for a while. In the update, gradients and the optimiser's work are there, but no activations.

Beside what has to be alive there is what MLX allocates ahead of time. On a CPU it hands operations to its streams in
tasks of ten, up to ten tasks before it waits (mlx/scheduler.h, backend/cpu/encoder.h), and allocates each result when
it hands the operation over. So the results of about a hundred operations exist beside those that are needed, shared
by all lanes: that is more than the way back through one block. What a Mac's GPU works ahead is not counted: MLX stops
doing that at the memory limit, so a training that fits without it fits.
"""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from ..recipe import ModelConfig, TrainRecipe
from . import state
from .activations import block_bytes, embedding_bytes
from .flops import checkpointed_layers
from .machine import Backend
from .parameters import block_shapes, count, parameter_shapes

AHEAD = 100
"""Operations that a CPU's streams have been given and have not done, together."""
FROZEN_HEAD_CHUNK = 128
"""As in training/losses.py."""
IN_HAND = 20
"""Of those, at each stream, what belongs to the moment itself, such as the operations of the head at the loss."""
OF_CHUNK, OF_BLOCK, OF_BLOCK_BACK = 40, 45, 80
"""About how many operations a chunk of the loss takes, and a block on the way there and back."""
OF_FROZEN_CHUNK = 22
"""Of a chunk whose head is frozen, which has no gradients to add up."""
SCORES_AT_ONCE = 7
"""Arrays of attention's scores that a CPU is given on the way back through it: they follow one another."""
STACK = 2**20
COPIES_OF_A_STACK = {"adafactor": 3, "adam_mini": 2}
"""What an optimiser computes on the way, in float32 arrays of the size of what it moves at a time. The others compute
each number from its own gradient and moments alone, without writing anything between."""
COPIES_OF_A_PIECE = {"bfloat16": 4, "int8": 7}
"""The same where moments are kept in few bits, of the pieces that are unpacked (training/adamw.py)."""
PIECES_AHEAD = 3
"""So many of those exist at once on a CPU, which takes about 35 operations for each."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of one optimiser step."""

    moment: str
    """`loss`, `backward` or `update`."""
    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    logits: int
    temporary: int

    @property
    def peak(self) -> int:
        return sum(value for value in asdict(self).values() if isinstance(value, int))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "peak": self.peak}


def plan_memory(config: ModelConfig, train: TrainRecipe, backend: Backend) -> Memory:
    """The peak of a step of `train.batch_size` rows of `config.context` tokens. Needs config.vocab_size."""
    return max(_Step(config, train, backend).moments(), key=lambda moment: moment.peak)


def frozen_peak(
    config: ModelConfig, train: TrainRecipe, backend: Backend, bits: float | None = None, adapter: int = 0
) -> int:
    """Bytes of the same where next to nothing is trained, as under an adapter: hardly gradients, or state.

    bits: per weight of the frozen matrices, where they are quantized. adapter: how many numbers are trained.
    """
    if train.loss_chunk_tokens is None:
        train = train.model_copy(update={"loss_chunk_tokens": FROZEN_HEAD_CHUNK})
    moments = _Step(config, train, backend, frozen=True).moments()[:-1]  # without the update
    work = max(one.activations + one.logits + one.temporary for one in moments)
    base = state.weight_bytes(config)
    if bits is not None:  # and the head's matrix, unpacked for its products
        base = round(base * bits / 32) + 4 * config.hidden_size * (config.vocab_size or 0)
    return base + work + 16 * adapter  # weights, gradients and two moments


class _Step:
    def __init__(self, config: ModelConfig, train: TrainRecipe, backend: Backend, frozen: bool = False):
        self.config, self.train, self.backend, self.frozen = config, train, backend, frozen
        self.tokens = train.batch_size * config.context
        self.lanes = min(backend.lanes, train.batch_size)
        self.on_cpu = backend.name == "cpu"
        self.ahead = max(AHEAD / self.lanes - IN_HAND, 0) if self.on_cpu else 0
        self.block = block_bytes(config, train, backend)
        number = 4 if train.precision == "float32" else 2
        self.heads_say = number * config.heads * config.size_per_head
        self.parameters = count(config)
        self.of_a_block = sum(math.prod(shape) for _, shape in block_shapes(config))
        self.head = config.hidden_size * (config.vocab_size or 0)
        self.checkpointed = set(checkpointed_layers(config, train))

    def moments(self) -> list[Memory]:
        return [self.loss(), *(self.backward(layer) for layer in range(self.config.layers)), self.update()]

    def loss(self) -> Memory:
        """The last layer's way back has begun: so far ahead is MLX."""
        kept = sum(self.kept(layer) for layer in range(self.config.layers))
        logits, gradients = self.logits()
        ahead = self.ahead if self.train.loss_chunk_tokens is None else 0  # chunks keep MLX busy
        return self.memory("loss", gradients, kept, logits, self.way_back(self.config.layers - 1, ahead))

    def backward(self, layer: int) -> Memory:
        """In the block of that layer, with its gradients and those of the blocks above it. The last is the embedding's:
        for a tied one that is a second table, to be added to the head's."""
        kept = sum(self.kept(below) for below in range(layer + 1))
        gradients = self.head + self.of_a_block * min(self.config.layers - layer, self.config.num_distinct_layers)
        gradients += self.head if layer == 0 else 0
        again = self.block.all * self.tokens - self.kept(layer)
        ahead = self.ahead / OF_BLOCK_BACK * self.results()
        if layer == 0 and self.on_cpu and not self.frozen:
            ahead += 4 * self.head  # zeros, which the embedding's rows are added to
        work = max(again + ahead, self.scores_at_once())
        return self.memory("backward", 4 * gradients * self.lanes, kept, 0, work + self.working())

    def scores_at_once(self) -> int:
        number = 4 if self.train.precision == "float32" else 2
        scores = number * self.config.heads * self.config.context * self.tokens
        return SCORES_AT_ONCE * scores if self.on_cpu else 0

    def update(self) -> Memory:
        """In place, one stack after the other: old and new exist together of the largest one."""
        stack, train = self.largest_stack(), self.train
        kept = state.weight_bytes(self.config) + state.optimizer_bytes(self.config, train)
        new = kept / self.parameters * stack
        work = new + 4 * COPIES_OF_A_STACK.get(train.optimizer, 0) * stack
        if train.optimizer_state != "float32":
            pieces = min(stack, (PIECES_AHEAD if self.on_cpu else 1) * STACK)
            work += 4 * COPIES_OF_A_PIECE[train.optimizer_state] * pieces
            work += new + 4 * stack if stack > STACK else 0  # the pieces, joined, and the weights in their shape
        if self.train.optimizer == "muon":
            work = max(work, self.orthogonalizing())
        return self.memory("update", 4 * self.parameters, 0, 0, work)

    def orthogonalizing(self) -> int:
        """Bytes of Muon's five iterations on the stack that takes most, each of two Gram-like matrices and their sum,
        a product and the next iterate. A CPU is given all of them at once, a GPU has one or two iterations alive."""
        shapes = Counter(shape for _, shape in block_shapes(self.config) if len(shape) == 2)
        iterations = 5 if self.on_cpu else 1.5
        sizes = []
        for shape, times in shapes.items():
            size, times = math.prod(shape), times * self.config.num_distinct_layers
            together = min(times, max(STACK // size, 1))
            sizes.append(together * (3 * min(shape) ** 2 + 2 * size))
        return round(4 * iterations * max(sizes))

    def largest_stack(self) -> int:
        """Numbers in the largest piece of work of an update: arrays of one shape, see training/stacks.py."""
        shapes = Counter(shape for _, shape in parameter_shapes(self.config))
        sizes = ((math.prod(shape), times) for shape, times in shapes.items())
        return max(size * min(times, max(STACK // size, 1)) for size, times in sizes)

    def memory(self, moment: str, gradients: float, kept: float, logits: float, temporary: float) -> Memory:
        if moment != "update":
            kept += embedding_bytes(self.config, self.train, self.backend) * self.tokens
            if self.train.accumulate > 1:
                gradients += 4 * self.parameters  # the sum over the micro-batches before
            if self.train.precision != "float32":
                temporary += 2 * self.parameters  # the weights in 16 bits
        return Memory(
            moment,
            state.weight_bytes(self.config),
            round(gradients),
            state.optimizer_bytes(self.config, self.train),
            state.average_bytes(self.config, self.train),
            round(kept),
            round(logits),
            round(temporary),
        )

    def kept(self, layer: int) -> float:
        """Bytes of activations that a layer keeps from the forward pass for the way back."""
        if layer not in self.checkpointed:
            per_token = self.block.kept
        elif self.train.gradient_checkpointing == "attention":
            per_token = self.block.kept - self.block.heads + self.heads_say
        else:
            per_token = self.block.input
        return per_token * self.tokens

    def way_back(self, layer: int, operations: float) -> float:
        """Bytes of so many operations, done ahead on the way back from a block: its activations again, then more."""
        again = self.block.all * self.tokens - self.kept(layer)
        share = min(max(operations, 0) / OF_BLOCK, 1) if again else 0
        rest = max(operations - (OF_BLOCK if again else 0), 0) / OF_BLOCK_BACK
        return share * again + rest * self.results()

    def results(self) -> float:
        """Bytes of what one block's way back computes, about as much as the block keeps.

        In 16 bits norms and softmax are derived in 32, from copies, and their results are copied back.
        """
        narrow = self.train.precision != "float32"
        return (3 if narrow else 1) * self.block.all * self.tokens

    def working(self) -> float:
        """Bytes that one step of the way back through a block needs at the least: gradients of scores, or of the
        activations inside the feed-forward network."""
        number = 4 if self.train.precision == "float32" else 2
        config = self.config
        scores = config.heads * config.context
        return 0 if self.on_cpu else 3 * number * max(scores, config.intermediate_size) * self.tokens

    def logits(self) -> tuple[float, float]:
        """Bytes of logits and what is made of them, and of gradients of the head that exist at the loss.

        Of the logits there are exponentials, their quotient, and that with the target's entry changed. Each chunk adds
        its gradient of the head to the sum of those before; of chunks that are handed over ahead, all that exists.
        """
        of_a_token = 4 * (self.config.vocab_size or 0)
        if self.train.loss_chunk_tokens is None:
            return (5 if self.on_cpu else 3) * self.tokens * of_a_token, 0.0
        chunk = min(self.train.loss_chunk_tokens, self.tokens // self.lanes)
        if not self.on_cpu:
            return 3 * chunk * of_a_token, 4 * self.head * 3
        if self.frozen:
            at_once = min(AHEAD / self.lanes / OF_FROZEN_CHUNK, self.tokens / self.lanes / chunk)
            return 4 * at_once * self.lanes * chunk * of_a_token, 0.0
        at_once = min(1.6 + AHEAD / self.lanes / OF_CHUNK, self.tokens / self.lanes / chunk)
        return 2.5 * at_once * chunk * of_a_token, 4 * self.head * 2 * self.lanes * at_once
