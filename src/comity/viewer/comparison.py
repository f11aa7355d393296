"""Several runs side by side: curves over each other, settings that differ, results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.report.charts import CHARTS
from comity.report.tables import tabulate_settings
from comity.viewer.metrics import MetricsTable
from comity.viewer.plots import Curve, Look, Plot, draw_curves

MISSING = "–"


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that differs among runs, with each run's value in their order."""

    name: str
    values: tuple[str, ...]


def find_differences(configs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Return settings, commit and versions that differ among the runs; a setting that one lacks is shown as a dash."""
    tables = [dict(tabulate_settings(_flat(config))) for config in configs]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [Difference(name, tuple(table.get(name, MISSING) for table in tables)) for name in names]
    return [row for row in rows if len(set(row.values)) > 1 and row.name not in ("run", "resume")]


def draw_together(runs: Sequence[tuple[str, MetricsTable]]) -> list[Plot]:
    """Return one chart for each measure that at least one run has, with a line for each run."""
    plots = []
    for chart in CHARTS:
        for series in chart.series:
            curves = [
                Curve(name, *table.series(series.key), f"c{place}")
                for place, (name, table) in enumerate(runs)
                if table.series(series.key)[0]
            ]
            if curves:
                title = chart.title if len(chart.series) == 1 else f"{chart.title}: {series.label}"
                look = Look(chart.limits, chart.percent, dots=False)
                plots.append(draw_curves(series.key, chart.section, title, series.key, curves, look))
    return plots


def tabulate_results(results: Sequence[Mapping[str, Any] | None]) -> list[Difference]:
    """Return each measure of the evaluations as before → after (difference), one value a run."""
    tables = [{change.label: change for change in (result or {}).get("changes", ())} for result in results]
    names = dict.fromkeys(name for table in tables for name in table)
    return [
        Difference(
            name,
            tuple(
                f"{table[name].before} → {table[name].after} ({table[name].difference})" if name in table else MISSING
                for table in tables
            ),
        )
        for name in names
    ]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    # Settings lose their heading, so that a row reads as on the command line.
    rest = {key: value for key, value in config.items() if key != "settings"}
    settings: Mapping[str, Any] = config.get("settings", {})
    return {**settings, **rest}
