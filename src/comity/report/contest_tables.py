"""The tables of a comparison of several models in plain words, and the same as Markdown and LaTeX."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.report.tables import show

TASKS = {
    "conflict": "Conflict tasks", "conflict_alone": "Conflict tasks, each model alone",
    "open_ended": "Open-ended questions", "transfer": "Transfer cases",
}  # fmt: skip
LABELS: Mapping[str, tuple[str, str]] = {
    "agreement_rate": ("Agreement rate", "share"),
    "rounds_to_agreement": ("Rounds to agreement", "number"),
    "rounds_mean": ("Rounds played", "number"),
    "reward_mean": ("Reward (0–5, no agreement is 0)", "number"),
    "score_mean": ("Collective Agency of the answer (0–5)", "number"),
    "heldout_agreement_rate": ("Agreement rate, held-out judge", "share"),
    "heldout_score_mean": ("Collective Agency, held-out judge", "number"),
    "satisfaction_mean": ("Satisfaction, mean of both sides (0–5)", "number"),
    "satisfaction_least": ("Satisfaction of the side that got less (0–5)", "number"),
    "satisfaction_product": ("Product of both sides' satisfaction (0–1)", "number"),
    "capitulation_rate": ("Capitulation: one side got its way, the other nothing", "share"),
    "one_sided_rate": ("Agreed answers with own words of one side alone", "share"),
    "concrete_answer_rate": ("Answers that hold something concrete", "share"),
    "without_plan_rate": ("Agreed dialogues that end without anything concrete", "share"),
    "concession_mean": ("Share of the other side's own words taken up", "share"),
    "concession_gap": ("Difference between the sides in that share", "share"),
}
"""Label and kind of every measure, in the order of the tables."""

IFEVAL: Mapping[str, str] = {
    "prompt_strict": "prompts, strict", "prompt_loose": "prompts, loose",
    "instruction_strict": "instructions, strict", "instruction_loose": "instructions, loose",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlainTable:
    """A table in words: the first column holds row labels, the others figures; `note` explains what they mean."""

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tabulate_entry(entry: Mapping[str, Any]) -> list[PlainTable]:
    """Return the tables of one task and decoding: measures, differences, win rates, strengths; empty ones are left out.

    `entry` is one of `results.json` (see `evaluation/results.py`).
    """
    title = f"{TASKS.get(entry['task'], entry['task'])}, {entry['decoding']} decoding"
    name = f"{entry['task']}-{entry['decoding']}"
    tables = (
        _tabulate_measures(entry["players"], name, title),
        _tabulate_differences(entry["comparisons"], name, title),
        _tabulate_wins(entry["win_rates"], name, title),
        _tabulate_strengths(entry["strengths"], name, title),
    )
    return [table for table in tables if table.rows]


def tabulate_ability(ability: Mapping[str, Any]) -> PlainTable:
    """Return the table of general ability: IFEval for each model, and its change against the first one."""
    rows = []
    for model in ability["models"]:
        change = model["change"]
        cells = [_show_estimate(model["measures"][name], "share") for name in IFEVAL]
        if change is None:
            words = ("–", "–", "the reference")
        else:
            verdict = "dropped" if model["dropped"] else "no clear drop"
            interval = show_interval(change, "share", signed=True)
            words = (show_difference(change["difference"], "share"), interval, verdict)
        rows.append((model["model"], *cells, *words))
    note = (
        f"IFEval, {ability['prompts']} prompts, greedy answers. Prompts: all instructions of a prompt are followed. "
        "Change in the first column against the first model, paired by prompt; a drop is flagged when its whole "
        "interval lies below 0. u: unscored, the checker could not judge them."
    )
    headings = ("Model", *IFEVAL.values(), "change", "95 % interval", "verdict")
    return PlainTable("ifeval", "General ability: instructions followed", headings, tuple(rows), note)


def to_markdown(table: PlainTable) -> str:
    """Return a table as GitHub Markdown."""
    lines = [f"**{_plain(table.title)}**", "", _markdown_row(table.headings)]
    lines.append(_markdown_row(["---", *["---:"] * (len(table.headings) - 1)], raw=True))
    lines += [_markdown_row(row) for row in table.rows]
    return "\n".join([*lines, *(["", table.note] if table.note else [])]) + "\n"


def to_latex(table: PlainTable) -> str:
    """Return a table as LaTeX with the rules of booktabs; text is escaped."""
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_latex(table.title)}}}", rf"\label{{tab:{table.name}}}"]
    lines.append(rf"\begin{{tabular}}{{l{'r' * (len(table.headings) - 1)}}}")
    lines += [r"\toprule", _latex_row(table.headings), r"\midrule", *map(_latex_row, table.rows), r"\bottomrule"]
    lines.append(r"\end{tabular}")
    if table.note:
        lines.append(rf"\par\smallskip\footnotesize {_latex(table.note)}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def write_tables(folder: Path, tables: Sequence[PlainTable]) -> None:
    """Write each table as Markdown and LaTeX, and all of them into one file of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, write in (("md", to_markdown), ("tex", to_latex)):
        texts = [write(table) for table in tables]
        for table, text in zip(tables, texts, strict=True):
            (folder / f"{table.name}.{suffix}").write_text(text, encoding="utf-8")
        (folder / f"all.{suffix}").write_text("\n".join(texts), encoding="utf-8")


