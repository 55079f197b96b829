"""Mainspring: one readable, fast Transformer core, and everything a person needs around it.

    import mainspring
    run = mainspring.fit("summarize", "news.csv", model="google-t5/t5-small", out="runs/news")
    mainspring.run("summarize", "article.txt", model="runs/news")
    bundle = mainspring.load("runs/news")

Importing this package imports nothing heavy: each name is fetched when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    "fit": "mainspring.verbs.fit",
    "run": "mainspring.verbs.run",
    "evaluate": "mainspring.verbs.evaluate",
    "embed": "mainspring.verbs.embed",
    "export": "mainspring.verbs.export",
    "get": "mainspring.verbs.get",
    "load": "mainspring.checkpoints.bundle",
    "show_progress": "mainspring.console",
    "MainspringError": "mainspring.errors",
}

__all__ = [
    "MainspringError",
    "__version__",
    "embed",
    "evaluate",
    "export",
    "fit",
    "get",
    "load",
    "run",
    "show_progress",
]

if TYPE_CHECKING:
    from mainspring.checkpoints.bundle import load
    from mainspring.console import show_progress
    from mainspring.errors import MainspringError
    from mainspring.verbs.embed import embed
    from mainspring.verbs.evaluate import evaluate
    from mainspring.verbs.export import export
    from mainspring.verbs.fit import fit
    from mainspring.verbs.get import get
    from mainspring.verbs.run import run


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mainspring' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
