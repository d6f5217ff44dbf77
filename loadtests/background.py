"""Work beside what else is done: a thread that begins and ends with a `with`."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Background(ABC):
    """Runs `work` in a thread of its own. What ends it too early is raised in the thread that waits for it."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None

    @abstractmethod
    def work(self) -> None:
        """Go on until `stopping` is set."""

    def check(self) -> None:
        """Raise what ended it, if anything has.

        Raises:
            BaseException: whatever that was.
        """
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop, and wait for the end of it."""
        self.stopping.set()
        self._thread.join()
        if error is None:
            self.check()

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self._error = error