def name_players(model: str, opponent: str) -> str:
    """Return the players in words."""
    return model if model == opponent else f"{model} against {opponent}"


def _tabulate_measures(players: Sequence[Mapping[str, Any]], name: str, title: str) -> PlainTable:
    rows = []
    for measure, (label, kind) in LABELS.items():
        cells = [player["measures"].get(measure) for player in players]
        if any(cells):
            rows.append((label, *(_show_estimate(cell, kind) for cell in cells)))
    return PlainTable(
        f"{name}-measures",
        title,
        ("Measure", *(name_players(player["model"], player["opponent"]) for player in players)),
        tuple(rows),
        "Mean [95 % interval over scenarios]; ± is the standard deviation between runs; u: unscored, left out.",
    )


def _tabulate_differences(comparisons: Sequence[Mapping[str, Any]], name: str, title: str) -> PlainTable:
    rows = []
    for item in comparisons:
        label, kind = LABELS[item["measure"]]
        rows.append(
            (
                f"{label}: {item['first']} → {item['second']}",
                show(item["before"], kind),
                show(item["after"], kind),
                show_difference(item["difference"], kind),
                show_interval(item, kind, signed=True),
                "–" if item["effect"] is None else show(item["effect"], signed=True),
                show_p(item["p_adjusted"]),
                "–" if item["scenarios_needed"] is None else str(item["scenarios_needed"]),
                str(item["n"]),
                str(item["n_unscored"]),
            )
        )
    headings = (
        "Measure",
        "first",
        "second",
        "difference",
        "95 % interval",
        "effect",
        "p (Holm)",
        "needed",
        "n",
        "unscored",
    )
    note = (
        "Paired by scenario and run; the interval resamples scenarios. McNemar's test for rates, else the sign test, "
        "over scenarios. Effect: Cohen's h for rates, else d_z. Needed: scenarios to find this difference at power 0.8."
    )
    return PlainTable(f"{name}-differences", f"{title}: differences", headings, tuple(rows), note)


def _tabulate_wins(rates: Sequence[Mapping[str, Any]], name: str, title: str) -> PlainTable:
    rows = tuple(
        (
            f"{rate['first']} over {rate['second']}",
            show(rate["rate"], "share"),
            show_interval(rate, "share"),
            *(str(rate[key]) for key in ("wins", "losses", "ties", "inconsistent", "unscored")),
            show_p(rate["p_adjusted"]),
        )
        for rate in rates
    )
    headings = ("Pair", "win rate", "95 % interval", "won", "lost", "ties", "inconsistent", "unscored", "p (Holm)")
    note = "Both orders asked; a pair whose orders disagree is left out of the rate. Ties count half."
    return PlainTable(f"{name}-wins", f"{title}: win rates", headings, rows, note)


def _tabulate_strengths(strengths: Sequence[Mapping[str, Any]], name: str, title: str) -> PlainTable:
    rows = tuple((item["model"], show(item["share"], "share"), show_interval(item, "share")) for item in strengths)
    note = "Bradley-Terry: shares of the summed strengths. A model with twice the share wins two of three."
    return PlainTable(f"{name}-strengths", f"{title}: strengths", ("Model", "share", "95 % interval"), rows, note)


def show_p(value: float) -> str:
    """Return a p-value in words."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def show_interval(item: Mapping[str, Any], kind: str, signed: bool = False) -> str:
    """Return an interval in words, a dash for none; of signed shares in percentage points."""
    if item["low"] is None:
        return "–"
    text = f"{show(item['low'], kind, signed)} to {show(item['high'], kind, signed)}"
    if kind == "share":
        text = text.replace(" %", "", 1)
        return text.replace(" %", " pp") if signed else text
    return text


def show_difference(value: float | None, kind: str) -> str:
    """Return a difference in words; of shares in percentage points."""
    text = show(value, kind, signed=True)
    return text.replace(" %", " pp") if kind == "share" else text


def _show_estimate(estimate: Mapping[str, Any] | None, kind: str) -> str:
    if estimate is None:
        return "–"
    text = show(estimate["mean"], kind)
    if estimate["low"] is not None:
        text += f" [{show_interval(estimate, kind)}]"
    if estimate["run_deviation"] is not None:
        text += f" ± {show(estimate['run_deviation'], kind)}"
    return text + (f" ({estimate['n_unscored']} u)" if estimate["n_unscored"] else "")


def _markdown_row(cells: Sequence[str], raw: bool = False) -> str:
    return "| " + " | ".join(cells if raw else map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    # Names of models come from the user: nothing in them may end a cell or open a tag.
    return re.sub(r"([\\|`*_\[\]<>])", r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$", "→": r"$\to$", "±": r"$\pm$",
    "<": "$<$", ">": "$>$",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"
