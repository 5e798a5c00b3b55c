"""Measured comparisons of speed and memory; each file answers one question.

Each runs alone: `python -m tinytale_mlx.benchmarks.NAME`.
"""
