"""tiktoken over the vocabulary of a tokenizer of ours."""

import tiktoken

from tinytale_mlx.tokenizers import ByteBPE
from tinytale_mlx.tokenizers.splitting import STANDARD_PATTERNS


def encoding(ours: ByteBPE) -> tiktoken.Encoding:
    """It gives the same ids: its ranks are ids, and the ids of ours are in the order of the merges."""
    ranks = {name: i for i, name in ours.vocab.items() if i not in ours.special_ids.values()}
    pattern = STANDARD_PATTERNS[ours.rules.pattern]
    return tiktoken.Encoding("ours", pat_str=pattern, mergeable_ranks=ranks, special_tokens=ours.special_ids)
