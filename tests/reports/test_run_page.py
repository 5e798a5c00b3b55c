"""The page of a run: what it says of trainings that ended, were resumed, go on, or went wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from html_checks import checked

from tinytale_mlx.errors import UserError
from tinytale_mlx.reports import plots
from tinytale_mlx.reports.page import Facts, Page, Table, Verbatim, to_html
from tinytale_mlx.reports.run_page import run_page

Event = dict[str, Any]
START: Event = {
    "event": "start", "time": 100.0, "run": "runs/a", "recipe": "tale", "parameters": 1115520, "step": 0, "steps": 40,
    "vocab_size": 2048, "train_tokens": 2949344, "validation_tokens": 55610, "effective_batch_size": 8, "context": 192,
    "tokens_per_step": 1536, "device": "Apple M2", "backend": "gpu", "memory_bytes": 8589934592, "cores": 8,
    "mlx": "0.32.4",
}  # fmt: skip
FORECAST: Event = {
    "event": "forecast", "basis": "M2, 8 GB: estimated", "usable_memory_bytes": 5726_000000,
    "memory": {"peak": 195_000000}, "tokens_per_second": [3000.0, 9000.0],
}  # fmt: skip


def step(number: int, **more: Any) -> Event:
    return {
        "event": "step", "time": 100.0 + number, "step": number, "loss": 8 / number, "tokens": 1536 * number,
        "learning_rate": 0.01, "grad_norm": 1.0, "tokens_per_second": 6000.0 + number, "mfu": None,
        "seconds": float(number), "peak_memory_bytes": 190_000000 + number, "active_memory_bytes": 10_000000, **more,
    }  # fmt: skip


def validation(number: int, loss: float) -> Event:
    figures = {"val_loss": loss, "val_perplexity": 2.0, "val_bits_per_byte": loss / 2}
    return {"event": "validation", "step": number, "tokens": 1536 * number, **figures}


def sample(number: int, text: str) -> Event:
    return {"event": "sample", "step": number, "text": text}


def training(first: int = 1, last: int = 40) -> list[Event]:
    return [step(number) for number in range(first, last + 1)]


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Page]:
    """Of a run with these events in its log."""

    def made(*events: Event, recipe: str = "name: tale\n") -> Page:
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        (tmp_path / "recipe.yaml").write_text(recipe)
        found = run_page(tmp_path, "a run")
        checked(to_html(found))
        return found

    return made


def text(page: Page) -> str:
    return checked(to_html(page)).text


def facts(page: Page) -> dict[str, str]:
    return {name: value for block in page.blocks if isinstance(block, Facts) for name, value in block.facts}


def verbatim(page: Page) -> list[tuple[str | None, str]]:
    return [(block.title, block.text) for block in page.blocks if isinstance(block, Verbatim)]


def table(page: Page, corner: str) -> list[list[str]]:
    """The rows of the table that has this in its head."""
    return next([list(row) for row in t.rows] for t in page.blocks if isinstance(t, Table) and corner in t.head)


def test_a_finished_run(page: Callable[..., Page]) -> None:
    found = page(
        START, FORECAST, *training(), validation(40, 0.5), sample(40, "Once."), {"event": "end", "status": "finished"}
    )
    assert facts(found) == {
        "validation loss": "0.500", "training loss": "0.200", "bits per byte": "0.250", "tokens": "61.4k",
        "training time": "0:40", "tokens/s, median": "6.02k", "peak memory": "190 MB", "parameters": "1.12M",
    }  # fmt: skip
    assert "Finished: 40 of 40 steps." in text(found)
    names = [picture.name for picture in found.pictures()]
    assert names == ["loss", "bits-per-byte", "speed", "learning-rate", "gradient-norm", "memory"]
    assert found.pictures()[0].alt == (
        "Loss: nats per token against tokens seen. training goes from 8 at 1.54k to 0.2 at 61.4k; "
        "held out goes from 0.5 at 61.4k to 0.5 at 61.4k."
    )
    assert table(found, "forecast") == [
        ["peak memory", "195 MB", "190 MB"],
        ["usable memory", "5,726 MB", ""],
        ["tokens/s", "3k to 9k", "6k to 6.04k"],
    ]
    assert ("every setting", "name: tale\n") in verbatim(found)
    assert "Trained in one sitting" in text(found)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "Not finished: 40 of 50 steps."),
        ([{"event": "end", "status": "interrupted"}], "Interrupted: 40 of 50 steps."),
        ([{"event": "end", "status": "stopped early"}], "Stopped early: 40 of 50 steps."),
        ([{"event": "best", "step": 20}, {"event": "end", "status": "finished"}], "weights of step 20, the best ones."),
    ],
)
def test_how_it_ended(page: Callable[..., Page], events: list[Event], said: str) -> None:
    assert said in text(page(START | {"steps": 50}, *training(), *events))


def test_a_run_that_went_on_after_its_end(page: Callable[..., Page]) -> None:
    """The end of the first sitting is none of the second's."""
    found = page(START, *training(), {"event": "end", "status": "finished"}, START | {"step": 40, "steps": 60})
    assert "Not finished: 40 of 60 steps." in text(found)


