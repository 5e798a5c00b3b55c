"""`python -m tinytale_mlx.tuning`: which product with quantized weights is the faster one on this machine."""

from .quantized_matmul import calibrate, report

print(report(calibrate()))
