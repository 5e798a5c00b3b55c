"""Losses of pairs and of labelled responses, one number per pair or response. All of them lower is better.

A reward model learns r(chosen) > r(rejected) (Bradley & Terry 1952). DPO (Rafailov et al. 2023) puts
β log π/π_ref in the reward's place and so needs no reward model. ORPO and SimPO need no reference either.

`logps` are sums over a response's tokens, its EOS among them, and not over the prompt's; where a method averages over
tokens, it says so.
"""

import math

import mlx.core as mx
import mlx.nn as nn


def bradley_terry(
    chosen: mx.array, rejected: mx.array, margin: mx.array | float = 0.0, centring: float = 0.0
) -> mx.array:
    """-log σ(r_chosen - r_rejected - margin) [+ centring x (r_chosen + r_rejected)²]; all [B].

    The first term does not care about a constant in all rewards; the second (Eisenstein et al. 2023) pins it to 0.
    """
    loss = -nn.log_sigmoid(chosen - rejected - margin)
    return loss + centring * mx.square(chosen + rejected) if centring else loss


def sigmoid(h: mx.array, smoothing: float = 0.0) -> mx.array:
    """DPO's own: -log σ(h). With smoothing, the chance that a label is wrong, cDPO (Mitchell 2023)."""
    return -(1 - smoothing) * nn.log_sigmoid(h) - smoothing * nn.log_sigmoid(-h)


def hinge(h: mx.array) -> mx.array:
    """max(0, 1 - h) (SLiC, Zhao et al. 2023)."""
    return mx.maximum(0, 1 - h)


def ipo(difference: mx.array, beta: float) -> mx.array:
    """(difference - 1/(2β))² (Azar et al. 2024); difference of the log-ratios *per token*, without β."""
    return mx.square(difference - 1 / (2 * beta))


def orpo(chosen: mx.array, rejected: mx.array, weight: float) -> mx.array:
    """-log π(chosen) per token - weight x log σ(log odds) (Hong et al. 2024); both logps are means per token, [B]."""
    odds = (chosen - _log1mexp(chosen)) - (rejected - _log1mexp(rejected))
    return -chosen - weight * nn.log_sigmoid(odds)


def simpo(chosen: mx.array, rejected: mx.array, beta: float, margin: float) -> mx.array:
    """-log σ(β (l_chosen - l_rejected) - margin) (Meng et al. 2024); both logps are means per token, [B]."""
    return -nn.log_sigmoid(beta * (chosen - rejected) - margin)


def kto(
    ratios: mx.array, desirable: mx.array, baseline: mx.array, beta: float, weights: tuple[float, float] = (1.0, 1.0)
) -> mx.array:
    """1 - σ(β (ratio - z)), or with the sign turned for what is not desirable (Ethayarajh et al. 2024, eq. 8).

    ratios [B] are log π/π_ref of whole responses; desirable [B] true or false; the baseline z, a scalar, is the
    batch's estimate of KL(π‖π_ref), at least 0, through which no gradient goes; weights of desirable and other ones.
    """
    z = mx.stop_gradient(mx.maximum(baseline, 0))
    gain = mx.where(desirable, ratios - z, z - ratios)
    return mx.where(desirable, *weights) * (1 - mx.sigmoid(beta * gain))


def _log1mexp(x: mx.array) -> mx.array:
    """log(1 - e^x) for x < 0, exact near 0 and far from it (Mächler 2012)."""
    x = mx.minimum(x.astype(mx.float32), -1e-6)
    near = x > -math.log(2)
    # Each branch sees only numbers that it can take: of a `where`, both branches have a gradient.
    return mx.where(near, mx.log(-mx.expm1(mx.where(near, x, -1.0))), mx.log1p(-mx.exp(mx.where(near, -1.0, x))))
