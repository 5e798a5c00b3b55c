"""What became of a training run, as a page: figures, curves, samples over time, forecast beside fact.

It reads the run's files and nothing else, so it works while the run goes on, after it failed, and on another machine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .log import Row, as_counted, figures, read_events
from .page import Facts, Heading, Page, Pictures, Table, Text, Verbatim
from .run_charts import counts_rows, last, pictures
from .wording import duration, megabytes, number, quantity

SAMPLES = 8
"""At most so many steps are shown with what the model wrote then."""


def run_page(folder: Path, name: str) -> Page:
    """The page of the run in a folder. Raises UserError where it has no log, a damaged one, or nothing in it yet."""
    log = folder / "log.jsonl"
    every = read_events(log)
    try:
        return _page(folder, name, every)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{log} has an event with something missing or of another kind: {error}") from error


def _page(folder: Path, name: str, every: Sequence[Row]) -> Page:
    events, rows = as_counted(every), figures(every)
    first = next((i for i in reversed(range(len(every))) if every[i]["event"] == "start"), len(every))
    start, end = last(every, "start"), last(every[first:], "end")
    page = Page(f"tinytale: {name}")
    page.add(Text(_status(start, rows, end, last(every[first:], "best"))), Facts(_facts(start, rows, end)))
    if drawn := pictures(events):
        page.add(Pictures(drawn))
    page.add(*_before_and_after(end), *_samples(events), *_forecast(events, rows), *_machine(every), *_trouble(every))
    page.add(*_recipe(folder, start))
    return page


def _known(rows: Sequence[Row], column: str) -> list[float]:
    return [row[column] for row in rows if row.get(column) is not None]


# ---------------------------------------------------------------------- the summary
def _status(start: Row, rows: Sequence[Row], end: Row, best: Row) -> str:
    if not start:
        return "Nothing has been trained yet."
    done = rows[-1]["step"] if rows else 0
    text = f"{end.get('status', 'not finished').capitalize()}: {done:,} of {start.get('steps', 0):,} steps"
    return f"{text}; the model has the weights of step {best['step']:,}, the best ones." if best else f"{text}."


def _facts(start: Row, rows: Sequence[Row], end: Row) -> list[tuple[str, str]]:
    """The newest figure of each kind. The loss of a policy is minus its score, and so is not shown."""
    three = "{:.3f}".format
    shown = [
        ("score", "score", three), ("KL from the base", "kl", three),
        *([] if _known(rows, "score") else [("validation loss", "val_loss", three), ("training loss", "loss", three)]),
        ("bits per byte", "val_bits_per_byte", three),
        *([] if counts_rows(start) else [("tokens", "tokens", quantity)]),
        ("training time", "seconds", duration),
    ]  # fmt: skip
    every = [*rows, end]
    facts = [(name, show(values[-1])) for name, column, show in shown if (values := _known(every, column))]
    if speeds := sorted(_known([end] if counts_rows(start) else rows, "tokens_per_second")):
        facts.append(("tokens/s, median", quantity(speeds[len(speeds) // 2])))
    if peaks := _known(every, "peak_memory_bytes"):
        facts.append(("peak memory", megabytes(max(peaks))))
    names = ("trained_parameters", "parameters")
    return facts + [(name.replace("_", " "), quantity(start[name])) for name in names if start.get(name)]


def _before_and_after(end: Row) -> list[Any]:
    """Of an alignment: how its answers to what is held out have changed."""
    names = [name.removesuffix("_before") for name in end if name.endswith("_before")]
    pairs = [(name, end[f"{name}_before"], end.get(f"{name}_after")) for name in names]
    rows = [[name.replace("_", " "), *("" if one is None else number(one) for one in pair)] for name, *pair in pairs]
    return [Heading("Before and after"), Table(["held out", "before", "after"], rows)] if rows else []


# ---------------------------------------------------------------------- samples
def _samples(events: Sequence[Row]) -> list[Any]:
    written: dict[int, list[str]] = {}
    for event in events:
        if event["event"] == "sample":
            asked = f"{event['prompt']}\n\n" if "prompt" in event else ""
            written.setdefault(event["step"], []).append(asked + event["text"])
            if "before" in event:  # what the base of an alignment answers
                written.setdefault(0, []).append(asked + event["before"])
    if not written:
        return []
    steps = sorted(written)
    shown = sorted({steps[round(i * (len(steps) - 1) / (SAMPLES - 1))] for i in range(SAMPLES)})
    titles = {step: f"After {step:,} steps" if step else "Before" for step in shown}
    texts = [
        Verbatim(text.strip() or "(nothing)", None if again else titles[step])
        for step in shown
        for again, text in enumerate(dict.fromkeys(written[step]))
    ]
    return [Heading("What it wrote"), *texts]


# ---------------------------------------------------------------------- forecast and machine
def _forecast(events: Sequence[Row], rows: Sequence[Row]) -> list[Any]:
    forecast = last(events, "forecast")
    peaks, speeds = _known(rows, "peak_memory_bytes"), sorted(_known(rows, "tokens_per_second"))
    if not forecast:
        return []
    low, high = forecast["tokens_per_second"]
    measured = f"{quantity(speeds[0])} to {quantity(speeds[-1])}" if speeds else ""
    table = Table(
        ["", "forecast", "measured"],
        [
            ["peak memory", megabytes(forecast["memory"]["peak"]), megabytes(max(peaks)) if peaks else ""],
            ["usable memory", megabytes(forecast["usable_memory_bytes"]), ""],
            ["tokens/s", f"{quantity(low)} to {quantity(high)}", measured],
        ],
    )
    return [Heading("Forecast and fact"), table, Text(f"Forecast for {forecast['basis']}.")]


def _machine(events: Sequence[Row]) -> list[Any]:
    """A line for each sitting: the time between the start of a process and its end."""
    starts = [number for number, one in enumerate(events) if one["event"] == "start"]
    if not starts:
        return []
    rows = []
    for first, after in zip(starts, [*starts[1:], len(events)], strict=True):
        start, sitting = events[first], events[first:after]
        done = max((one["step"] for one in sitting if one["event"] == "step"), default=start.get("step", 0))
        machine = f"{start.get('device')}, {start.get('backend')}, {start.get('cores')} cores"
        memory, version = megabytes(start.get("memory_bytes", 0)), str(start.get("mlx"))
        times = [one["time"] for one in sitting if "time" in one]
        seconds = duration(times[-1] - times[0]) if times else ""
        rows.append([str(len(rows) + 1), machine, memory, version, f"{start.get('step', 0):,} to {done:,}", seconds])
    count = "one sitting" if len(rows) == 1 else f"{len(rows)} sittings"
    head = ["", "machine", "memory", "MLX", "steps", "time"]
    return [Heading(f"Trained in {count}"), Table(head, rows, left=2)]


def _trouble(events: Sequence[Row]) -> list[Any]:
    """Warnings, each once, and steps that were left out."""
    texts = dict.fromkeys(one["text"] for one in events if one["event"] == "warning" and "text" in one)
    lines = [f"- {text}" for text in texts]
    if left_out := [one["step"] for one in events if one["event"] == "nonfinite" and "step" in one]:
        lines.append(f"- steps left out, since something was not finite: {', '.join(map(str, left_out))}")
    return [Heading("Warnings"), Verbatim("\n".join(lines))] if lines else []


def _recipe(folder: Path, start: Row) -> list[Any]:
    names = ("parameters", "trained_parameters", "vocab_size", "context", "effective_batch_size", "tokens_per_step",
             "train_tokens", "validation_tokens")  # fmt: skip
    rows = [[name.replace("_", " "), f"{start[name]:,}"] for name in names if start.get(name) is not None]
    blocks: list[Any] = [Heading("Recipe")]
    if rows:
        blocks.append(Table([str(start.get("recipe", "")), ""], rows))
    path = folder / "recipe.yaml"
    if path.is_file():
        blocks.append(Verbatim(path.read_text(encoding="utf-8", errors="replace"), "every setting", folded=True))
    return blocks
