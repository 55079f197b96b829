"""Fixtures of the tests of compute/."""

import pytest

from mainspring.compute.native import library


@pytest.fixture(params=["kernels", "operators"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By our own kernels where this machine can have them, and by torch's operators."""
    if request.param == "operators":
        monkeypatch.setattr(library, "kernels", lambda: None)
    elif library.kernels() is None:
        pytest.skip(f"no kernels: {library.why_not()}")
    return request.param
