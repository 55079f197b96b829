from mainspring import events


def test_without_a_listener_events_are_dropped() -> None:
    events.note("nobody hears this")


def test_listeners_nest_and_end_with_their_block() -> None:
    outer: list[events.Event] = []
    inner: list[events.Event] = []
    with events.listening(outer.append):
        events.note("one")
        with events.listening(inner.append):
            events.warn("two")
        events.emit(events.Progress("work", 1, 2))
    events.note("three")
    assert outer == [events.Note("one"), events.Progress("work", 1, 2)]
    assert inner == [events.Warn("two")]
