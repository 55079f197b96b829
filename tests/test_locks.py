"""Locks on folders: one holder, who is named; no file left where it would be in the way."""

import errno
import os
import re
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mainspring import locks
from mainspring.errors import BadOption


def held(
    file: Path, *, shared: bool = False, passing: bool = False
) -> AbstractContextManager[None]:
    return locks.in_use(file, "counting", "come back later", shared=shared, passing=passing)


def test_the_second_is_refused_and_told_who_was_first(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    said = rf"{re.escape(str(tmp_path))} is in use: process {os.getpid()} is counting \(since 2"
    with held(file), pytest.raises(BadOption, match=said + r".*\); come back later$"), held(file):
        pass
    with held(file):
        assert file.exists()
    with held(file, shared=True), held(file, shared=True), pytest.raises(BadOption), held(file):
        pass


def test_a_passing_lock_goes_and_what_one_who_was_killed_left_is_taken_over(
    tmp_path: Path,
) -> None:
    file = tmp_path / "lock"
    file.write_text("half a li")
    with held(file, passing=True):
        assert file.exists()
        with pytest.raises(BadOption), held(file, passing=True):
            pass
        assert file.exists(), "who is refused takes nothing away"
    assert not file.exists()


def test_a_file_that_was_taken_away_in_between_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened while the former holder still had it, locked when that one had taken it away."""
    file, opened = tmp_path / "lock", locks._opened
    stale = [file.open("a+", encoding="utf-8")]
    file.unlink()
    monkeypatch.setattr(locks, "_opened", lambda *how: stale.pop() if stale else opened(*how))
    with held(file), pytest.raises(BadOption), held(file):
        pass
    assert not stale


def test_the_lock_of_a_folder_is_another_than_that_of_its_file(tmp_path: Path) -> None:
    with held(tmp_path / "lock"), locks.alone(tmp_path, wait=False) as ours:
        assert ours
        with locks.alone(tmp_path, wait=False) as also:
            assert not also


def test_where_there_are_no_locks_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unable:
        LOCK_SH, LOCK_EX, LOCK_NB = 1, 2, 4

        @staticmethod
        def flock(handle: int, kind: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

    for fcntl in (None, Unable):
        monkeypatch.setattr(locks, "fcntl", fcntl)
        with held(tmp_path / "lock"), held(tmp_path / "lock"):
            pass
        with locks.alone(tmp_path, wait=True) as ours, locks.alone(tmp_path, wait=True) as also:
            assert ours and also
