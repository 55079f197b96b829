"""How long waiting threads stay awake."""

import os

import pytest

from mainspring import threads


@pytest.fixture
def loads(tmp_path, monkeypatch):
    """A file that says how many processes run, ourselves among them."""
    monkeypatch.setattr(threads, "BETWEEN", 0.0)

    def of(text):
        file = tmp_path / "loadavg"
        file.write_text(text)
        return file

    return of


@pytest.mark.parametrize(
    ("processors", "running", "free"),
    [(2, 1, True), (2, 2, False), (8, 3, True), (8, 4, False), (64, 17, True), (64, 18, False)],
)
def test_a_machine_is_free_where_few_others_work(loads, monkeypatch, processors, running, free):
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert threads.is_free(loads(f"0.52 0.58 0.59 {running}/467 4321\n")) is free


@pytest.mark.parametrize("text", ["", "0.5 0.5", "a b c d e"])
def test_a_system_that_does_not_tell_is_not_free(loads, tmp_path, text):
    assert not threads.is_free(loads(text))
    assert not threads.is_free(tmp_path / "missing")


@pytest.mark.parametrize(("free", "turns"), [(True, threads.LATER), (False, threads.SOON)])
def test_threads_wait_as_the_machine_allows(monkeypatch, free, turns):
    monkeypatch.setattr(threads, "is_free", lambda: free)
    monkeypatch.setattr(os, "environ", {})
    threads.wait_politely()
    assert os.environ == {"GOMP_SPINCOUNT": str(turns)}


@pytest.mark.parametrize(
    "given", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}], ids=lambda g: next(iter(g))
)
def test_what_the_user_has_set_holds(monkeypatch, given):
    monkeypatch.setattr(os, "environ", dict(given))
    threads.wait_politely()
    assert os.environ == given
