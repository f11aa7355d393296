"""A run as a folder of static pages that open from disk: overview, every step, before and after, configuration."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from comity.errors import ConfigError, RunError
from comity.report.tables import tabulate_settings
from comity.viewer.dialogue import Dialogue, lay_out, read_rules
from comity.viewer.library import Library, RunEntry, is_run, read_config
from comity.viewer.pages import render_text
from comity.viewer.run_pages import curves_context
from comity.viewer.sources import Source, list_sources, read_lines, read_negotiation

PAIRS_PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class PageLink:
    """A page of the export with what a list says of it."""

    address: str
    name: str
    count: int
    agreed: int
    reward: float | None


def export_run(root: Path, run: str, out: Path) -> Path:
    """Write a run, a path or a name below `root`, into the folder `out`; return its first page.

    Raise RunError when there is no such run, ConfigError when `out` holds something already.
    """
    entry = find_run(root, run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out is {out}: exists and is not empty; choose another folder")
    scratch = out.with_name(out.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    _write_pages(entry, scratch)
    if out.exists():
        out.rmdir()
    scratch.rename(out)
    return out / "index.html"


def _write_pages(entry: RunEntry, out: Path) -> None:
    for name in ("viewer.css", "dialogue.css", "narrow.css", "viewer.js", "icon.svg"):
        with resources.as_file(resources.files("comity.viewer").joinpath("static", name)) as path:
            shutil.copyfile(path, out / name)
    sources = list_sources(entry.path)
    sides = {source.part: source for source in sources if source.part in ("before", "after")}
    shared = {"run": entry, "has_pairs": len(sides) == 2}
    links = [link for source in sources if (link := _write_part(shared, source, out)) is not None]
    if len(sides) == 2:
        _write_pairs(shared, sides, out)
    overview = Library(entry.path).describe(entry)
    _write(out / "index.html", "static_run.html.j2", {**shared, **curves_context(overview), "here": "index"})
    _write(out / "negotiations.html", "static_list.html.j2", {**shared, "links": links, "here": "negotiations"})
    config = read_config(entry.path)
    settings = {
        "settings": tabulate_settings(config.get("settings", {})),
        "origin": tabulate_settings({key: value for key, value in config.items() if key != "settings"}),
    }
    _write(out / "config.html", "static_config.html.j2", {**shared, **settings, "here": "config"})


def find_run(root: Path, run: str) -> RunEntry:
    """Return a run by its path, or by its name below `root`."""
    path = Path(run)
    if is_run(path):
        return RunEntry(path.resolve().name, path)
    found = Library(root).find(run) if root.is_dir() else None
    if found is None:
        raise RunError(f"export is {run}: is no run directory; give one written by comity, or its name below {root}")
    return found


def _write_part(shared: Mapping[str, Any], source: Source, out: Path) -> PageLink | None:
    run: RunEntry = shared["run"]
    rules = read_rules(run.path, source.part)
    dialogues = [lay_out(row, rules) for row in _read_rows(run, source)]
    if not dialogues:
        return None
    name = f"step {source.step}" if source.part == "train" else source.part
    # Numbers and letters only: a file's name never becomes an address.
    address = f"step-{source.step:06d}.html" if source.part == "train" else f"part-{_letters(source.part)}.html"
    _write(out / address, "static_step.html.j2", {**shared, "here": "", "name": name, "dialogues": dialogues})
    rewards = [item.row["reward"] for item in dialogues if item.row["reward"] is not None]
    agreed = sum(item.row["ending"] == "agreed" for item in dialogues)
    return PageLink(address, name, len(dialogues), agreed, sum(rewards) / len(rewards) if rewards else None)


def _write_pairs(shared: Mapping[str, Any], sides: Mapping[str, Source], out: Path) -> None:
    run: RunEntry = shared["run"]
    tables = []
    for part in ("before", "after"):
        rules = read_rules(run.path, part)
        dialogues = [lay_out(row, rules) for row in _read_rows(run, sides[part])]
        tables.append({(item.row["scenario"], item.row["sample"]): item for item in dialogues})
    before, after = tables
    pairs = [(before[key], after[key], _change(before[key], after[key])) for key in before if key in after]
    pairs.sort(key=lambda pair: float("inf") if pair[2] is None else -pair[2])
    pages = max(1, -(-len(pairs) // PAIRS_PER_PAGE))
    for number in range(1, pages + 1):
        chosen = pairs[(number - 1) * PAIRS_PER_PAGE : number * PAIRS_PER_PAGE]
        context = {**shared, "here": "pairs", "pairs": chosen, "number": number, "pages": pages}
        _write(out / name_pairs_page(number), "static_pairs.html.j2", context)


def name_pairs_page(number: int) -> str:
    """Return the file of a page of pairs."""
    return "pairs.html" if number == 1 else f"pairs-{number}.html"


def _change(before: Dialogue, after: Dialogue) -> float | None:
    first, second = before.row["reward"], after.row["reward"]
    return None if first is None or second is None else float(second - first)


def _read_rows(entry: RunEntry, source: Source) -> Iterator[Mapping[str, Any]]:
    for _, line in read_lines(entry.path / source.path):
        row = read_negotiation(line)
        if row is not None:
            yield row


def _letters(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else f"-{ord(letter):x}-" for letter in text)


def _write(path: Path, template: str, context: Mapping[str, Any]) -> None:
    text = render_text(template, {"name_pairs_page": name_pairs_page, **context})
    path.write_text(text, encoding="utf-8")
