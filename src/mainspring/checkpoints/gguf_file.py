"""GGUF files: named values, then tensors in blocks of small numbers (GGUF specification, v3).

    magic, version, number of tensors, number of values
    values     name, type, value
    tensors    name, shape (last axis first), type, offset
    padding, then the tensors' bytes

The header is read here (the `gguf` library takes seconds for the vocabulary of a small model), and
so are the plain types and those of 32 values a block. All others are left to the library.
"""

import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mainspring.errors import BadWeights, Missing, Refused
from mainspring.extras import GGUF

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# The scalar types of values, by their number; 8 is a text, 9 an array.
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
FLOAT32, TEXT, ARRAY = 6, 8, 9
LENGTH = struct.Struct("<Q")  # of a text
# Types of tensors that are kept as they are, by their number.
PLAIN = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}


def _scale(blocks: Tensor, at: int) -> Tensor:
    """The half-precision number at byte `at` of each block, as float32 (blocks, 1)."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _low_and_high(blocks: Tensor, at: int) -> Tensor:
    """The 4-bit numbers of 16 bytes: all low halves, then all high ones (blocks, 32)."""
    return torch.cat((blocks[:, at : at + 16] & 15, blocks[:, at : at + 16] >> 4), 1)


def _fifth_bits(blocks: Tensor, at: int) -> Tensor:
    """32 bits, each worth 16 (blocks, 32)."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return ((blocks[:, at : at + 4, None] >> shifts) & 1).flatten(1) << 4


def _q4_0(blocks: Tensor) -> Tensor:
    return (_low_and_high(blocks, 2).float() - 8) * _scale(blocks, 0)


def _q4_1(blocks: Tensor) -> Tensor:
    return _low_and_high(blocks, 4).float() * _scale(blocks, 0) + _scale(blocks, 2)


def _q5_0(blocks: Tensor) -> Tensor:
    numbers = _low_and_high(blocks, 6) | _fifth_bits(blocks, 2)
    return (numbers.float() - 16) * _scale(blocks, 0)


def _q5_1(blocks: Tensor) -> Tensor:
    numbers = _low_and_high(blocks, 8) | _fifth_bits(blocks, 4)
    return numbers.float() * _scale(blocks, 0) + _scale(blocks, 2)


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).float() * _scale(blocks, 0)


BLOCK = 32
# Types of 32 values a block: their number -> bytes a block, and how they become float32.
QUANTISED: dict[int, tuple[int, Callable[[Tensor], Tensor]]] = {
    2: (18, _q4_0),
    3: (20, _q4_1),
    6: (22, _q5_0),
    7: (24, _q5_1),
    8: (34, _q8_0),
}
AT_ONCE = 1 << 12  # blocks; what is worked on stays in the processor's cache


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: its type's number, its shape, its first byte and how many there are."""

    kind: int
    shape: tuple[int, ...]
    start: int
    size: int


