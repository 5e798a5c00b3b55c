"""Random keys by name: everything random in a run is a function of (seed, what for, step), never of what ran before."""

import hashlib

import mlx.core as mx


def key(seed: int, *labels: str | int) -> mx.array:
    """The MLX key of these labels, such as key(0, "dropout", 17); other labels or another seed, another key."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *labels))).encode(), digest_size=8).digest()
    return mx.random.key(int.from_bytes(digest, "little"))
