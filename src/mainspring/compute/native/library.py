"""The compiled kernels: found or built, checked, and called.

The source is compiled at the first use (some seconds, once for each machine) into
`CACHE/native/NAME.so`, whose name holds a hash of the source and of the command. It has no OpenMP
of its own: it joins the threads of the OpenMP library that torch brought along.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mainspring.checkpoints.packaged import cache_folder
from mainspring.compute.hardware import detect

FOLDER = Path(__file__).parent
MAPS = Path("/proc/self/maps")
SOURCES = ("kernels.c", "step.c", "training.c")
HEADER = "common.h"
INSTRUCTIONS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "avx512bf16")
FLAGS = (
    *("-O3", "-std=c11", "-D_GNU_SOURCE", "-fopenmp", "-fPIC", "-mfma"),
    *(f"-m{name}" for name in (*INSTRUCTIONS, "amx-tile", "amx-bf16", "amx-int8")),
)
COMPILERS = ("gcc", "cc")  # both must be GCC: torch's OpenMP library is GCC's
SWITCH = "MAINSPRING_NATIVE"  # 0: never use the kernels
SECONDS = 120  # that a compiler is given

BFLOAT16, INT8 = 0, 1
TURNS = 2  # ways to turn queries and keys that a stack's layers may differ in
# "add": to what the result holds already; "where": what lies where another array is not 0.
AFTER = {"none": 0, "relu": 1, "add": 2, "where": 3}


class Linear(ctypes.Structure):
    """`Linear` of common.h. The tensors behind the pointers must outlive it."""

    _fields_ = (
        ("panels", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("kind", ctypes.c_int32),
        ("after", ctypes.c_int32),
        ("exact_rows", ctypes.c_int64),
        ("where", ctypes.c_void_p),
        ("drop", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("kept", ctypes.c_float),
    )


class Attention(ctypes.Structure):
    """`Attention` of common.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "queries", "keys", "width")),
        *((f"{t}_{by}", ctypes.c_int64) for t in "qkvy" for by in ("batch", "head", "place")),
        *((name, ctypes.c_int64) for name in ("bias_head", "bias_query", "keep_batch", "share")),
        *((name, ctypes.c_float) for name in ("scale", "cap", "kept")),
        *((name, ctypes.c_uint32) for name in ("drop", "seed")),
    )


class Norm(ctypes.Structure):
    """`Norm` of common.h. The tensors behind the pointers must outlive it."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
        *(("epsilon", ctypes.c_float), ("centred", ctypes.c_int32)),
    )


class Layer(ctypes.Structure):
    """`Layer` of step.c: the addresses of `Linear` records, and what else its parts need."""

    _fields_ = (
        *((name, Norm) for name in ("own", "cross", "feed")),
        *((name, Norm) for name in ("own_after", "cross_after", "feed_after", "query", "key")),
        *((n, ctypes.c_void_p) for n in ("qkv", "own_out", "q", "cross_out", "up", "down")),
        ("window", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("closes", "turn", "gate", "active")),
        *((n, ctypes.c_float) for n in ("own_scale", "own_cap", "cross_scale", "cross_cap")),
    )


class Step(ctypes.Structure):
    """`Step` of step.c."""

    _fields_ = (
        *((n, ctypes.c_int64) for n in ("rows", "layers", "width")),
        *((n, ctypes.c_int64) for n in ("heads", "key_heads", "head_width", "start")),
        *((name, ctypes.c_void_p * TURNS) for name in ("cosines", "sines")),
        *(("turn_row", ctypes.c_int64), ("bias", ctypes.c_void_p), ("bias_head", ctypes.c_int64)),
        *(("keep", ctypes.c_void_p), ("keep_row", ctypes.c_int64), ("cache", ctypes.c_void_p)),
        *((f"cache_{by}", ctypes.c_int64) for by in ("layer", "part", "row", "head", "place")),
        ("memory", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("sources", "memory_keys")),
        *(("memory_keep", ctypes.c_void_p), ("memory_keep_row", ctypes.c_int64)),
    )


@dataclass(frozen=True)
class Dropped:
    """Dropout of a share of `level` / 2^32, by random numbers that follow from `seed` (0..2^32) and
    the place."""

    level: int
    seed: int

    @classmethod
    def drawn(cls, share: float) -> "Dropped | None":
        """A share in 0..1, with a seed of torch's default generator; None for nothing."""
        if not share:
            return None
        seed = int(torch.empty((), dtype=torch.int64).random_(0, 2**32))
        return cls(min(round(share * 2**32), 2**32 - 1), seed)

    @property
    def kept(self) -> float:
        """What the numbers that stay are multiplied by."""
        return 1.0 / (1.0 - self.level / 2**32)


