"""A training of several processes: rank 0 leads and the others follow.

The leader is a session like any other. It alone opens the run, trains the tokenizer, prepares the text, writes,
prints and saves. When all of that is ready it tells the others, in one message, what they need to build the same, and
then gives them its weights; from there on all run the same loop. So a follower needs nothing on its disk but the text,
and a run doesn't know by how many processes it was trained: it may be resumed by more, or fewer.
"""

import base64
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from .. import blas
from ..data import sources
from ..errors import UserError
from ..recipe import Recipe
from ..run import Run
from ..tokenizers import Tokenizer, load_tokenizer
from ..training.distributed import Lost, world
from ..training.loop import Progress
from .corpus import Corpus, other_corpus
from .session import Session


def leads() -> bool:
    """Whether this process writes and prints; one that trains alone does."""
    return world().leads


@contextmanager
def leading() -> Iterator[None]:
    """For what the leader does before `announce`: if that fails, the followers end, too, and say nothing."""
    try:
        yield
    except BaseException:
        with suppress(Lost):
            world().from_first(b"")
        raise


def check_shareable(recipe: Recipe) -> None:
    """Refuse what several processes can't do. Raises UserError."""
    rows, size = recipe.train.batch_size, world().size
    if rows % size:
        raise UserError(f"train.batch_size {rows} can't be shared evenly by {size} processes")
    if size > 1 and any("-" in sources.resolve(part.data.source) for part in sources.parts(recipe.data)):
        raise UserError("standard input can't be shared by several processes; save the text in a file first")


def announce(session: Session) -> None:
    """Tell the followers all they need; when it returns, they are where this session is.

    Raises:
        UserError: one of them could not follow; it says why.
    """
    if world().size > 1:
        world().from_first(json.dumps(_told(session)).encode())
        if failed := world().unfit(True):
            raise UserError(f"process {failed[0]} of {world().size} could not take part, see its own message")
        _copy_state(session)


class Follower(Session):
    """A session of rank 1 or more: it computes, and leaves nothing behind."""

    def __init__(self, told: dict[str, Any], root: Path):
        self._told, self._root = told, root
        recipe = Recipe.model_validate(told["recipe"])
        super().__init__(Run(Path(told["run"])), recipe, notify=lambda event: None, retrain=False, force=True)

    def _find_tokenizer(self, retrain: bool) -> Tokenizer:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self._told["tokenizer"].items():
                Path(folder, name).write_bytes(base64.b64decode(content))
            return load_tokenizer(folder)

    def _find_corpus(self) -> Corpus:
        keys, fingerprint = self._told["keys"], self._told["fingerprint"]
        return other_corpus(self.recipe, self.tokenizer, self._root, keys, fingerprint, world().rank, world().size)

    def _load_newest(self) -> None:
        self._restore(self._told["state"])

    def _load_best(self) -> int | None:
        return None

    def start(self) -> None: ...

    def log(self, event: dict[str, Any]) -> None: ...

    def save(self, progress: Progress) -> None: ...

    def save_model(self) -> None: ...

    def samples(self, step: int) -> Iterator[str]:
        return iter(())


def join(root: Path) -> Follower:
    """Wait for what the leader tells, and build the session. Ends the process, without a word, where the leader failed.

    Raises:
        UserError: what keeps this process from taking part.
    """
    told = world().from_first(b"")
    if not told:
        raise SystemExit(0)  # not an error of this process: else mlx.launch would end the leader amid its message
    try:
        session = Follower(json.loads(told), root)
    except BaseException:
        world().unfit(False)
        raise
    if world().unfit(True):
        raise SystemExit(0)
    _copy_state(session)
    return session


def own_cores() -> AbstractContextManager[None]:
    """Inside, a process that is not alone on this machine leaves the other cores to the others."""
    return blas.single_threaded() if world().cores < (os.cpu_count() or 1) else nullcontext()


@contextmanager
def losing_nothing(session: Session) -> Iterator[None]:
    """Inside, if another process dies, the leader saves all steps that were done together; none is ever half done."""
    try:
        yield
    except Lost as error:
        if not leads():
            raise
        session.save(session.progress)
        raise UserError(
            f"{error}; saved at step {session.progress.step}, go on with `{session.run.resume_command}`"
        ) from error


def _told(session: Session) -> dict[str, Any]:
    recipe = session.recipe.model_dump(mode="json")
    recipe["train"]["epochs"] = None  # they are counted in steps by now
    files = sorted(path for path in session.run.tokenizer.iterdir() if path.is_file())
    return {
        "run": str(session.run.path),
        "recipe": recipe,
        "tokenizer": {path.name: base64.b64encode(path.read_bytes()).decode() for path in files},
        "keys": session.corpus.keys,
        "fingerprint": session.corpus.fingerprint,
        "state": session.state(),
    }


def _copy_state(session: Session) -> None:
    """Weights, the optimiser's state and the average of the weights, from rank 0."""
    world().copy_first(weights := session.model.parameters())
    session.model.update(weights)
    session.optimizer.init(session.model.trainable_parameters())
    world().copy_first(session.optimizer.state)
    if session.average is not None:
        world().copy_first(session.average.weights)
