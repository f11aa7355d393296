"""Write the page of an audit: one self-contained file from DIR/audit.json alone."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from comity.report.audit_figures import draw_pair
from comity.report.audit_tables import Audit, describe_audit, tabulate_audit
from comity.report.figures import embed_svg, save_figure
from comity.report.templates import get_template
from comity.runs import read_json


@dataclass(frozen=True, slots=True)
class PairFigure:
    """The figure of two raters and the words below it."""

    svg: Markup
    caption: str


def write_audit_page(folder: Path) -> Path:
    """Write DIR/audit.html and DIR/figures/ from DIR/audit.json; return the page's path."""
    audit = read_json(folder / "audit.json")
    page = get_template("audit.html.j2").render(
        audit=audit,
        lead=describe_audit(audit),
        judged={"agency": "Collective Agency, 0 to 5", "agreement": "agreement, yes or no"}[audit["kind"]],
        tables=tabulate_audit(audit),
        figures=_draw_pairs(folder / "figures", audit),
    )
    path = folder / "audit.html"
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(page, encoding="utf-8")
    scratch.replace(path)
    return path


def _draw_pairs(folder: Path, audit: Audit) -> list[PairFigure]:
    raters = [row["rater"] for row in audit["raters"]]
    shown = []
    for number, (i, j) in enumerate(itertools.combinations(range(len(raters)), 2), 1):
        values = [(point["values"][i], point["values"][j]) for point in audit["points"]]
        points = [(x, y) for x, y in values if x is not None and y is not None]
        levels = [row for row in audit["levels"] if row["by"] == raters[i] and row["of"] == raters[j]]
        figure = draw_pair(audit["kind"], (raters[i], raters[j]), points, levels)
        if figure is None:
            continue
        name = f"pair-{number}"
        save_figure(figure, name, folder)
        svg = embed_svg(folder / f"{name}.svg", f"{raters[i]} against {raters[j]}")
        unscored = len(values) - len(points)
        caption = (
            f"{raters[i]} against {raters[j]}, {len(points)} rows scored by both, {unscored} unscored. On the line "
            f"both say the same. Right: the mean of {raters[j]} at each level of {raters[i]} with its 95 % interval."
        )
        shown.append(PairFigure(svg, caption))
    return shown
