import signal
import threading
from collections.abc import Iterator

import pytest

from mainspring import events
from mainspring.training.signals import Interrupted, stop_requests


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C as at a terminal: what is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_asks_and_the_second_acts() -> None:
    said: list[events.Event] = []
    with events.listening(said.append), pytest.raises(KeyboardInterrupt), stop_requests() as stop:
        assert not stop
        signal.raise_signal(signal.SIGINT)  # to this thread: another one would not be woken by it
        assert stop and stop.name == "SIGINT"
        signal.raise_signal(signal.SIGINT)
    [warning] = said
    assert isinstance(warning, events.Warn) and "once more to stop at once" in warning.text


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_work_that_can_be_repeated_is_interrupted() -> None:
    with stop_requests() as stop:
        with pytest.raises(Interrupted), stop.interrupting():
            signal.raise_signal(signal.SIGTERM)
        assert stop.name == "SIGTERM"


def test_other_threads_go_without() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_requests() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
