"""What a study sets out to reach (the paper's figures), what was measured, and whether that holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entries = Sequence[Mapping[str, Any]]
Names = tuple[str, str, str]
"""The models that targets speak of: the base, the single agent, the negotiating one."""


@dataclass(frozen=True, slots=True)
class Target:
    """One target: `value` with its interval is a share (or a difference of shares); None where it was not measured.

    `holds` says whether the value reaches the target, `surely` whether all of its interval does. `paper` is what
    the paper reports.
    """

    name: str
    wanted: str
    paper: str
    value: float | None
    low: float | None
    high: float | None
    holds: bool | None
    surely: bool | None
    note: str = ""


def check_targets(entries: Entries, ability: Mapping[str, Any] | None, names: Names) -> list[Target]:
    """Return every target with what the results of the arms say about it.

    `entries` are those of the pooled arms' `results.json`, `ability` is the comparison's `ifeval`. Sampled decoding
    counts where it was played. Sources: paper, section 4, its sampled figures; the CA targets are our own.
    """
    base, single, multi = names
    return [
        check_win_rate("Win rate over the base, conflict tasks", entries, "conflict", (multi, base), (0.63, "63.0 %")),
        check_win_rate(
            "Win rate over the single agent, conflict tasks", entries, "conflict", (multi, single), (0.728, "72.8 %")
        ),
        check_rounds(entries, base, multi),
        check_agreement(entries, base, multi),
        check_win_rate(
            "CA win rate over the single agent, conflict tasks answered alone",
            entries, "conflict_alone", (multi, single), (0.50, "51.4 %"),
        ),
        check_win_rate(
            "CA win rate over the single agent, open-ended questions",
            entries, "open_ended", (multi, single), (0.45, "40.4 %"),
        ),
        check_ability(ability, base, multi),
    ]  # fmt: skip


def check_win_rate(
    name: str, entries: Entries, task: str, players: tuple[str, str], wanted: tuple[float, str]
) -> Target:
    """Return whether the first of two players wins at least a share against the second; the paper's words beside it."""
    least, paper = wanted
    rate = find_win_rate(find_entry(entries, task), *players)
    value, low, high = rate or (None, None, None)
    note = _tell_distance(value, least)
    return Target(name, f"at least {100 * least:.1f} %", paper, value, low, high, *_reaches(value, low, least), note)


def check_rounds(entries: Entries, base: str, multi: str) -> Target:
    """Return whether agreed dialogues take a quarter fewer rounds; the value is the change as a share of the base's."""
    means = [find_measure(find_entry(entries, "conflict"), name, "rounds_to_agreement") for name in (base, multi)]
    before, after = (None if found is None else found["mean"] for found in means)
    name, wanted, paper = "Rounds to agreement against the base", "at most −25.0 %", "−21 to −25 %"
    if not before or after is None:
        return Target(name, wanted, paper, None, None, None, None, None)
    change = after / before - 1
    return Target(name, wanted, paper, change, None, None, change <= -0.25, None, f"{before:.2f} → {after:.2f} rounds")


def check_agreement(entries: Entries, base: str, multi: str) -> Target:
    """Return whether 97 % agree, or 6 points more than with the base; the value is the rate."""
    entry = find_entry(entries, "conflict")
    found, before = (find_measure(entry, name, "agreement_rate") for name in (multi, base))
    name, wanted = "Agreement rate, conflict tasks", "at least 97.0 %, or 6 points more than the base"
    paper = "91 → 97 %"
    if found is None or found["mean"] is None:
        return Target(name, wanted, paper, None, None, None, None, None)
    rate = found["mean"]
    gain = find_difference(entry, "agreement_rate", base, multi)
    note = "" if before is None or before["mean"] is None else f"base {100 * before['mean']:.1f} %"
    holds, surely = _reaches(rate, found["low"], 0.97)
    if gain is not None:
        more, clearly = _reaches(gain[0], gain[1], 0.06)
        holds, surely = bool(holds or more), None if surely is None and clearly is None else bool(surely or clearly)
        note += f", {100 * gain[0]:+.1f} points".replace("-", "−")
    # Whoever pleases the judge that trains need not agree: the other judge's word stands beside it.
    watched = [find_measure(entry, player, "heldout_agreement_rate") for player in (base, multi)]
    if all(estimate is not None and estimate["mean"] is not None for estimate in watched):
        told = " → ".join(f"{100 * estimate['mean']:.1f}" for estimate in watched if estimate is not None)
        note += f"; held-out judge {told} %"
    return Target(name, wanted, paper, rate, found["low"], found["high"], holds, surely, note)