class GGUFFile(Mapping[str, Tensor]):
    """The values (`metadata`) and tensors of a GGUF file, each tensor read when it is asked for.

    Plain tensors (float32, float16, bfloat16) come as they are stored, quantised ones as float32.
    BadWeights where the file is cut off or is no GGUF file; Missing where the `gguf` library is
    wanted for a type and is not installed.
    """

    def __init__(self, file: Path):
        self.file = file
        with file.open("rb") as opened:
            if opened.read(4) != MAGIC:
                raise BadWeights(f"{file}: not a GGUF file (it does not begin with `GGUF`)")
            # Copy-on-write: torch does not like memory that cannot be written.
            self._bytes = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        self._at = 4
        version = self._number("I")
        if version & 0xFFFF == 0:
            raise Refused(f"{file}: written for machines of the other byte order; convert it again")
        if version not in VERSIONS:
            raise Refused(f"{file}: GGUF version {version}; versions 2 and 3 are read")
        tensors, values = self._number("Q"), self._number("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(values):
            name = self._text()
            self.metadata[name] = self._value(self._number("I"))
        self.stored = self._directory(tensors)

    # -- the header ----------------------------------------------------------------------------

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._bytes):
            raise self._cut_off()
        data = self._bytes[self._at : end]
        self._at = end
        return data

    def _cut_off(self) -> BadWeights:
        return BadWeights(
            f"{self.file}: ends within its header, after {len(self._bytes):,} bytes; it is cut off "
            "or damaged: copy or download it again"
        )

    def _number(self, code: str) -> Any:
        [number] = struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))
        return number

    def _text(self) -> str:
        return self._texts(1)[0]

    def _texts(self, count: int) -> list[str]:
        """Texts one after the other. A vocabulary and its merges are a hundred thousand of them."""
        data, at, end, texts = self._bytes, self._at, len(self._bytes), []
        for _ in range(count):
            if at + LENGTH.size > end:
                raise self._cut_off()
            [size] = LENGTH.unpack_from(data, at)
            at += LENGTH.size
            if at + size > end:
                raise self._cut_off()
            texts.append(data[at : at + size].decode("utf-8", errors="replace"))
            at += size
        self._at = at
        return texts

    def _value(self, kind: int) -> Any:
        if kind == TEXT:
            return self._text()
        if kind == ARRAY:
            return self._array()
        if kind not in SCALARS:
            raise BadWeights(f"{self.file}: a value of type {kind}, which GGUF does not have")
        number = self._number(SCALARS[kind])
        # The shortest decimal number that means the same float32: 1e-05, not 9.999999747378752e-06.
        return _shortest(number) if kind == FLOAT32 else number

    def _array(self) -> list[Any]:
        kind, count = self._number("I"), self._number("Q")
        if kind in SCALARS:
            code = f"<{count}{SCALARS[kind]}"
            if count > len(self._bytes):
                raise self._cut_off()
            return list(struct.unpack(code, self._take(struct.calcsize(code))))
        return self._texts(count) if kind == TEXT else [self._value(kind) for _ in range(count)]

    def _directory(self, count: int) -> dict[str, Stored]:
        """Where each tensor lies. BadWeights where one would lie past the end of the file."""
        described = []
        for _ in range(count):
            name = self._text()
            axes = self._number("I")
            shape = tuple(self._number("Q") for _ in range(axes))[::-1]
            described.append((name, self._number("I"), shape, self._number("Q")))
        step = self.metadata.get("general.alignment", 32)
        if not isinstance(step, int) or step < 1:
            raise BadWeights(f"{self.file}: `general.alignment` is {step!r}")
        first = -(-self._at // step) * step
        stored: dict[str, Stored] = {}
        for name, kind, shape, offset in described:
            values, size = self._sizes(name, kind)
            if not shape or not math.prod(shape) or shape[-1] % values:
                raise BadWeights(f"{self.file}: tensor `{name}` cannot have the shape {shape}")
            entry = Stored(kind, shape, first + offset, math.prod(shape) // values * size)
            if entry.start + entry.size > len(self._bytes):
                raise BadWeights(
                    f"{self.file}: ends after {len(self._bytes):,} bytes, and tensor `{name}` "
                    f"would end at byte {entry.start + entry.size:,}; the file is cut off: copy or "
                    "download it again"
                )
            if name in stored:
                raise BadWeights(f"{self.file}: has two tensors `{name}`")
            stored[name] = entry
        return stored

    def _sizes(self, name: str, kind: int) -> tuple[int, int]:
        """How many values a block of this type has, and how many bytes."""
        if kind in PLAIN:
            return 1, PLAIN[kind].itemsize
        if kind in QUANTISED:
            return BLOCK, QUANTISED[kind][0]
        gguf = self._library()
        try:
            return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise BadWeights(f"{self.file}: tensor `{name}` has the unknown type {kind}") from None

    def _library(self) -> Any:
        try:
            import gguf
        except ImportError:
            raise Missing(
                f"{self.file}: its kind of quantisation is read by the `gguf` package; install it: "
                f"{GGUF.command}"
            ) from None
        return gguf

    # -- the tensors ---------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Tensor:
        entry = self.stored[name]
        raw = torch.frombuffer(self._bytes, dtype=torch.uint8, count=entry.size, offset=entry.start)
        if entry.kind in PLAIN:
            return raw.view(PLAIN[entry.kind]).view(entry.shape)
        if entry.kind in QUANTISED:
            size, dequantise = QUANTISED[entry.kind]
            blocks = raw.view(-1, size)
            values = torch.empty(len(blocks), BLOCK)
            for at in range(0, len(blocks), AT_ONCE):
                values[at : at + AT_ONCE] = dequantise(blocks[at : at + AT_ONCE])
            return values.view(entry.shape)
        gguf = self._library()
        try:
            numbers = gguf.dequantize(raw.numpy(), gguf.GGMLQuantizationType(entry.kind))
        except NotImplementedError as error:
            raise Refused(f"{self.file}: tensor `{name}`: {error}") from None
        return torch.from_numpy(numbers).view(entry.shape)

    def __contains__(self, name: object) -> bool:
        return name in self.stored

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def _shortest(number: float) -> float:
    import numpy

    return float(str(numpy.float32(number)))
