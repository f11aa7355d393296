"""From the raw repeats to ratios with their spread, and what was compared on which machine."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from comity import __version__
from comity.bench.limits import Rates, Size, limit_parts
from comity.bench.settings import BenchSettings, Measured
from comity.plan.architectures import find_architecture
from comity.plan.memory import DTYPE_BYTES

COUNTED: dict[Measured, str] = {
    "rollout": "sampled tokens",
    "update": "tokens of all samples, with their prompts",
    "step": "tokens that were sampled and trained on",
    "judge": "tokens of the judges' prompts",
}
"""What `tokens` counts."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """One turn of everybody: measured rates, what ours and the peer took, and the sizes of the rows."""

    rates: Rates
    ours: dict[str, Any]
    peer: dict[str, Any] | None
    sizes: tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All repeats; `about` has versions and threads of each contender's process, and whether ours has its kernels."""

    settings: BenchSettings
    repeats: tuple[Repeat, ...]
    about: dict[str, dict[str, Any]]


def took(contender: dict[str, Any]) -> float:
    """Return the seconds of all parts of one repeat of one contender."""
    return float(sum(contender["parts"].values()))


def summarize(comparison: Comparison) -> dict[str, Any]:
    """Return the object that `--json` prints.

    Ratios are taken repeat by repeat, since those who stand in one repeat worked under the same load; the median is
    given, with the least and the greatest beside it. `ratio_to_peer` is how many times ours is as fast as the peer,
    `ratio_to_limit` our time over the least possible.
    """
    settings, repeats = comparison.settings, comparison.repeats
    architecture = find_architecture(settings.model)
    limits = [
        limit_parts(architecture, item.rates, settings.measured, item.sizes, DTYPE_BYTES[settings.dtype])
        for item in repeats
    ]
    ours = [took(item.ours) for item in repeats]
    floors = [sum(parts.values()) for parts in limits]
    peers = [took(item.peer) for item in repeats if item.peer is not None]
    result: dict[str, Any] = {"measured": settings.measured, "against": settings.against}
    result |= _spread("ratio_to_peer", [peer / own for peer, own in zip(peers, ours, strict=True)] if peers else [])
    result |= _spread("ratio_to_limit", [own / floor for own, floor in zip(ours, floors, strict=True)])
    result |= {"tokens_counted": COUNTED[settings.measured], "tokens": repeats[0].ours["tokens"]}
    result |= _describe_contender([item.ours for item in repeats])
    result["peer"] = _describe_contender([item.peer for item in repeats if item.peer is not None]) if peers else None
    result["limit_seconds"] = statistics.median(floors)
    result["limit_parts"] = _median_parts(limits)
    result["repeats"] = [
        {"ours": item.ours, "peer": item.peer, "limit": parts, "rates": asdict(item.rates)}
        for item, parts in zip(repeats, limits, strict=True)
    ]
    prompts = [size.prompt for size in repeats[0].sizes]
    result["work"] = settings.to_plain() | {
        "rows": len(prompts), "prompt_tokens_mean": statistics.mean(prompts), "prompt_tokens_longest": max(prompts),
    }  # fmt: skip
    return result | {"processes": comparison.about, "machine": describe_machine(), "date": date.today().isoformat()}


def _spread(name: str, values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {name: None, f"{name}_range": None}
    return {name: statistics.median(values), f"{name}_range": [min(values), max(values)]}


def _describe_contender(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    seconds = [took(item) for item in repeats]
    middle = statistics.median(seconds)
    return {
        "seconds": middle,
        "seconds_range": [min(seconds), max(seconds)],
        "parts": _median_parts([item["parts"] for item in repeats]),
        "tokens_per_second": statistics.median([item["tokens"] for item in repeats]) / middle,
        "peak_rss_gb": max(item["peak_rss_gb"] for item in repeats),
        "busy_elsewhere": max(item["busy_elsewhere"] for item in repeats),
    }


def _median_parts(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median([item[name] for item in parts]) for name in parts[0]}


def describe_machine() -> dict[str, Any]:
    """Return the processor, its cores, the memory, the system and our version."""
    names = [
        line.partition(":")[2].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ())
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "system": platform.platform(),
        "python": platform.python_version(),
        "comity": __version__,
    }
