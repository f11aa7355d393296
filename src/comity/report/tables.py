"""Turn results into table rows of plain words, ready to be shown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, float | int | None]
"""One measure of `evaluation.statistics.compare`."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the before/after table in words; `verdict` is `better`, `worse` or `unclear`."""

    label: str
    before: str
    after: str
    difference: str
    interval: str
    verdict: str
    n: int
    n_unscored: int


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign of gaming before and after, in words."""

    label: str
    before: str
    after: str


MEASURES: tuple[tuple[str, str, str, int], ...] = (
    ("agreement_rate", "Agreement rate", "share", 1),
    ("reward_mean", "Mean reward (0–5)", "number", 1),
    ("rounds_mean", "Rounds played", "number", -1),
    ("score_mean", "Score of the joint answer (0–5)", "number", 1),
    ("heldout_agreement_rate", "Agreement rate, held-out judge", "share", 1),
    ("heldout_score_mean", "Score of the joint answer, held-out judge", "number", 1),
)
"""Measure, label, kind and whether more (1) or less (-1) is better."""

SIGNS: tuple[tuple[str, str, str], ...] = (
    ("repetition", "Repeated 4-word sequences in a dialogue", "share"),
    ("parroting", "4-word sequences copied from the other side's last message", "share"),
    ("words", "Words a message", "number"),
    ("distinct_2", "Distinct word pairs over all dialogues", "share"),
    ("without_plan", "Agreed dialogues that end without anything concrete", "share"),
    ("cut_off", "Messages cut off at the token limit", "share"),
)


def tabulate_changes(comparison: Mapping[str, Result]) -> list[Change]:
    """Return the before/after table; a measure without any scored pair shows dashes."""
    return [
        _change(comparison[name], label, kind, better) for name, label, kind, better in MEASURES if name in comparison
    ]


def tabulate_signs(before: Mapping[str, float], after: Mapping[str, float]) -> list[Sign]:
    """Return the signs of gaming that either side has."""
    return [
        Sign(label, show(before.get(name), kind), show(after.get(name), kind))
        for name, label, kind in SIGNS
        if name in before or name in after
    ]


def tabulate_settings(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as rows of dotted name and value; lists of plain values stay on one row."""
    return list(_flatten(settings, prefix))


def word_parting(steps: Sequence[float], parted: Sequence[float]) -> str:
    """Return whether and since when the judges of a run part (`judges/parted` over steps), "" before that is known."""
    if not steps:
        return ""
    together = max((place for place, value in enumerate(parted) if not value), default=-1)
    if together + 1 < len(steps):
        return f"part since step {steps[together + 1]:.0f}"
    when = [step for step, value in zip(steps, parted, strict=True) if value]
    return f"parted in step {when[0]:.0f}, not at the end" if when else "do not part"


def show(value: float | int | None, kind: str = "number", signed: bool = False) -> str:
    """Return a number in words: shares as percentages, other numbers with two decimals, a dash for none."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    text = f"{100 * value:{sign}.1f} %" if kind == "share" else f"{value:{sign}.2f}"
    return text.replace("-", "−")


def _change(result: Result, label: str, kind: str, better: int) -> Change:
    low, high = result["low"], result["high"]
    verdict = "unclear"
    if low is not None and high is not None and (low > 0 or high < 0):
        verdict = "better" if (low > 0) == (better > 0) else "worse"
    interval = "–" if low is None else f"{show(low, kind, True)} to {show(high, kind, True)}"
    difference = show(result["difference"], kind, True)
    if kind == "share":
        # A difference of shares is in points: "+10 %" would read as a tenth more.
        difference, interval = difference.replace(" %", " pp"), interval.replace(" %", "", 1).replace(" %", " pp")
    return Change(
        label=label,
        before=show(result["before"], kind),
        after=show(result["after"], kind),
        difference=difference,
        interval=interval,
        verdict=verdict,
        n=int(result["n"] or 0),
        n_unscored=int(result["n_unscored"] or 0),
    )


def _flatten(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list) for item in value):
        for index, item in enumerate(value):
            yield from _flatten(item, f"{name}.{index}")
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value)) or "none"
    elif isinstance(value, float):
        yield name, f"{value:.6g}"
    else:
        yield name, "–" if value is None else str(value)
