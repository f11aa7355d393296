"""The seconds that each part of a step takes, and the memory at its peak."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil
import torch

STATUS = Path("/proc/self/status")
P = ParamSpec("P")
R = TypeVar("R")


class Clock:
    """Seconds spent in each part of a step."""

    def __init__(self) -> None:
        self.seconds = {"rollout": 0.0, "judge": 0.0, "update": 0.0}
        self.begun = time.perf_counter()
        self._figures: dict[str, float] = {}
        self._lock = threading.Lock()

    def measure(self, part: str) -> "_Span":
        """Return a context whose seconds count for the part."""
        return _Span(self, part)

    def wrap(self, part: str, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function so that its seconds count for the part."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.measure(part):
                return function(*args, **kwargs)

        return timed

    def note(self, figures: Mapping[str, float]) -> None:
        """Add what else is to be told of the step beside its time."""
        self._figures |= figures

    def add(self, other: "Clock") -> None:
        """Add the seconds of parts that another clock has measured, and what was noted there."""
        for part, seconds in other.seconds.items():
            self.add_seconds(part, seconds)
        self.note(other._figures)

    def add_seconds(self, part: str, seconds: float) -> None:
        """Add to a part; judges may be asked from several threads at once."""
        with self._lock:
            self.seconds[part] += seconds

    def metrics(self) -> dict[str, float]:
        """Return `time/PART_seconds`, the time since the clock was made, the peak of memory, and what was noted.

        Where a judge is asked while dialogues are being written, parts overlap.
        """
        parts = {f"time/{part}_seconds": seconds for part, seconds in self.seconds.items()}
        return {
            **self._figures,
            **parts,
            "time/step_seconds": time.perf_counter() - self.begun,
            "memory/peak_gb": peak_memory_gb(),
        }


class _Span:
    def __init__(self, clock: Clock, part: str) -> None:
        self.clock, self.part, self.begun = clock, part, 0.0

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.clock.add_seconds(self.part, time.perf_counter() - self.begun)


def peak_memory_gb() -> float:
    """Return the largest resident memory of this process so far, in GB (on CUDA: the device's largest allocation)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return peak_resident_gb()


def peak_resident_gb() -> float:
    """Return the largest resident memory of this process so far, or since it was last reset, in GB."""
    memory = psutil.Process().memory_info()
    return float(getattr(memory, "peak_wset", 0) or _peak_resident_bytes()) / 1e9


def _peak_resident_bytes() -> int:
    # A process that was started by a larger one inherits its ru_maxrss on Linux; VmHWM is its own.
    if STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))
        if found:
            return int(found.group(1)) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
