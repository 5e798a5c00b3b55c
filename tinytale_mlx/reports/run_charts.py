"""Which curves of a run's log are drawn, for every kind of training; a log has some of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .log import Row
from .plots import Kind, Level, Picture, Scale, Series, line_chart


@dataclass(frozen=True)
class Curve:
    """A column of the events of one kind."""

    column: str
    label: str
    event: Literal["step", "validation"] = "step"

    @property
    def kind(self) -> Kind:
        return "line" if self.event == "step" else "points"


@dataclass(frozen=True)
class Chart:
    """Curves in one picture. `unit` divides; `expected` is what to hold them against."""

    name: str
    title: str
    y_label: str
    curves: Sequence[Curve]
    scale: Scale = "close"
    unit: float = 1.0
    expected: Literal["memory", "speed", "kl"] | None = None


def _both(column: str, held_out: str | None = None) -> list[Curve]:
    """Of training, and of what is held out."""
    return [Curve(column, "training"), Curve(held_out or column, "held out", "validation")]


LOSS = [
    Chart("loss", "Loss", "nats per token", _both("loss", "val_loss"), "log"),
    Chart("bits-per-byte", "Bits per byte", "bits", [Curve("val_bits_per_byte", "held out", "validation")], "log"),
]
PAIRS = [
    Chart("loss", "Loss", "nats per pair", _both("loss", "val_loss")),
    Chart("accuracy", "How often the preferred response wins", "share", [
        *_both("accuracy"), Curve("val_accuracy", "held out", "validation"),
    ]),
    Chart("margin", "Margin of the preferred response", "reward", [
        *_both("margin"), Curve("val_margin", "held out", "validation"),
    ]),
    Chart("rewards", "Implicit rewards", "reward", [
        Curve("chosen_reward", "preferred"), Curve("rejected_reward", "other"),
        Curve("desirable_reward", "desirable"), Curve("undesirable_reward", "undesirable"),
    ]),
]  # fmt: skip
POLICY = [
    Chart("score", "Score", "score per response", _both("score")),
    Chart("kl", "KL from the base", "nats per response", _both("kl"), expected="kl"),
    Chart("beta", "Price of KL (beta)", "score per nat", [Curve("beta", "beta")], "from zero"),
    Chart("length", "Length of responses", "tokens", _both("response_tokens"), "from zero"),
    Chart("entropy", "Entropy", "nats per token", [Curve("entropy", "training")], "from zero"),
    Chart("clipped", "Clipped tokens", "share", [Curve("clipped", "training")], "from zero"),
]
SPEED = Chart("speed", "Speed", "tokens/s", [Curve("tokens_per_second", "measured")], "from zero", expected="speed")
COURSE = [
    Chart("learning-rate", "Learning rate", "rate", [Curve("learning_rate", "learning rate")], "from zero"),
    Chart("gradient-norm", "Gradient norm, before clipping", "norm", [Curve("grad_norm", "gradient norm")], "log"),
    Chart("memory", "Memory", "MB", [
        Curve("peak_memory_bytes", "peak"), Curve("active_memory_bytes", "between steps"),
    ], "from zero", 1e6, "memory"),
    Chart("utilisation", "Model FLOPs utilisation", "% of the peak", [Curve("mfu", "utilisation")], "from zero", 0.01),
]  # fmt: skip
CHARTS = {"reward": PAIRS, "dpo": PAIRS, "ppo": [*POLICY, SPEED], "grpo": [*POLICY, SPEED]}
"""By the kind of an alignment; other trainings have `LOSS` and `SPEED`. All have `COURSE` as well."""


def counts_rows(start: Row) -> bool:
    """Whether what the log of this training calls tokens are rows of preferences."""
    return CHARTS.get(start.get("kind", "")) is PAIRS


def pictures(events: Sequence[Row]) -> list[Picture]:
    """Those for which these events, as they count, hold figures."""
    starts = [event for event in events if event["event"] == "start"]
    kind = starts[-1].get("kind") if starts else None
    x = "tokens" if kind not in CHARTS and any(event.get("tokens") for event in events) else "step"
    rows = {
        name: [event for event in events if event["event"] == name and x in event] for name in ("step", "validation")
    }
    places = {event["step"]: event[x] for event in [*rows["validation"], *rows["step"]]}
    marks = [places[step] for start in starts if (step := start.get("step")) in places]
    label = {"tokens": "tokens seen", "step": "iterations" if kind in ("ppo", "grpo") else "steps"}[x]
    found = [
        line_chart(
            chart.name, chart.title, label, chart.y_label, _series(chart, rows, x), _levels(chart, events), marks,
            chart.scale,
        )
        for chart in [*CHARTS.get(str(kind), [*LOSS, SPEED]), *COURSE]
    ]  # fmt: skip
    return [picture for picture in found if picture is not None]


def _series(chart: Chart, rows: dict[str, list[Row]], x: str) -> list[Series]:
    series = []
    for curve in chart.curves:
        values = [row.get(curve.column) for row in rows[curve.event]]
        scaled = [None if value is None else value / chart.unit for value in values]
        series.append(Series(curve.label, [row[x] for row in rows[curve.event]], scaled, curve.kind))
    return series


def _levels(chart: Chart, events: Sequence[Row]) -> list[Level]:
    forecast = last(events, "forecast")
    if chart.expected == "memory" and (peak := forecast.get("memory", {}).get("peak")):
        return [Level("peak, forecast", peak / chart.unit)]
    if chart.expected == "speed" and forecast.get("tokens_per_second"):
        low, high = forecast["tokens_per_second"]
        return [Level("estimated before", low, high)]
    if chart.expected == "kl" and (target := last(events, "step").get("kl_target")):
        return [Level("target", target)]
    return []


def last(events: Sequence[Row], kind: str) -> Row:
    """The last event of a kind; empty where there is none."""
    return next((one for one in reversed(events) if one["event"] == kind), {})
