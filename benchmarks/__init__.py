"""Measured comparisons of speed and memory. Each file answers one question and runs alone: `python -m tinytale_mlx.benchmarks.NAME`."""