def check_ability(ability: Mapping[str, Any] | None, base: str, multi: str) -> Target:
    """Return whether IFEval stays within a point of the base's; the value is the mean change of the arm's seeds."""
    models = [] if ability is None else ability["models"]
    changes = [
        model["change"] for model in models if model["model"] != base and model["model"].startswith(f"{multi}-seed-")
    ]
    known = [change for change in changes if change is not None and change["difference"] is not None]
    name, wanted = "IFEval (prompts, strict) against the base", "at least −1.0 points"
    paper = "about the base's"
    if not known:
        return Target(name, wanted, paper, None, None, None, None, None)
    value = sum(change["difference"] for change in known) / len(known)
    ends = [(change["low"], change["high"]) for change in known if change["low"] is not None]
    # The widest span over the seeds: no seed's interval is left out.
    low, high = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (None, None)
    return Target(name, wanted, paper, value, low, high, *_reaches(value, low, -0.01), f"{len(known)} seeds")


def find_entry(entries: Entries, task: str) -> Mapping[str, Any] | None:
    """Return the results of a task with sampled decoding, else with the decoding that was played, else None."""
    found = {entry["decoding"]: entry for entry in entries if entry["task"] == task}
    return found.get("sampled") or next(iter(found.values()), None)


def find_measure(entry: Mapping[str, Any] | None, model: str, measure: str) -> Mapping[str, Any] | None:
    """Return a measure of a model in self-play, None where there is none."""
    players = [] if entry is None else entry["players"]
    found = [player for player in players if player["model"] == player["opponent"] == model]
    return found[0]["measures"].get(measure) if found else None


def find_win_rate(
    entry: Mapping[str, Any] | None, model: str, opponent: str
) -> tuple[float, float | None, float | None] | None:
    """Return how often a model beat another, with the interval, whichever of them stands first in the results."""
    for rate in [] if entry is None else entry["win_rates"]:
        if rate["rate"] is not None and {rate["first"], rate["second"]} == {model, opponent}:
            value, low, high = rate["rate"], rate["low"], rate["high"]
            if rate["first"] == model:
                return value, low, high
            return 1 - value, None if high is None else 1 - high, None if low is None else 1 - low
    return None


def find_difference(
    entry: Mapping[str, Any] | None, measure: str, before: str, after: str
) -> tuple[float, float | None, float | None] | None:
    """Return the paired difference after - before with its interval, whichever stands first in the results."""
    for item in [] if entry is None else entry["comparisons"]:
        if item["measure"] == measure and {item["first"], item["second"]} == {before, after}:
            value, low, high = item["difference"], item["low"], item["high"]
            if value is None:
                return None
            if item["first"] == before:
                return value, low, high
            return -value, None if high is None else -high, None if low is None else -low
    return None


def _reaches(value: float | None, low: float | None, least: float) -> tuple[bool | None, bool | None]:
    # A hair of room: a rate of exactly the target must not fail by rounding.
    reached = None if value is None else value >= least - 1e-9
    return reached, None if value is None or low is None else low >= least - 1e-9


def _tell_distance(value: float | None, least: float) -> str:
    return "" if value is None else f"{100 * (value - least):+.1f} points from the target".replace("-", "−")
