"""The packages that not everyone needs, and the extra of Mainspring's own that brings each.

Who wants something that needs one is told so before there is work to lose.
"""

from dataclasses import dataclass
from importlib.util import find_spec

from mainspring.errors import Missing


@dataclass(frozen=True)
class Extra:
    """An extra by its name in `pip install 'mainspring[…]'`, and the `packages` of it that `what`
    ("BLEU needs") is not to be had without."""

    name: str
    packages: tuple[str, ...]
    what: str

    @property
    def command(self) -> str:
        return f"pip install 'mainspring[{self.name}]'"

    def missing(self) -> Missing:
        several = "packages" if len(self.packages) > 1 else "a package"
        return Missing(f"{self.what} {several}: {self.command}")

    def check(self) -> None:
        """Missing where a package is not installed; nothing is imported."""
        if any(find_spec(package) is None for package in self.packages):
            raise self.missing()


BLEU = Extra("translate", ("sacrebleu",), "BLEU and chrF need")
CONSTRAINED = Extra("constrained", ("llguidance",), "constrained output needs")
ENTITIES = Extra("entities", ("nervaluate",), "scores of entities need")
ERROR_RATES = Extra("speech", ("jiwer",), "error rates need")
GGUF = Extra("gguf", ("gguf",), "writing GGUF files needs")
GRAPH = Extra("graph", ("pyoxigraph",), "graphs need")
HARNESS = Extra("harness", ("lm_eval",), "the harness needs")
HNSW = Extra("answer", ("faiss",), "--search hnsw needs")
PLOT = Extra("plot", ("matplotlib",), "a picture needs")
SOUND = Extra("speech", ("soundfile", "soxr"), "reading sound needs")
TENSORBOARD = Extra("track", ("tensorboard",), "--tensorboard needs")
