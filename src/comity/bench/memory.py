"""The peak of resident memory of this process, from a moment on."""

import re
from pathlib import Path

STATUS = Path("/proc/self/status")
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
    if STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))
        if found:
            return int(found.group(1)) * 1024 / 1e9
    from comity.training.clock import peak_memory_gb

    return peak_memory_gb()
