"""The tables that only a study has: targets, what ablations change, zero rewards, and its runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comity.report.contest_tables import LABELS, PlainTable, show_difference, show_interval, show_p
from comity.report.tables import show
from comity.report.zero_rewards import (
    HEADINGS,
    NOTE,
    PAPER,
    TITLE,
    read_steps,
    summarize_zero_rewards,
    tell_zero_rewards,
)

BASE = "base"


def tell_targets(targets: Sequence[Mapping[str, Any]]) -> str:
    """Return in one sentence how many targets hold."""
    held = sum(target["holds"] is True for target in targets)
    unknown = sum(target["holds"] is None for target in targets)
    failed = len(targets) - held - unknown
    missing = f", {unknown} {'was' if unknown == 1 else 'were'} not measured" if unknown else ""
    return f"{held} of {len(targets)} targets hold, {failed} {'does' if failed == 1 else 'do'} not{missing}."


def tabulate_targets(targets: Sequence[Mapping[str, Any]]) -> PlainTable:
    """Return every target beside what was measured and what the paper reports."""
    rows = [
        (
            target["name"],
            target["wanted"],
            "not measured" if target["value"] is None else show(target["value"], "share"),
            show_interval(target, "share"),
            tell_holds(target),
            target["paper"],
            target["note"],
        )
        for target in targets
    ]
    headings = ("Target", "wanted", "measured", "95 % interval", "holds", "the paper", "remark")
    note = (
        "A target holds when the measured value reaches it; “not surely” means that its interval reaches below. "
        "Intervals resample tasks, not training seeds. The paper's figures are from another, larger model and other "
        "judges."
    )
    return PlainTable("targets", "Targets", headings, tuple(rows), note)


def tell_holds(target: Mapping[str, Any]) -> str:
    """Return in words whether a target holds."""
    if target["holds"] is None:
        return "not measured"
    if not target["holds"]:
        return "no"
    if target["surely"] is None:
        return "yes, no interval"
    return "yes" if target["surely"] else "yes, not surely"


def tabulate_changes(entries: Sequence[Mapping[str, Any]], negotiating: str) -> PlainTable:
    """Return the paired difference of each ablation from the arm that it changes."""
    rows = [
        _tell_change(item, negotiating)
        for entry in entries
        for item in entry["comparisons"]
        if negotiating in (item["first"], item["second"]) and BASE not in (item["first"], item["second"])
    ]
    headings = ("Ablation", "measure", "change", "95 % interval", "p (Holm)")
    note = "Paired by task, run and seed; p-values are corrected over all comparisons of the task."
    return PlainTable("ablations", f"What each ablation changes against {negotiating}", headings, tuple(rows), note)


def _tell_change(item: Mapping[str, Any], negotiating: str) -> tuple[str, ...]:
    label, kind = LABELS[item["measure"]]
    name, difference, low, high = item["second"], item["difference"], item["low"], item["high"]
    if item["first"] != negotiating:
        # The comparison stands the other way round: its sign and the ends of its interval turn.
        name, difference = item["first"], None if difference is None else -difference
        low, high = None if high is None else -high, None if low is None else -low
    interval = show_interval({"low": low, "high": high}, kind, signed=True)
    return (name, label, show_difference(difference, kind), interval, show_p(item["p_adjusted"]))


def tabulate_zero_rewards(run: Path, runs: Sequence[Mapping[str, Any]]) -> PlainTable:
    """Return where the rewards of each arm's training rollouts come from, beside the paper's; `run` is the study."""
    rows: list[tuple[str, ...]] = [PAPER]
    for arm in dict.fromkeys(row["arm"] for row in runs):
        steps = [step for row in runs if row["arm"] == arm for step in read_steps(run / row["run"])]
        found = summarize_zero_rewards(steps)
        if found is not None:
            rows.append(tell_zero_rewards(arm, found))
    return PlainTable("zero-rewards", TITLE, HEADINGS, tuple(rows), NOTE)


def tabulate_runs(runs: Sequence[Mapping[str, Any]]) -> PlainTable:
    """Return what each training run took."""
    rows = tuple(
        (
            row["run"],
            str(row["steps"]),
            str(row["sampled_tokens"]),
            f"{row['seconds'] / 60:.1f}",
            f"{row['seconds'] / max(row['steps'], 1):.1f}",
            show(row["peak_gb"]),
            str(row["commit"] or "unknown")[:7],
            row["finished"],
        )
        for row in runs
    )
    headings = ("Run", "steps", "sampled tokens", "minutes", "seconds a step", "peak GB", "commit", "finished")
    note = "The peak is that of the process, which trains one run after the other."
    return PlainTable("runs", "Training runs", headings, rows, note)
