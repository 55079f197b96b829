"""Ctrl-C and SIGTERM asked for politely: finish the step, save, then stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mainspring.events import warn


class Interrupted(BaseException):
    """Raised by a stop request within `StopRequest.interrupting`. No Exception, so that nothing
    on the way takes it for a failure."""


class StopRequest:
    """Set when the process was asked to stop."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._interrupts = False

    def __bool__(self) -> bool:
        return self.name is not None

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within the block a request raises `Interrupted` at once: for work that can be thrown
        away and done again."""
        self._interrupts = True
        try:
            yield
        finally:
            self._interrupts = False

    def ask(self, name: str) -> None:
        self.name = name
        if self._interrupts:
            raise Interrupted


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the block the first SIGINT or SIGTERM sets the request; a second one acts at once.

    Outside the main thread, where signals cannot be caught, the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        name = signal.Signals(number).name
        warn(f"{name}: finishing this step, then saving; once more to stop at once")
        request.ask(name)

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
