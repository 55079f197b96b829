import os
import signal
import threading

import pytest

from mainspring import events
from mainspring.training.signals import Interrupted, stop_requests


def test_the_first_signal_asks_and_the_second_acts() -> None:
    said: list[events.Event] = []
    with events.listening(said.append), pytest.raises(KeyboardInterrupt), stop_requests() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGINT)
        assert stop and stop.name == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
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
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
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
