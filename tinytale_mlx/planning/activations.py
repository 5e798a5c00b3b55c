"""What a forward pass keeps for the way back, in bytes per token, operation by operation.

An operation's derivative needs some of its inputs and outputs; those live from forward to backward, everything else is
freed at once. So it is enough to go through a block and ask of each operation what its derivative reads:

    norm            its input, its output (a CPU: the normalised input as well, if a weight follows)
    matrix product  its input; the matrix is a parameter
    q kT, w v       both factors
    softmax         its output, heads x context numbers per token: no kernel that would spare it has a derivative
    activation      see KEPT_BY_ACTIVATION
    dropout         which numbers stay, a byte each
    rope, reshape, transpose, +   nothing

A residual stream that is kept as some norm's input is counted there.

A block keeps less than that. It is made of pieces that begin where a product with weights ends, and each piece keeps
only what goes into it and computes the rest again (models/checkpointing.py). What is in the list above then exists for
one block at a time, on its way back, and in a block that is checkpointed as a whole.
"""

from dataclasses import dataclass

from ..recipe import ModelConfig, TrainRecipe
from .machine import Backend

KEPT_BY_ACTIVATION = {
    "swiglu": 5,  # gate, its sigmoid, up, silu(gate), and the product, which the last matrix multiplies
    "gelu": 4,  # x, x/sqrt(2), 1 + erf, and the product
    "gelu_tanh": 5,  # x, what silu is given, what it gives, the product, and a gradient
    "silu": 4,  # x, its sigmoid, the product, and a gradient, as in the next two
    "relu": 4,  # x, relu(x), and what of the gradient passes
    "relu2": 4,  # x, relu(x), its square
}
"""Of the width inside the feed-forward network."""


@dataclass(frozen=True)
class BlockBytes:
    """Bytes per token of one block."""

    input: float
    """What comes into the block: all that is kept of a checkpointed one."""
    attention: float
    """Everything inside attention, from its input on."""
    rest: float
    heads: float
    """Of attention, what goes into its pieces: queries, keys, values, and what the heads say."""
    spared_rest: float
    """Of the rest, what goes into the pieces."""

    @property
    def all(self) -> float:
        return self.input + self.attention + self.rest

    @property
    def kept(self) -> float:
        """What the block keeps."""
        return self.input + self.heads + self.spared_rest


def block_bytes(config: ModelConfig, train: TrainRecipe, backend: Backend) -> BlockBytes:
    number = 4 if train.precision == "float32" else 2
    width, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.heads * config.size_per_head, config.num_kv_heads * config.size_per_head
    norm = _norm(config, train, backend)
    heads = number * (2 * queries + 2 * keys)  # q, k, v: factors of the two products; and o_proj's input
    attention = heads
    if config.qk_norm:  # what comes into the norms; what comes out is counted
        attention += number * (queries + keys) * (norm - 1)
    weights = config.heads * config.context
    attention += number * weights
    if config.attention_dropout:
        attention += (number + 1) * weights
    rest = number * width * (2 * norm - 1) + number * inner * KEPT_BY_ACTIVATION[config.activation]
    norms = 1 if config.norm_placement == "pre" else 1 + 2 * (norm - 1)  # a block that ends in norms keeps theirs
    spared = number * width * norms + number * inner * (2 if config.activation == "swiglu" else 1)
    dropped = 2 * width if config.residual_dropout else 0
    return BlockBytes(number * width, attention, rest + dropped, heads, spared + dropped)


def _norm(config: ModelConfig, train: TrainRecipe, backend: Backend) -> int:
    """How many times its width a norm keeps. In 16 bits its derivative begins anew from the input."""
    fused = backend.fused_norms or train.precision != "float32"
    return 2 if fused or not config.norm_weight else 3


def embedding_bytes(config: ModelConfig, train: TrainRecipe, backend: Backend) -> float:
    """Before the first block and after the last: dropout, and the norm before the head."""
    number = 4 if train.precision == "float32" else 2
    kept = number * config.hidden_size * (_norm(config, train, backend) if config.norm_placement == "pre" else 1)
    return kept + (config.hidden_size if config.embedding_dropout else 0)
