"""Fixtures that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import nano

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _one_thread_per_worker() -> None:
    """Tests run in parallel processes: more threads in each would only wait for one another."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that want it skip where it is not."""
    folder = Path(os.environ.get("MAINSPRING_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data sets are not here (set MAINSPRING_DATA to their folder)")
    return folder


def packaged_model(name: str) -> Path:
    """The folder of a model that `mainspring get` knows: out of the cache, or fetched once into a
    folder of the tests. A test that wants it skips where it cannot be had."""
    from mainspring.checkpoints.fetching import fetch
    from mainspring.checkpoints.packaged import CACHE_VARIABLE, TABLE, folder_of, is_here
    from mainspring.errors import MainspringError

    if is_here(TABLE[name]):
        return folder_of(TABLE[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(ROOT / ".pytest_cache" / "models"))
        patch.setenv("PIP_RETRIES", "1")
        patch.setenv("PIP_DEFAULT_TIMEOUT", "10")
        try:
            fetch(TABLE[name])
        except MainspringError as error:
            pytest.skip(f"`{name}` is not to be had here ({str(error).splitlines()[0]})")
        return folder_of(TABLE[name])


@pytest.fixture(scope="session")
def starter() -> Path:
    """The folder of SmolLM2-135M-Instruct."""
    return packaged_model("starter")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the sentence encoder all-MiniLM-L6-v2."""
    return packaged_model("minilm")


@pytest.fixture
def nano_size() -> Iterator[str]:
    """The name of a size to train from scratch, in seconds."""
    with nano.size() as name:
        yield name


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `fit summarize` wrote; beside it are `pairs.jsonl`, which it was trained on,
    and `test.jsonl`."""
    import mainspring

    folder = tmp_path_factory.mktemp("trained")
    nano.write_jsonl(nano.pairs(120), folder / "pairs.jsonl")
    nano.write_jsonl(nano.pairs(12, seed=1), folder / "test.jsonl")
    with nano.size() as name:
        mainspring.fit(
            "summarize",
            folder / "pairs.jsonl",
            out=folder / "model",
            from_scratch=name,
            steps=40,
            learning_rate=1e-2,
            max_source=40,
            max_target=12,
            batch_tokens=1024,
            vocabulary=300,
            evaluate_every=20,
            metric_rows=4,
            precision="float32",
        )
    return folder / "model"


# Folders whose tests hold us against transformers, which alone takes seconds to import.
ORACLES = ("families", "generation", "compute")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of these folders are marked `oracle`: `make check` leaves them to `make test`. Those
    marked `gpu` skip where torch finds none."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    for item in items:
        if item.path.parent.name in ORACLES:
            item.add_marker("oracle")
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
