"""Our own kernels (kernels.c), compiled once for the processor at hand: attention of a decode step, and norms.

What they compute torch can compute too, in many small operations; `open_kernels` returns None where they cannot be had.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from comity.engines.folders import cache_directory

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
COMPILE_SECONDS = 600
"""A compiler that takes longer is given up; on a busy machine two seconds can become many."""
ROOM = 32
"""Rooms for keys are multiples of this: so many are read at a time."""
WIDTH = 16
"""Head widths are multiples of this."""
DTYPES: dict[torch.dtype, tuple[str, ...]] = {torch.bfloat16: ("-DBFLOAT16",), torch.float32: ()}

Pair = tuple[Tensor, Tensor]


class Batch(ctypes.Structure):
    """`struct batch` of kernels.c; whoever makes one keeps the tensors that it points to."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("rows", "heads", "key_heads", "width", "beginnings", "shared_room", "room")
        ),
        *((name, ctypes.c_void_p) for name in ("owner", "shared", "own")),
        ("scale", ctypes.c_float),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("qkv", "cosine", "sine", "shared_keys", "shared_values", "keys", "values", "result")
    ]


@dataclass(frozen=True)
class Kernels:
    """The compiled library for one kind of numbers; no gradients."""

    library: ctypes.CDLL

    def norm_states(self, states_TD: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        """Return the root-mean-square norm of every row, as torch's `rms_norm` does."""
        states_TD = states_TD.contiguous()
        result_TD = torch.empty_like(states_TD)
        rows, width = states_TD.shape
        pointers = (ctypes.c_void_p(item.data_ptr()) for item in (states_TD, weight_D, result_TD))
        self.library.norm_rows(*pointers, ctypes.c_int64(rows), ctypes.c_int64(width), ctypes.c_float(epsilon))
        return result_TD

    def attend_rows(self, batch: Batch, qkv_BHd: Tensor, turn: Pair, shared: Pair, own: Pair) -> Tensor:
        """Write each row's new key and value into `own` and return what its queries find (B, H x d).

        Queries, keys and values (B, H + 2 K, d) are not turned yet; `turn` has cosines and signed sines (B, 1, d). Keys
        are (K, C, d, P) and (K, B, d, S), values (K, C, P, d) and (K, B, S, d), with P and S multiples of `ROOM`.
        """
        result_BD = qkv_BHd.new_empty(batch.rows, batch.heads * batch.width)
        tensors = (qkv_BHd, *turn, *shared, *own, result_BD)
        assert all(item.is_contiguous() for item in tensors)
        layer = _Layer(*(item.data_ptr() for item in tensors))
        self.library.attend_rows(ctypes.byref(batch), ctypes.byref(layer))
        return result_BD


@functools.cache
def open_kernels(dtype: torch.dtype) -> Kernels | None:
    """Return the kernels for bfloat16 or float32; None for other numbers, without a compiler, or when switched off.

    They are compiled in one or two seconds by `CC`, or by the first of cc, gcc and clang, and kept in the cache folder.
    A failure is logged once. `COMITY_KERNELS=off` does without them.
    """
    if dtype not in DTYPES or os.environ.get("COMITY_KERNELS") == "off":
        return None
    try:
        return Kernels(ctypes.CDLL(str(compile_kernels(dtype))))
    except (OSError, subprocess.SubprocessError) as error:
        printed = getattr(error, "stderr", None) or str(error)
        reason = printed.strip().splitlines()[0] if printed.strip() else type(error).__name__
        logging.getLogger(__name__).warning(
            "decoding takes longer, since comity's own kernels cannot be compiled (%s): install gcc, or accept that "
            "with COMITY_KERNELS=off",
            reason,
        )
        return None


def compile_kernels(dtype: torch.dtype) -> Path:
    """Return the library's file, compiled unless it is there already; raise OSError or SubprocessError."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise FileNotFoundError("no C compiler is on the path")
    flags = (*FLAGS, *DTYPES[dtype])
    # A cache folder can be shared by machines of different processors.
    words = (SOURCE.read_text(encoding="utf-8"), compiler, *flags, platform.machine(), _processor_features())
    name = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
    target = cache_directory() / "kernels" / f"{name}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compiling-") as scratch:
        made = Path(scratch) / target.name
        command = [compiler, *flags, str(SOURCE), "-o", str(made), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        made.replace(target)  # another process may have been first: both files are the same
    return target


def _processor_features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
