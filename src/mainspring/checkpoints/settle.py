"""Writing a folder of files all at once or not at all.

    folder/.draft/   being written             killed here: thrown away by the next save
    folder/.ready/   complete on the disk      killed here: moved into place by the next load
    folder/          each file renamed into place, files of the former checkpoint removed

A full disk can only happen in the first step, while the former checkpoint is untouched.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mainspring.checkpoints.config import CONFIG, GENERATION_CONFIG
from mainspring.checkpoints.sentence import MODULES
from mainspring.checkpoints.tokenizer import FILES as TOKENIZER_FILES
from mainspring.checkpoints.tokenizer import SIDES
from mainspring.checkpoints.vocabulary_files import VOCABULARIES
from mainspring.errors import BadWeights
from mainspring.locks import alone
from mainspring.weights.files import hint

DRAFT, READY, MANIFEST = ".draft", ".ready", ".manifest.json"
# Small files of a checkpoint that are not read here but belong to it.
CARRIED = (
    "mainspring.json",
    "preprocessor_config.json",
    "processor_config.json",
    "normalizer.json",
)
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    f"model-{'[0-9]' * 5}-of-{'[0-9]' * 5}.safetensors",
)
KNOWN = (
    *(CONFIG, GENERATION_CONFIG, MODULES, *TOKENIZER_FILES, *VOCABULARIES, *SIDES),
    *(*CARRIED, *ADAPTER),
)


@contextmanager
def saving(folder: Path) -> Iterator[Path]:
    """Gives a draft folder; what is written there replaces the checkpoint in `folder` when the
    block ends well. Files in `folder` that are no part of a checkpoint stay."""
    draft, existed = folder / DRAFT, folder.is_dir()
    try:
        settle(folder, wait=True)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        files = (file for file in draft.rglob("*") if file.is_file())
        names = sorted(file.relative_to(draft).as_posix() for file in files)
        (draft / MANIFEST).write_text(json.dumps(names), encoding="utf-8")
        draft.rename(folder / READY)
        settle(folder, wait=True)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not existed:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise BadWeights(
                f"{folder}: could not be written ({error}){hint(error) or '.'} What was there "
                "before is unchanged"
            ) from error
        raise


def settle(folder: Path, *, wait: bool = False) -> None:
    """Finishes a save that was stopped after its files were complete.

    Where another process is at it now, there is nothing to do but to `wait` for it, which a save
    does and a load does not.
    """
    ready = folder / READY
    if not ready.is_dir():
        return
    with alone(folder, wait) as ours:
        if ours and ready.is_dir():
            _move_in(ready, folder)


def _move_in(ready: Path, folder: Path) -> None:
    if not (ready / MANIFEST).exists():  # stopped in the last line of this
        shutil.rmtree(ready)
        return
    names = json.loads((ready / MANIFEST).read_text(encoding="utf-8"))
    for name in names:
        if (ready / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (ready / name).replace(folder / name)
    weights = (file for pattern in WEIGHTS for file in folder.glob(pattern))
    former = [*weights, *(folder / name for name in KNOWN)]
    for file in former:
        if file.name not in names:
            file.unlink(missing_ok=True)
    shutil.rmtree(ready)
