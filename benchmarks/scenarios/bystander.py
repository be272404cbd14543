"""A client that has done nothing and only wants its answers."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from scenarios.scenario import seconds
from scenarios.stage import MARGIN

if TYPE_CHECKING:
    from types import TracebackType

    from scenarios.stage import Actor, Stage

__all__ = ["Bystander"]

#: Seconds between an answer and the next question.
PAUSE = 0.005
#: Its first number, so that others can be told apart in a journal.
FIRST = 1_000_000


class Bystander:
    """Asks again and again, as long as its block lasts.

    Args:
        stage: Where the server is.
        patience: Seconds that an answer is waited for.

    Attributes:
        answered: How many of its questions were answered.
        errors: Why others were not.
        longest: The longest time that a question took, in seconds, answered or not.
    """

    def __init__(self, stage: Stage, patience: float) -> None:
        self._client: Actor = stage.ask(patience=patience)
        self._patience = patience
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answered = 0
        self.errors: list[str] = []
        self.longest = 0.0

    @property
    def waited(self) -> str:
        """How long it had to wait at most, for people."""
        if self.errors:
            return f"had no answer in {self._patience:g} s"
        return f"waited {seconds(self.longest)}"

    def __enter__(self) -> Self:
        self._one(FIRST)  # connects, which is not what is looked at
        self.longest = 0.0
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        number = FIRST
        while not self._over.is_set():
            number += 1
            self._one(number)
            time.sleep(PAUSE)

    def _one(self, number: int) -> None:
        said, seconds = self._client.ask({"n": number}, self._patience + MARGIN)
        if "error" in said:
            self.errors.append(said["error"])
        else:
            self.answered += 1
        self.longest = max(self.longest, seconds)
