"""safetensors files: single, or sharded with an index; read lazily, written atomically."""

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mainspring.errors import BadWeights, Missing, Refused

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FULL = (errno.ENOSPC, errno.EDQUOT)
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as the writer of safetensors files says it
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, by the index where there is one."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            names = sorted(set(index["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise BadWeights(f"{folder / INDEX}: not a readable shard index ({error})") from None
        files = []
        for name in names:
            if Path(name).name != name:
                raise BadWeights(f"{folder / INDEX}: shard `{name}` lies outside the folder")
            files.append(folder / name)
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise Missing(
                f"{folder}: the index names {len(names)} shards, and {', '.join(absent)} "
                "are not there; copy or download them again"
            )
        return files
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    weights = [name for name in pickles if name.startswith("pytorch_model")] or pickles[:1]
    if weights:
        raise Refused(
            f"{folder}: the weights are in {weights[0]}, a pickle, which can run code when it is "
            "opened. Convert it once, where you trust it:\n"
            '  python -c "import torch; from safetensors.torch import save_file; w = {}; '
            f"[w.update(torch.load(f'{folder}/{{name}}', 'cpu', weights_only=True)) "
            f"for name in {weights}]; save_file({{k: v.clone().contiguous() "
            f"for k, v in w.items()}}, '{folder / SINGLE}', {{'format': 'pt'}})\""
        )
    raise Missing(f"{folder}: no {SINGLE} and no {INDEX}; a checkpoint folder has one of them")


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: in a file, from the byte `start` on, and how it is to be read."""

    path: Path
    file: BufferedReader
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of some safetensors files, each read when it is asked for, into memory of its
    own: pages of a mapped file would count as the process's memory beside the copies made of them.

    Use as a context manager. BadWeights where a file is truncated, corrupt or repeats a name.
    """

    def __init__(self, files: list[Path]):
        self.files = files
        self.stored: dict[str, Stored] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "TensorFiles":
        with self._stack:  # closes what is open already if one of the files is bad
            for path in self.files:
                # Held open: by its name another file may come to lie here while this one is read.
                file = self._stack.enter_context(_opened(path))
                for name, stored in _contents(path, file).items():
                    if name in self.stored:
                        other = self.stored[name].path.name
                        raise BadWeights(f"{path}: tensor `{name}` is also in {other}")
                    self.stored[name] = stored
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Tensor:
        stored = self.stored[name]
        room = torch.empty(prod(stored.shape) * stored.dtype.itemsize, dtype=torch.uint8)
        try:
            stored.file.seek(stored.start)
            count = stored.file.readinto(room.numpy().data)
        except OSError as error:
            raise BadWeights(f"{stored.path}: `{name}` cannot be read ({error})") from None
        if count != len(room):
            raise BadWeights(f"{stored.path}: ends within `{name}`; copy or download it again")
        return room.view(stored.dtype).view(stored.shape)

    def __contains__(self, name: object) -> bool:
        return name in self.stored

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


# The names of https://github.com/huggingface/safetensors#format, and what torch has for them.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _opened(path: Path) -> BufferedReader:
    """The file, after the library has said that it is whole."""
    try:
        with safe_open(path, framework="pt"):
            return path.open("rb")
    except (SafetensorError, OSError) as error:
        raise BadWeights(
            f"{path}: not a whole safetensors file ({error}); copy or download it again"
        ) from None


def _contents(path: Path, file: BufferedReader) -> dict[str, Stored]:
    """What a safetensors file holds: eight bytes of the header's length, the header as JSON with
    offsets from its end, the tensors."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    strange = sorted({entry["dtype"] for entry in header.values()} - DTYPES.keys())
    if strange:
        raise BadWeights(f"{path}: numbers of type {', '.join(strange)} are not read")
    return {
        name: Stored(
            path,
            file,
            8 + length + entry["data_offsets"][0],
            DTYPES[entry["dtype"]],
            tuple(entry["shape"]),
        )
        for name, entry in header.items()
    }


def hint(error: Exception) -> str:
    """What to add where a file could not be written for want of room, else nothing."""
    number = error.errno if isinstance(error, OSError) else None
    if found := OS_ERROR.search(str(error)):
        number = int(found[1])
    return "; is the disk full?" if number in FULL else ""


def write_tensors(
    tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file whole or not at all: a temporary file beside it, then a rename.

    The `metadata` default ({"format": "pt"}) is what `transformers` wants to see.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors would keep others from reading the file
        save_file(contiguous, temporary, metadata=dict(metadata or {"format": "pt"}))
        temporary.chmod(mode)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    except (SafetensorError, OSError) as error:
        raise BadWeights(f"{file}: could not be written ({error}){hint(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_sharded(tensors: Mapping[str, Tensor], folder: Path, shard_bytes: int) -> None:
    """Writes one file, or where that would exceed `shard_bytes` several with an index."""
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
    if len(shards) == 1:
        write_tensors(tensors, folder / SINGLE)
        return
    places: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05}-of-{len(shards):05}.safetensors"
        write_tensors(shard, folder / file)
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    write_text(json.dumps(index, indent=2) + "\n", folder / INDEX)


def write_bytes(data: bytes, file: Path) -> None:
    """Writes a file whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError as error:
        raise BadWeights(f"{file}: could not be written ({error}){hint(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(text: str, file: Path) -> None:
    """Writes a text file whole or not at all."""
    write_bytes(text.encode("utf-8"), file)
