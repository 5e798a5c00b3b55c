"""Other places than log.jsonl for the figures of a run, such as a dashboard: one small interface, several at once.

They are guests. Whatever goes wrong with them, a missing network or a full account, the training goes on.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..recipe_files import AnyRecipe
from ..run import Run
from .tokenizing import Notify


class Tracker(Protocol):
    """`start` once, `log` for every event of log.jsonl from then on (and those for the screen), `end` once.

    `resumed` says that the run has been here before. A status is that of a `TrainResult`, or "failed".
    """

    def start(self, run: Run, recipe: AnyRecipe, resumed: bool) -> None: ...

    def log(self, event: dict[str, Any]) -> None: ...

    def end(self, status: str) -> None: ...


class Tracking:
    """Hands events on, to the screen and to trackers. One that raises is reported once; the others never notice."""

    def __init__(self, trackers: Sequence[Tracker], notify: Notify):
        self._notify = notify
        self._waiting, self._started = list(trackers), []
        self._reported: set[int] = set()

    def start(self, run: Run, recipe: AnyRecipe, resumed: bool) -> None:
        """Those that fail here are left out."""
        waiting, self._waiting = self._waiting, []
        self._started = [one for one in waiting if self._tried(one, lambda one=one: one.start(run, recipe, resumed))]

    def notify(self, event: dict[str, Any]) -> None:
        self._notify(event)
        for one in self._started:
            self._tried(one, lambda one=one: one.log(event))

    def end(self, status: str) -> None:
        started, self._started = self._started, []
        for one in started:
            self._tried(one, lambda one=one: one.end(status))

    def _tried(self, tracker: Tracker, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception as error:  # whatever a guest may raise
            if id(tracker) not in self._reported:
                self._reported.add(id(tracker))
                reason = " ".join(str(error).split()) or type(error).__name__
                self._notify(
                    {"event": "warning", "text": f"{type(tracker).__name__} failed ({reason}); training goes on"}
                )
            return False
        return True
