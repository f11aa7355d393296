"""The peak of resident memory of this process from a moment on, and how busy others kept the machine meanwhile."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

CLEAR = Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Let the peak count from now on; return False where only the peak of the whole process can be had.

    Linux only: writing 5 to `clear_refs` sets VmHWM to the present resident size (man 5 proc).
    """
    try:
        CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def read_peak_gb() -> float:
    """Return the largest resident memory since the last reset, in GB (1e9 bytes)."""
    from comity.training.clock import peak_resident_gb

    return peak_resident_gb()


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds of the clock, of all processors' work, and of this process' work, up to a moment."""

    clock: float
    everybody: float
    own: float


def read_moment() -> Moment:
    """Return the present moment."""
    times, own = psutil.cpu_times(), os.times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)
    return Moment(time.perf_counter(), sum(times) - idle, own.user + own.system)


def share_elsewhere(begun: Moment, ended: Moment) -> float:
    """Return which share of the machine's processors worked for others between two moments, 0 to 1.

    A figure that was measured while others worked says little; what a host takes from a virtual machine counts too.
    """
    others = (ended.everybody - begun.everybody) - (ended.own - begun.own)
    whole = (ended.clock - begun.clock) * (os.cpu_count() or 1)
    return min(1.0, max(0.0, others / whole)) if whole > 0 else 0.0