def test_a_resumed_run(page: Callable[..., Page]) -> None:
    """Steps that were done again count once, samples too; each sitting has its line."""
    first = [START, *training(last=25), sample(20, "kept"), sample(25, "forgotten")]
    second = [START | {"step": 20, "time": 120.0, "device": "Apple M4"}, *training(21), sample(30, "later")]
    found = page(*first, *second)
    assert table(found, "machine") == [
        ["1", "Apple M2, gpu, 8 cores", "8,590 MB", "0.32.4", "0 to 25", "0:25"],
        ["2", "Apple M4, gpu, 8 cores", "8,590 MB", "0.32.4", "20 to 40", "0:20"],
    ]
    assert [one for one in verbatim(found) if one[0] != "every setting"] == [
        ("After 20 steps", "kept"),
        ("After 30 steps", "later"),
    ]
    assert "Trained in 2 sittings" in text(found)


def test_samples_over_time(page: Callable[..., Page]) -> None:
    """Not all of them, but the first and the last, and each text of a step once."""
    events = [sample(number, f"text {number}") for number in range(1, 101)]
    found = page(START, *events, sample(100, "text 100"), sample(100, " "), sample(100, "another"))
    shown = [one for one in verbatim(found) if one[0] != "every setting"]
    assert len(shown) == 10
    assert shown[0] == ("After 1 steps", "text 1")
    assert shown[-3:] == [("After 100 steps", "text 100"), (None, "(nothing)"), (None, "another")]


def test_warnings(page: Callable[..., Page]) -> None:
    warning = {"event": "warning", "text": "a checkpoint was damaged"}
    found = page(START, warning, step(1), warning, {"event": "nonfinite", "step": 7, "what": "loss"})
    assert (None, "- a checkpoint was damaged\n- steps left out, since something was not finite: 7") in verbatim(found)


def test_a_fine_tuning(page: Callable[..., Page]) -> None:
    """Its log knows no forecast, and fewer figures."""
    start = {name: value for name, value in START.items() if name != "validation_tokens"}
    found = page({"event": "examples", "template": "chatml"}, start | {"trained_parameters": 24576}, *training(last=3))
    assert facts(found)["trained parameters"] == "24.6k"
    assert ["train tokens", "2,949,344"] in table(found, "tale")


