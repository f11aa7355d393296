"""Write the page of an audit: one self-contained file from DIR/audit.json alone; and its figures for another page."""

import itertools
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from comity.report.attack_tables import tabulate_attacks
from comity.report.audit_figures import draw_pair
from comity.report.audit_tables import Audit, Table, describe_audit, tabulate_audit
from comity.report.audit_words import word_audit
from comity.report.figures import embed_svg, save_figure
from comity.report.share_figures import draw_attacks, draw_endings
from comity.report.templates import get_template
from comity.runs import read_json


@dataclass(frozen=True, slots=True)
class ShownFigure:
    """A figure of an audit: the name of its files, what it shows, and the words below it."""

    name: str
    description: str
    caption: str
    svg: Markup


def write_audit_page(folder: Path) -> Path:
    """Write DIR/audit.html and DIR/figures/ from DIR/audit.json; return the page's path."""
    audit = read_json(folder / "audit.json")
    page = get_template("audit.html.j2").render(
        audit=audit,
        lead=describe_audit(audit),
        findings=word_audit(audit),
        judged={"agency": "Collective Agency, 0 to 5", "agreement": "agreement, yes or no"}[audit["kind"]],
        tables=list_tables(audit),
        figures=draw_audit(folder / "figures", audit),
    )
    path = folder / "audit.html"
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(page, encoding="utf-8")
    scratch.replace(path)
    return path


def list_tables(audit: Audit) -> list[Table]:
    """Return every table of an audit, those of its attacks too."""
    attacked = audit.get("attacks")
    return tabulate_audit(audit) + (tabulate_attacks(attacked) if attacked is not None else [])


def draw_audit(folder: Path, audit: Audit) -> list[ShownFigure]:
    """Write the figures of an audit as SVG and PNG into the folder and return them in their order."""
    shown = _draw_pairs(folder, audit)
    if (figure := draw_endings(audit.get("endings", ()))) is not None:
        caption = (
            "Of endings that are not agreed, the share of YES is false agreement; of agreed ones it is what a judge "
            "sees. Beside each row the number of endings."
        )
        shown.append(_show(figure, "endings", folder, "Endings taken for agreements, by kind", caption))
    return shown + (draw_attack_suite(folder, audit["attacks"]) if "attacks" in audit else [])


def draw_attack_suite(folder: Path, found: Audit) -> list[ShownFigure]:
    """Write the figure of what `comity judge attack` found into the folder and return it; [] when nothing was tried."""
    figure = draw_attacks(found["rows"])
    if figure is None:
        return []
    caption = "The share of tried attacks that succeed, by family; the control rows add a harmless sentence instead."
    return [_show(figure, "families", folder, "Attacks that succeed, by family", caption)]


def publish_figures(figures: Sequence[ShownFigure], source: Path, images: Path, prefix: str, page: Path) -> str:
    """Copy figures as IMAGES/PREFIX-NAME.png and return the Markdown that shows them on a page.

    Images of that prefix from an earlier time are removed.
    """
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob(f"{prefix}-*.png"):
        old.unlink()
    parts = []
    for figure in figures:
        target = images / f"{prefix}-{figure.name}.png"
        shutil.copyfile(source / f"{figure.name}.png", target)
        place = Path(os.path.relpath(target, page.parent)).as_posix()
        parts.append(f"![{figure.description}]({place})\n*{figure.caption}*")
    return "\n\n".join(parts)


def _draw_pairs(folder: Path, audit: Audit) -> list[ShownFigure]:
    raters = [row["rater"] for row in audit["raters"]]
    shown = []
    for number, (i, j) in enumerate(itertools.combinations(range(len(raters)), 2), 1):
        values = [(point["values"][i], point["values"][j]) for point in audit["points"]]
        points = [(x, y) for x, y in values if x is not None and y is not None]
        levels = [row for row in audit["levels"] if row["by"] == raters[i] and row["of"] == raters[j]]
        figure = draw_pair(audit["kind"], (raters[i], raters[j]), points, levels)
        if figure is None:
            continue
        unscored = len(values) - len(points)
        caption = (
            f"{raters[i]} against {raters[j]}, {len(points)} rows scored by both, {unscored} unscored. On the line "
            f"both say the same. Right: the mean of {raters[j]} at each level of {raters[i]} with its 95 % interval."
        )
        shown.append(_show(figure, f"pair-{number}", folder, f"{raters[i]} against {raters[j]}", caption))
    return shown


def _show(figure: Figure, name: str, folder: Path, description: str, caption: str) -> ShownFigure:
    save_figure(figure, name, folder)
    return ShownFigure(name, description, caption, embed_svg(folder / f"{name}.svg", description))