def settings(dropped: Dropped | None) -> tuple[int, int, float]:
    """Level, seed and factor as the kernels take them; a level of 0 is no dropout."""
    return (0, 0, 1.0) if dropped is None else (dropped.level, dropped.seed, dropped.kept)


@dataclass(frozen=True)
class Kernels:
    """The library, and what it was built by."""

    library: ctypes.CDLL
    compiler: str

    def pack(self, weight_OI: Tensor) -> Tensor:
        """The weight, bfloat16 or int8, in panels: bytes, aligned to 64."""
        weight_OI = weight_OI.contiguous()
        outputs, inputs = weight_OI.shape
        width = inputs * weight_OI.element_size()
        panels = room_for_panels(outputs, width)
        self.library.pack(weight_OI.data_ptr(), outputs, width, panels.data_ptr())
        return panels

    def linear(self, weights: int, x: Tensor, y: Tensor) -> None:
        """y = after(x weightᵀ + bias); `weights` is the address of a `Linear`, x and y are
        contiguous, bfloat16 or float32. MemoryError where there is no room for the rows."""
        wide_x, wide_y = x.dtype is torch.float32, y.dtype is torch.float32
        rows = x.numel() // x.shape[-1]
        if not self.library.linear(weights, x.data_ptr(), wide_x, rows, y.data_ptr(), wide_y):
            raise MemoryError(f"no memory for {rows} rows of {x.shape[-1]} activations")

    def norm_rows(
        self,
        described: Norm,
        x: Tensor,
        y: Tensor,
        added: Tensor | None = None,
        total: Tensor | None = None,
    ) -> None:
        """y = the norm of x, or of total = x + added where those are given; `total` is float32, the
        others may be bfloat16, all are contiguous."""
        width = x.shape[-1]
        self.library.norm(
            *(ctypes.byref(described), x.data_ptr(), x.dtype is torch.float32),
            *(address(added), added is not None and added.dtype is torch.float32, address(total)),
            *(x.numel() // width, width, y.data_ptr(), y.dtype is torch.float32),
        )

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x, float32 and contiguous, with y of the same shape added in place."""
        y = y.contiguous()
        self.library.add(x.data_ptr(), y.data_ptr(), y.dtype is torch.float32, x.numel())
        return x

    def attend(
        self,
        q_BHTE: Tensor,
        k_BKSE: Tensor,
        v_BKSE: Tensor,
        keep_BS: Tensor | None,
        bias_1HTS: Tensor | None,
        scale: float,
        cap: float = 0.0,
        *,
        causal: bool = False,
        by_tiles: bool = False,
        dropout: Dropped | None = None,
        logs_BHT: Tensor | None = None,
    ) -> Tensor:
        """softmax(scale q kᵀ + bias) v as BHTE (laid out as BTHE), all in bfloat16 and each
        number's neighbour beside it. A `cap` of 0 is none.

        `by_tiles` is for many queries: it knows `causal` (the last query sees all keys), biases
        for each query and in float32, and no cap; the other way has one bias for all queries. It
        alone knows training: `dropout`, and room for what `attend_back` needs (`logs_BHT`).
        """
        batch, heads, queries, width = q_BHTE.shape
        keys, keep_BS = k_BKSE.shape[2], in_rows(keep_BS)
        y_BHTE = q_BHTE.new_empty(batch, queries, heads, width).transpose(1, 2)
        described = attention(
            q_BHTE, k_BKSE, v_BKSE, y_BHTE, keep_BS, bias_1HTS, scale, cap, dropout
        )
        bias, keep = address(bias_1HTS), address(keep_BS)
        given = ctypes.addressof(described), q_BHTE.data_ptr(), k_BKSE.data_ptr(), v_BKSE.data_ptr()
        if by_tiles:
            wide = bias_1HTS is not None and bias_1HTS.dtype is torch.float32
            where = keep, causal, y_BHTE.data_ptr(), address(logs_BHT)
            done = self.library.attend_many(*given, bias, wide, *where)
        else:
            done = self.library.attend(*given, bias, keep, y_BHTE.data_ptr())
        if not done:
            raise MemoryError(f"no memory for the scores of {keys} keys")
        return y_BHTE

    def attend_back(
        self,
        forward: tuple[Tensor, Tensor, Tensor, Tensor],
        backward: tuple[Tensor, Tensor, Tensor, Tensor],
        logs_BHT: Tensor,
        keep_BS: Tensor | None,
        bias_HST: Tensor | None,
        dbias_HST: Tensor | None,
        scale: float,
        *,
        causal: bool,
        dropout: Dropped | None,
    ) -> None:
        """Fills dq, dk and dv; `forward` are q, k, v and y of `attend`, `backward` dq, dk, dv and
        dy. `dbias_HST`, zeros before, gets the gradient of the bias; both are float32."""
        keep_BS = in_rows(keep_BS)
        given = attention(*forward, keep_BS, None, scale, 0.0, dropout)
        gradients = attention(*backward, None, None, scale, 0.0, None)
        q, k, v, y = (x.data_ptr() for x in forward)
        dq, dk, dv, dy = (x.data_ptr() for x in backward)
        done = self.library.attend_back(
            *(ctypes.addressof(given), ctypes.addressof(gradients), q, k, v),
            *(address(bias_HST), address(keep_BS), causal, y, dy, logs_BHT.data_ptr()),
            *(dq, dk, dv, address(dbias_HST)),
        )
        if not done:
            raise MemoryError(f"no memory for the gradients of {forward[1].shape[2]} keys")

    def turn_and_keep(
        self,
        qkv_BNE: Tensor,
        heads: int,
        turn: tuple[Tensor, Tensor] | None,
        place_B2K1E: Tensor,
    ) -> None:
        """Turns queries and keys in place by the cosines and sines of `turn` (B1E or 11E, see
        `StepDecoder`), and copies keys and values to their place in a cache: all in bfloat16."""
        rows, every, width = qkv_BNE.shape
        cosines, sines = turn or (None, None)
        self.library.turn_and_keep(
            qkv_BNE.data_ptr(),
            *(rows, heads, (every - heads) // 2, width),
            None if cosines is None else cosines.data_ptr(),
            None if sines is None else sines.data_ptr(),
            0 if cosines is None or len(cosines) == 1 else width,
            *(place_B2K1E.data_ptr(), *place_B2K1E.stride()[:3]),
        )

    def gate(self, x: Tensor, activation: int, y: Tensor) -> None:
        """y = activation(gate) up, of gate and up side by side in x: bfloat16, contiguous."""
        width = y.shape[-1]
        self.library.gate(x.data_ptr(), y.numel() // width, width, activation, y.data_ptr())

    def activate(self, x: Tensor, activation: int) -> Tensor:
        """activation(x) in place: bfloat16, contiguous."""
        self.library.activate(x.data_ptr(), x.numel(), activation)
        return x

    # -- training --------------------------------------------------------------------------------

    def pack_both(
        self, weight_OI: Tensor, first_row: int, all_rows: int, forth: Tensor, back: Tensor | None
    ) -> None:
        """Lays float32 weights out in bfloat16 panels as the rows from `first_row` on (a multiple
        of 32) of a matrix of `all_rows`: in `forth` for x weightᵀ, in `back` for dy weight."""
        outputs, inputs = weight_OI.shape
        self.library.pack_both(
            weight_OI.contiguous().data_ptr(),
            *(outputs, inputs, first_row, all_rows, forth.data_ptr(), address(back)),
        )

    def weight_gradient(self, dy_NO: Tensor, x_NI: Tensor) -> Tensor:
        """dyᵀ x in float32, of contiguous bfloat16 rows; both widths are multiples of 16."""
        rows, out, width = len(dy_NO), dy_NO.shape[1], x_NI.shape[1]
        dw_OI = (torch.empty if rows else torch.zeros)(out, width)
        if not self.library.weight_gradient(
            dy_NO.data_ptr(), x_NI.data_ptr(), rows, out, width, dw_OI.data_ptr()
        ):
            raise MemoryError(f"no memory for the gradient of {out} x {width} weights")
        return dw_OI

    def norm_back(
        self,
        x: Tensor,
        dy: Tensor,
        weight_D: Tensor,
        epsilon: float,
        skip: Tensor | None,
        dweight_PD: Tensor | None,
    ) -> Tensor:
        """The gradient of float32 rows `x` through an RMS norm, `skip` added. The weight's is the
        sum of the rows of `dweight_PD`, zeros before, one for each thread; all contiguous."""
        width, dx = x.shape[-1], torch.empty_like(x)
        rows, parts = x.numel() // width, torch.get_num_threads()
        self.library.norm_back(
            *(x.data_ptr(), dy.data_ptr(), dy.dtype is torch.float32, weight_D.data_ptr(), epsilon),
            *(address(skip), rows, width, dx.data_ptr(), address(dweight_PD), parts),
        )
        return dx

    def add_dropped(self, x: Tensor, y: Tensor, dropped: Dropped | None) -> Tensor:
        """x + dropout(y), float32 and bfloat16, both contiguous."""
        total, by = torch.empty_like(x), settings(dropped)
        self.library.add_dropped(x.data_ptr(), y.data_ptr(), x.numel(), *by, total.data_ptr())
        return total

    def dropped(self, x: Tensor, dropped: Dropped | None, dtype: torch.dtype) -> Tensor:
        """dropout(x), or a gradient through it, in `dtype`; float32 or bfloat16, contiguous."""
        y, by = torch.empty_like(x, dtype=dtype), settings(dropped)
        wide_x, wide_y = x.dtype is torch.float32, dtype is torch.float32
        self.library.dropped(x.data_ptr(), wide_x, x.numel(), *by, y.data_ptr(), wide_y)
        return y

    def relu_drop(self, x: Tensor, dropped: Dropped | None) -> Tensor:
        """dropout(max(x, 0)) in place: bfloat16, contiguous."""
        self.library.relu_drop(x.data_ptr(), x.numel(), *settings(dropped))
        return x

    def relu_back(self, y: Tensor, dy: Tensor, dropped: Dropped | None) -> None:
        """The gradient of `relu_drop` from what it gave, in place: bfloat16, contiguous."""
        kept = 1.0 if dropped is None else dropped.kept
        self.library.relu_back(y.data_ptr(), y.numel(), kept, dy.data_ptr())

    def gate_back(self, x: Tensor, dy: Tensor, activation: int, y: Tensor | None) -> Tensor:
        """The gradient of `gate`'s x; `y` is filled with what `gate` gave."""
        width, dx = dy.shape[-1], torch.empty_like(x)
        self.library.gate_back(
            *(x.data_ptr(), dy.data_ptr(), dy.numel() // width, width, activation),
            *(dx.data_ptr(), address(y)),
        )
        return dx

    def token_nats(
        self, x_NV: Tensor, bias_V: Tensor | None, scale: float, labels_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(nats, logs) N, float32: the cross-entropy of each label (int64), and what
        `token_nats_back` needs. Logits are scale x + bias: x bfloat16, bias float32, all
        contiguous."""
        rows, width = x_NV.shape
        logs, nats = torch.empty(rows), torch.empty(rows)
        self.library.token_nats(
            *(x_NV.data_ptr(), address(bias_V), scale, labels_N.data_ptr()),
            *(rows, width, logs.data_ptr(), nats.data_ptr()),
        )
        return nats, logs

    def token_nats_back_(
        self,
        x_NV: Tensor,
        bias_V: Tensor | None,
        scale: float,
        labels_N: Tensor,
        logs_N: Tensor,
        dnats_N: Tensor,
    ) -> Tensor:
        """The gradient of x in its place, from that of the nats (float32)."""
        rows, width = x_NV.shape
        self.library.token_nats_back(
            *(x_NV.data_ptr(), address(bias_V), scale, labels_N.data_ptr(), logs_N.data_ptr()),
            *(dnats_N.data_ptr(), rows, width),
        )
        return x_NV

    def turn_heads(
        self, x_BTHE: Tensor, turn: tuple[Tensor, Tensor], out_BTHE: Tensor, *, back: bool
    ) -> None:
        """Fills `out` with x turned by half cosines and sines (TE or BTE, contiguous), or turned
        back: bfloat16, in any layout whose last axis is contiguous."""
        cosines, sines = turn
        batch, places, heads, width = x_BTHE.shape
        strides = ctypes.c_int64 * 3
        self.library.turn_heads(
            *(x_BTHE.data_ptr(), strides(*x_BTHE.stride()[:3]), batch, places, heads, width),
            *(cosines.data_ptr(), sines.data_ptr(), cosines.stride(0) if cosines.dim() == 3 else 0),
            *(back, out_BTHE.data_ptr(), strides(*out_BTHE.stride()[:3])),
        )

    def norm(self, tensors: Sequence[Tensor]) -> float:
        """The joint length of all numbers of the tensors: float32, contiguous."""
        return float(self.library.sum_of_squares(*_arrays(tensors))) ** 0.5

    def multiply(self, tensors: Sequence[Tensor], factor: float) -> None:
        """Multiplies all numbers of the tensors in place: float32, contiguous."""
        self.library.scale_all(*_arrays(tensors), factor)


def _arrays(tensors: Sequence[Tensor]) -> tuple[ctypes.Array[Any], ctypes.Array[Any], int]:
    """Addresses, lengths and their number."""
    count = len(tensors)
    addresses = (ctypes.c_void_p * count)(*(x.data_ptr() for x in tensors))
    return addresses, (ctypes.c_int64 * count)(*(x.numel() for x in tensors)), count


def in_rows(keep_BS: Tensor | None) -> Tensor | None:
    """The mask with neighbours a byte apart, as the kernels read it."""
    return keep_BS if keep_BS is None or keep_BS.stride(-1) == 1 else keep_BS.contiguous()


def address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def attention(
    q_BHTE: Tensor,
    k_BKSE: Tensor,
    v_BKSE: Tensor,
    y_BHTE: Tensor,
    keep_BS: Tensor | None,
    bias_1HTS: Tensor | None,
    scale: float,
    cap: float,
    dropout: Dropped | None,
) -> Attention:
    """The shapes and strides of an attention."""
    batch, heads, queries, width = q_BHTE.shape
    _, key_heads, keys, _ = k_BKSE.shape
    strides = (x.stride()[:3] for x in (q_BHTE, k_BKSE, v_BKSE, y_BHTE))
    level, seed, kept = settings(dropout)
    return Attention(
        *(batch, heads, queries, keys, width),
        *chain.from_iterable(strides),
        *((0, 0) if bias_1HTS is None else bias_1HTS.stride()[1:3]),
        *(0 if keep_BS is None else keep_BS.stride(0), heads // key_heads),
        *(scale, cap, kept, level, seed),
    )


def room_for_panels(outputs: int, width: int) -> Tensor:
    """Uninitialised memory for the panels of so many outputs of `width` bytes each."""
    return aligned_bytes(-(-outputs // 16) * -(-width // 64) * 1024)


def aligned_bytes(size: int) -> Tensor:
    """Uninitialised bytes that begin at a multiple of 64."""
    held = torch.empty(size + 63, dtype=torch.uint8)
    skip = -held.data_ptr() % 64
    return held[skip : skip + size]


@cache
def kernels() -> Kernels | None:
    """The kernels, where this machine can have them; the first call may compile them."""
    found = _open()
    return found if isinstance(found, Kernels) else None


def why_not() -> str | None:
    """What is missing for the kernels, for a person; None where they are in use."""
    found = _open()
    return found if isinstance(found, str) else None


@cache
def _open() -> Kernels | str:
    if os.environ.get(SWITCH) == "0":
        return f"switched off by {SWITCH}=0"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "they are for Linux on x86-64"
    if "AVX512_CORE_AMX" not in detect().instructions:
        return "this CPU has no AMX (or ONEDNN_MAX_CPU_ISA hides it)"
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return "no C compiler: install gcc"
    try:
        library = _load(_built(compiler))
    except subprocess.SubprocessError as error:
        return f"{compiler} failed: {_last_line(error)}"
    except OSError as error:
        return f"they could not be built or opened: {error}"
    built = Kernels(library, compiler)
    if not library.allow_tiles():
        return "the system does not let this process use AMX"
    return built if _is_right(built) else "they compute wrong numbers here"


def _last_line(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return str(said).strip().splitlines()[-1]


def _built(compiler: str) -> Path:
    """The compiled library, from the cache folder or made now."""
    # Its file stands for its version: to ask it would start a process at every start of ours.
    program = Path(compiler).resolve().stat()
    which = (compiler, str(program.st_size), str(program.st_mtime_ns))
    texts = [(FOLDER / name).read_text(encoding="utf-8") for name in (HEADER, *SOURCES)]
    what = "\0".join((*texts, *which, *FLAGS))
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    folder = _folder(cache_folder() / "native")
    built, proof = (folder / f"kernels-{name}.{end}" for end in ("so", "sha256"))
    if built.is_file() and proof.is_file() and proof.read_bytes() == _digest(built):
        return built
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        # In two steps: linked without -fopenmp, it does not bring a second OpenMP library along.
        made = str(Path(temporary) / "kernels.so")
        objects = [str(Path(temporary) / f"{name}.o") for name in SOURCES]
        for command in (
            *(
                [compiler, *FLAGS, "-c", str(FOLDER / name), "-o", part]
                for name, part in zip(SOURCES, objects, strict=True)
            ),
            [compiler, "-shared", *objects, "-o", made],
        ):
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
        shown = Path(temporary) / "proof"
        shown.write_bytes(_digest(Path(made)))
        Path(made).replace(built)  # at once: others may be building it too
        shown.replace(proof)
    return built


def _digest(file: Path) -> bytes:
    """By which a library that was cut short (by a full disk, say) is told: to open it would end the
    process."""
    return hashlib.sha256(file.read_bytes()).hexdigest().encode()


def _folder(cache: Path) -> Path:
    """Where the library is kept: the cache folder, or where that cannot be written one for this
    user alone among the temporary files. OSError where neither can be had."""
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache
    own = Path(tempfile.gettempdir()) / f"mainspring-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    found = own.lstat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700 or own.is_symlink():
        raise PermissionError(f"neither {cache} can be written nor is {own} this user's alone")
    return own


def _mapped() -> list[str]:
    """The paths of the files that this process has mapped, whatever their names hold."""
    lines = MAPS.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    return [parts[5] for line in lines if len(parts := line.split(maxsplit=5)) == 6]


def _load(built: Path) -> ctypes.CDLL:
    for name in ("libgomp", "libiomp5"):
        paths = [path for path in _mapped() if Path(path).name.startswith(name)]
        if paths:
            ctypes.CDLL(paths[0], mode=ctypes.RTLD_GLOBAL)
            break
    library = ctypes.CDLL(str(built))
    pointer, whole, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.allow_tiles.restype = flag
    library.pack.argtypes = (pointer, whole, whole, pointer)
    library.pack.restype = None
    library.linear.argtypes = (pointer, pointer, flag, whole, pointer, flag)
    library.linear.restype = flag
    library.turn_and_keep.argtypes = (
        *(pointer, whole, whole, whole, whole, pointer, pointer, whole),
        *(pointer, whole, whole, whole),
    )
    library.turn_and_keep.restype = None
    library.decode_step.argtypes = (pointer, pointer, pointer)
    library.decode_step.restype = flag
    library.gate.argtypes = (pointer, whole, whole, flag, pointer)
    library.gate.restype = None
    library.activate.argtypes = (pointer, whole, flag)
    library.activate.restype = None
    library.add.argtypes = (pointer, pointer, flag, whole)
    library.add.restype = None
    library.attend.argtypes = (pointer,) * 7
    library.attend.restype = flag
    library.attend_many.argtypes = (*(pointer,) * 5, flag, pointer, flag, pointer, pointer)
    library.attend_many.restype = flag
    library.attend_back.argtypes = (*(pointer,) * 7, flag, *(pointer,) * 7)
    library.attend_back.restype = flag
    library.norm.argtypes = (
        *(pointer, pointer, flag, pointer, flag, pointer),
        *(whole, whole, pointer, flag),
    )
    library.norm.restype = None
    library.weight_gradient.argtypes = (pointer, pointer, whole, whole, whole, pointer)
    library.weight_gradient.restype = flag
    library.pack_both.argtypes = (pointer, whole, whole, whole, whole, pointer, pointer)
    library.pack_both.restype = None
    number, small = ctypes.c_float, ctypes.c_uint32
    library.norm_back.argtypes = (
        *(pointer, pointer, flag, pointer, number, pointer, whole, whole),
        *(pointer, pointer, whole),
    )
    library.norm_back.restype = None
    library.add_dropped.argtypes = (pointer, pointer, whole, small, small, number, pointer)
    library.add_dropped.restype = None
    library.dropped.argtypes = (pointer, flag, whole, small, small, number, pointer, flag)
    library.dropped.restype = None
    library.relu_drop.argtypes = (pointer, whole, small, small, number)
    library.relu_drop.restype = None
    library.relu_back.argtypes = (pointer, whole, number, pointer)
    library.relu_back.restype = None
    library.gate_back.argtypes = (pointer, pointer, whole, whole, flag, pointer, pointer)
    library.gate_back.restype = None
    library.token_nats.argtypes = (
        *(pointer, pointer, number, pointer, whole, whole, pointer, pointer),
    )
    library.token_nats.restype = None
    library.token_nats_back.argtypes = (
        *(pointer, pointer, number, pointer, pointer, pointer, whole, whole),
    )
    library.token_nats_back.restype = None
    library.sum_of_squares.argtypes = (pointer, pointer, whole)
    library.sum_of_squares.restype = ctypes.c_double
    library.scale_all.argtypes = (pointer, pointer, whole, number)
    library.scale_all.restype = None
    library.turn_heads.argtypes = (
        *(pointer, pointer, whole, whole, whole, whole, pointer, pointer),
        *(whole, flag, pointer, pointer),
    )
    library.turn_heads.restype = None
    return library


def _is_right(built: Kernels) -> bool:
    """Whether one small product, by either way, is what torch says."""
    weight = torch.arange(20 * 72).reshape(20, 72).remainder(17).sub(8).bfloat16()
    panels = built.pack(weight)
    described = Linear(panels.data_ptr(), None, None, None, 20, 72, BFLOAT16, 0, 0)
    for rows in (1, 18):
        x = torch.arange(rows * 72).reshape(rows, 72).remainder(5).sub(2).bfloat16()
        y = torch.empty(rows, 20)
        built.linear(ctypes.addressof(described), x, y)
        if not torch.equal(y, x.float() @ weight.float().T):
            return False
    return True