def test_a_policy(page: Callable[..., Page]) -> None:
    """Curves of score, KL and the rest over iterations; what it wrote before. Its loss is left out."""
    start = START | {"kind": "ppo", "trained_parameters": 24576, "steps": 20}
    steps = [
        step(n, loss=-n / 10, score=n / 10, kl=n / 5, beta=0.1, response_tokens=20, entropy=1.5) for n in range(1, 21)
    ]
    held_out = {"event": "validation", "step": 20, "tokens": 7, "val_loss": -1.5, "score": 1.5, "kl": 3.0}
    samples = [sample(n, f"after {n}") | {"prompt": "Once", "before": "what the base says"} for n in (10, 20)]
    end = {"event": "end", "status": "finished", "kl_target": 6.0, "score_before": 0.25, "score_after": 1.5, "kl": 3.0}
    found = page(start, *steps, held_out, *samples, end)
    alts = {picture.name: picture.alt for picture in found.pictures()}
    assert list(alts) == [
        "score",
        "kl",
        "beta",
        "length",
        "entropy",
        "speed",
        "learning-rate",
        "gradient-norm",
        "memory",
    ]
    assert alts["score"] == (
        "Score: score per response against iterations. training goes from 0.1 at 1 to 2 at 20; "
        "held out goes from 1.5 at 20 to 1.5 at 20."
    )
    assert list(facts(found))[:2] == ["score", "KL from the base"]
    assert "validation loss" not in facts(found)
    assert table(found, "before") == [["score", "0.250", "1.500"]]
    assert [one for one in verbatim(found) if one[0] != "every setting"] == [
        ("Before", "Once\n\nwhat the base says"), ("After 10 steps", "Once\n\nafter 10"),
        ("After 20 steps", "Once\n\nafter 20"),
    ]  # fmt: skip


def test_pairs(page: Callable[..., Page]) -> None:
    """A reward model, or DPO: over steps, with what is held out under either name."""
    steps = [step(n, accuracy=0.5 + n / 100, margin=n / 10, chosen_reward=1.0, rejected_reward=-1.0) for n in (1, 2)]
    held_out = {"event": "validation", "step": 2, "tokens": 7, "val_loss": 0.6}
    for kind, prefix in (("reward", ""), ("dpo", "val_")):
        found = page(START | {"kind": kind}, *steps, held_out | {f"{prefix}accuracy": 0.75, f"{prefix}margin": 0.1})
        alts = {picture.name: picture.alt for picture in found.pictures()}
        assert list(alts)[:4] == ["loss", "accuracy", "margin", "rewards"]
        assert alts["accuracy"].endswith(
            "training goes from 0.51 at 1 to 0.52 at 2; held out goes from 0.75 at 2 to 0.75 at 2."
        )
        assert facts(found)["validation loss"] == "0.600"
        assert not {"tokens", "tokens/s, median"} & set(facts(found))  # its log counts rows


def test_a_run_that_only_begins(page: Callable[..., Page]) -> None:
    assert "Nothing has been trained yet." in text(page({"event": "tokenizer", "vocab_size": 3}))
    assert page(START).pictures() == []


def test_figures_that_are_not_finite_are_gaps(page: Callable[..., Page]) -> None:
    found = page(START, step(1), step(2, loss=None, grad_norm=None), step(3))
    assert "training goes from 8 at 1.54k to 2.67 at 4.61k" in found.pictures()[0].alt


@pytest.mark.parametrize(
    "event",
    [{"event": "step"}, {"event": "step", "step": "x"}, {"event": "forecast"}, {"event": "sample", "text": "a"},
  {"event": "start", "step": 0, "steps": None}],
)  # fmt: skip
def test_events_of_another_kind(page: Callable[..., Page], event: Event) -> None:
    with pytest.raises(UserError, match=r"log\.jsonl has an event with something missing or of another kind"):
        page(START, step(2), event)


def test_what_cannot_be_drawn_is_not_the_fault_of_the_log(page: Callable[..., Page], monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise UserError("pictures cannot be drawn: no place")

    monkeypatch.setattr(plots, "_png", refuse)
    with pytest.raises(UserError, match=r"^pictures cannot be drawn: no place$"):
        page(START, step(1))


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no log in"):
        run_page(tmp_path, "a")
