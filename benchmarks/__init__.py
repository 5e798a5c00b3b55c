"""Measured comparisons of speed, memory and quality; each file answers one question.

`tinytale bench NAME`, or `python -m tinytale_mlx.benchmarks.NAME`, with the same options. A benchmark is a module that
opens with its question, and has `options(parser)`, `QUICK` (what the options are with --quick) and
`measure(given, report)`, which fills the report as it goes. `runner.py` does the rest.
"""

from pathlib import Path

NAMES = (
    "training", "memory", "forecast", "generation", "tokenizers", "data", "finetuning", "rlhf", "quality",
    "ablation", "scaling", "soak",
)  # fmt: skip
"""In the order of a report."""


def question(name: str) -> str:
    """What the benchmark answers: the first line of its file, which is not imported for that."""
    with (Path(__file__).parent / f"{name}.py").open(encoding="utf-8") as file:
        return file.readline().strip().strip('"')
