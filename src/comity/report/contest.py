"""Write the report of a comparison of several models from its folder alone: page, tables and figures.

DIR/
  report.html          one self-contained page
  tables/NAME.md, NAME.tex, and all.md, all.tex with every table
  figures/NAME.svg, NAME.png
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from comity.report.contest_figures import draw_concession, draw_players, draw_win_matrix
from comity.report.contest_tables import TASKS, PlainTable, tabulate_ability, tabulate_entry, write_tables
from comity.report.dialogues import Dialogue, Example, lay_out, read_dialogues
from comity.report.figures import embed_svg, save_figure
from comity.report.tables import tabulate_settings
from comity.report.templates import get_template
from comity.runs import read_json

EXAMPLES = 2
"""Scenarios of each task and decoding whose dialogues are shown."""


@dataclass(frozen=True, slots=True)
class Section:
    """One task and decoding on the page."""

    name: str
    title: str
    figures: Sequence[tuple[Markup, str]]
    tables: Sequence[PlainTable]
    examples: Sequence[Example]


def is_contest(folder: Path) -> bool:
    """Tell whether a folder holds a comparison of several models."""
    return (folder / "settings.json").exists() and (folder / "results.json").exists()


def write_contest_report(folder: Path) -> Path:
    """Write DIR/report.html, DIR/tables/ and DIR/figures/; return the page's path.

    Raise RunError when results.json is missing or damaged. No model is loaded.
    """
    results = read_json(folder / "results.json")
    settings = read_json(folder / "settings.json") if (folder / "settings.json").exists() else {}
    rows = read_dialogues(folder / "dialogues.jsonl")
    sections = [_build_section(folder, entry, rows) for entry in results["entries"]]
    capability = [tabulate_ability(results["ifeval"])] if "ifeval" in results else []
    write_tables(folder / "tables", [*(table for section in sections for table in section.tables), *capability])
    page = get_template("contest.html.j2").render(
        name=folder.resolve().name,
        models=results["models"],
        dialogues=len(rows),
        preference_judge=results["preference_judge"],
        sections=sections,
        capability=capability,
        settings=tabulate_settings(settings),
    )
    path = folder / "report.html"
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(page, encoding="utf-8")
    scratch.replace(path)
    return path


def choose_examples(rows: Sequence[Mapping[str, Any]], count: int = EXAMPLES) -> list[Example]:
    """Return the first runs of `count` scenarios, drawn by a hash of their ids, with all players side by side."""
    scenarios = sorted({row["scenario"] for row in rows}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    examples = []
    for scenario in scenarios[:count]:
        found = [row for row in rows if row["scenario"] == scenario and row["run"] == 0]
        dialogues = tuple(_lay_out(row) for row in found)
        if dialogues:
            rule = f"{scenario}, drawn by lot among {len(scenarios)}, first run"
            examples.append(Example("Drawn by lot", rule, dialogues))
    return examples


def _lay_out(row: Mapping[str, Any]) -> Dialogue:
    against = "" if row["model"] == row["opponent"] else f" against {row['opponent']}"
    return lay_out(row, f"{row['model']}{against}")


def _build_section(folder: Path, entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Section:
    name = f"{entry['task']}-{entry['decoding']}"
    title = f"{TASKS.get(entry['task'], entry['task'])}, {entry['decoding']} decoding"
    drawn: tuple[tuple[str, Figure | None, str], ...] = (
        ("players", draw_players(entry), "Means with 95 % intervals over scenarios."),
        ("wins", draw_win_matrix(entry), "Share of tasks won, ties half, with its 95 % interval; only pairs whose two "
         "orders agree."),
        ("concession", draw_concession(entry), "Share of the other side's own words in a message. A sign read from "
         "word lists: it rises when sides take up each other's matters, and also when they parrot."),
    )  # fmt: skip
    figures = []
    for kind, figure, caption in drawn:
        if figure is not None:
            save_figure(figure, f"{name}-{kind}", folder / "figures")
            figures.append((embed_svg(folder / "figures" / f"{name}-{kind}.svg", f"{title}: {kind}"), caption))
    group = [row for row in rows if (row["task"], row["decoding"]) == (entry["task"], entry["decoding"])]
    return Section(name, title, figures, tabulate_entry(entry), choose_examples(group))
