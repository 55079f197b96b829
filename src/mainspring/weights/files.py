"""safetensors files: single, or sharded with an index; read lazily, written atomically."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mainspring.errors import BadWeights, Missing, Refused

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
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


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of some safetensors files, each read when it is asked for.

    Use as a context manager. BadWeights where a file is truncated, corrupt or repeats a name.
    """

    def __init__(self, files: list[Path]):
        self.files = files
        self._stack = ExitStack()
        self._place: dict[str, tuple[Path, safe_open]] = {}

    def __enter__(self) -> "TensorFiles":
        for file in self.files:
            try:
                handle = self._stack.enter_context(safe_open(file, framework="pt"))
                names = list(handle.keys())
            except (SafetensorError, OSError) as error:
                self._stack.close()
                raise BadWeights(
                    f"{file}: not a whole safetensors file ({error}); copy or download it again"
                ) from None
            for name in names:
                if name in self._place:
                    raise BadWeights(
                        f"{file}: tensor `{name}` is also in {self._place[name][0].name}"
                    )
                self._place[name] = (file, handle)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Tensor:
        file, handle = self._place[name]
        try:
            return handle.get_tensor(name)
        except SafetensorError as error:
            raise BadWeights(f"{file}: tensor `{name}` cannot be read ({error})") from None

    def __contains__(self, name: object) -> bool:
        return name in self._place

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)


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
        raise BadWeights(f"{file}: could not be written ({error}); is the disk full?") from error
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
        raise BadWeights(f"{file}: could not be written ({error}); is the disk full?") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(text: str, file: Path) -> None:
    """Writes a text file whole or not at all."""
    write_bytes(text.encode("utf-8"), file)
