"""Pages of runs: the list, one run's curves and configuration, several runs compared."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from comity.errors import RunError
from comity.report.tables import tabulate_changes, tabulate_settings, tabulate_signs, word_parting
from comity.runs import read_json
from comity.viewer import comparison, pages
from comity.viewer.library import RunEntry, RunOverview, read_config
from comity.viewer.plots import Plot, draw_run, draw_spark
from comity.viewer.scales import show_number
from comity.viewer.state import require_run, viewer_of

router = APIRouter()

SECTIONS = (
    ("outcome", "Outcome", "Reward, agreement and rounds over the steps."),
    ("gaming", "Gaming the judge?", "None of these signs proves it; they say where to read."),
    ("spend", "Spend", "What external models cost."),
    ("optimization", "Optimisation", ""),
    ("other", "More metrics", ""),
    ("time", "Time", "Seconds a step."),
    ("memory", "Memory", ""),
)
MOST_COMPARED = 6


@router.get("/")
def show_runs(request: Request) -> Response:
    """Show every run with its state and a sparkline."""
    return pages.render(request, "runs.html.j2", _list_context(request))


@router.get("/list")
def show_run_list(request: Request) -> Response:
    """Return the rows of the list as they are now."""
    context = _list_context(request)
    version = "|".join(f"{run.version}{spark}{pages.show_age(run.updated)}" for run, spark in context["runs"])
    return pages.render_fragment(request, "run_list.html.j2", version, lambda: context)


@router.get("/runs/{run_id}")
def show_run(request: Request, run_id: str) -> Response:
    """Show one run: facts, result, curves."""
    entry = require_run(request, run_id)
    overview = viewer_of(request).library.describe(entry)
    return pages.render(
        request,
        "run.html.j2",
        {"run": entry, "tab": "overview", **curves_context(overview)},
    )


@router.get("/runs/{run_id}/curves")
def show_curves(request: Request, run_id: str) -> Response:
    """Return facts and curves of a run as they are now."""
    overview = viewer_of(request).library.describe(require_run(request, run_id))
    version = f"{overview.version}|{read_result(overview.entry)}"
    return pages.render_fragment(
        request, "curves.html.j2", version, lambda: {"run": overview.entry, **curves_context(overview)}
    )


@router.get("/runs/{run_id}/config")
def show_config(request: Request, run_id: str, against: str = "") -> Response:
    """Show a run's configuration, or its difference to another run's."""
    entry = require_run(request, run_id)
    others = [other for other in viewer_of(request).library.entries() if other.id != run_id]
    config = read_config(entry.path)
    context: dict[str, Any] = {
        "run": entry,
        "tab": "config",
        "others": others,
        "against": against,
        "settings": tabulate_settings(config.get("settings", {})),
        "origin": tabulate_settings({key: value for key, value in config.items() if key != "settings"}),
        "differences": None,
    }
    if against:
        other = require_run(request, against)
        context["differences"] = comparison.find_differences([config, read_config(other.path)])
    return pages.render(request, "config.html.j2", context)


@router.get("/compare")
def show_comparison(request: Request, run: Annotated[list[str], Query(default_factory=list)]) -> Response:
    """Show the curves, results and differing settings of several runs over each other."""
    library = viewer_of(request).library
    chosen = [require_run(request, run_id) for run_id in dict.fromkeys(run)][:MOST_COMPARED]
    overviews = [library.describe(entry) for entry in chosen]
    context = {
        "entries": library.entries(),
        "chosen": [entry.id for entry in chosen],
        "runs": [(overview, f"c{place}") for place, overview in enumerate(overviews)],
        "plots": comparison.draw_together([(item.entry.id, item.metrics) for item in overviews]),
        "differences": comparison.find_differences([read_config(entry.path) for entry in chosen]),
        "results": comparison.tabulate_results([read_result(entry) for entry in chosen]),
        "most": MOST_COMPARED,
    }
    return pages.render(request, "compare.html.j2", context)


def curves_context(overview: RunOverview) -> dict[str, Any]:
    """Return what the fragment of facts and curves shows."""
    plots = draw_run(overview.metrics)
    return {
        "overview": overview,
        "facts": list_facts(overview),
        "result": read_result(overview.entry),
        "sections": [(*section, in_section) for section in SECTIONS if (in_section := _of_section(plots, section[0]))],
    }


def list_facts(overview: RunOverview) -> list[tuple[str, str]]:
    """Return what one asks first of a run; unknown facts are left out."""
    table = overview.metrics
    steps = f"{overview.steps} of {overview.planned}" if overview.planned else str(overview.steps)
    facts = [("state", overview.state), ("steps", steps)]
    for name, key, percent in (
        ("reward", "reward/mean", False),
        ("agreement", "agreement/rate", True),
        ("held-out agreement", "agreement/heldout_rate", True),
        ("rounds to agreement", "agreement/rounds", False),
        ("unscored", "unscored/share", True),
        ("seconds a step", "time/step_seconds", False),
        ("memory, GB", "memory/peak_gb", False),
    ):
        value = table.latest(key)
        if value is not None:
            facts.append((name, show_number(value, percent)))
    if parting := word_parting(*table.series("judges/parted")):
        facts.append(("judges", parting))
    return facts


def read_result(entry: RunEntry) -> dict[str, Any] | None:
    """Return the tables of a run's evaluation, None when it has none; a damaged file is told in `note`."""
    for folder in (entry.path / "evaluation", entry.path):
        if not (folder / "results.json").exists():
            continue
        try:
            results = read_json(folder / "results.json")
            signs = results.get("signs", {})
            return {
                "changes": tabulate_changes(results.get("comparison", {})),
                "signs": tabulate_signs(signs.get("before", {}), signs.get("after", {})),
                "note": "",
            }
        except (RunError, AttributeError, KeyError, TypeError, ValueError) as error:
            return {"changes": [], "signs": [], "note": f"{folder / 'results.json'}: {error}"}
    return None


def _of_section(plots: list[Plot], name: str) -> list[Plot]:
    return [plot for plot in plots if plot.section == name]


def _list_context(request: Request) -> dict[str, Any]:
    library = viewer_of(request).library
    overviews = [library.describe(entry) for entry in library.entries()]
    newest = sorted(overviews, key=lambda item: -item.updated)
    return {"runs": [(item, draw_spark(item.metrics)) for item in newest], "root": library.root.name}
