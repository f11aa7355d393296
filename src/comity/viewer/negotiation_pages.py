"""Pages of negotiations: the filtered list, one of them, its group, the same scenario before and after."""

from contextlib import closing
from typing import Any

from fastapi import APIRouter, HTTPException
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from comity.errors import ComityError
from comity.viewer import pages
from comity.viewer.dialogue import Dialogue, lay_out, read_rules
from comity.viewer.excerpts import cut_excerpt
from comity.viewer.index import RunIndex
from comity.viewer.library import RunEntry
from comity.viewer.query import (
    SORTS,
    Filter,
    Record,
    Sort,
    find_group,
    find_page,
    find_pairs,
    find_record,
    list_parts,
    search_words,
)
from comity.viewer.sources import read_row
from comity.viewer.state import require_run, viewer_of

router = APIRouter()

PAIRS_PER_PAGE = 50
COLUMNS: tuple[tuple[Sort, str], ...] = (
    ("step", "Step"), ("scenario", "Scenario"), ("rounds", "Rounds"), ("reward", "Reward"), ("advantage", "Advantage"),
    ("score", "Score"), ("heldout_score", "Held-out"), ("words", "Words"),
)  # fmt: skip


@router.get("/runs/{run_id}/negotiations")
def show_negotiations(request: Request, run_id: str) -> Response:
    """Show one page of the negotiations that match the filter in the address."""
    entry = require_run(request, run_id)
    context = _list_context(request, entry, index_of(request, entry))
    return pages.render(request, "negotiations.html.j2", context)


@router.get("/runs/{run_id}/negotiations/rows")
def show_rows(request: Request, run_id: str) -> Response:
    """Return the same page's rows as they are now."""
    entry = require_run(request, run_id)
    index = index_of(request, entry)
    state = index.refresh()
    version = f"{index.generation()}|{state}|{request.url.query}"
    return pages.render_fragment(
        request, "negotiation_rows.html.j2", version, lambda: _list_context(request, entry, index)
    )


@router.get("/runs/{run_id}/negotiations/{part}/{step}/{place}")
def show_negotiation(request: Request, run_id: str, part: str, step: int, place: int) -> Response:
    """Show one negotiation as a chat, with its group."""
    entry = require_run(request, run_id)
    index = index_of(request, entry)
    index.refresh()
    with closing(index.connect()) as connection:
        record = _require_record(find_record(connection, part, step, place))
        group = find_group(connection, part, step, record.scenario)
        neighbours = [find_record(connection, part, step, near) for near in (place - 1, place + 1)]
    context = {
        "run": entry,
        "tab": "negotiations",
        "record": record,
        "dialogue": lay_out_record(entry, record),
        "group": group,
        "mean": mean_reward(group),
        "before": neighbours[0],
        "after": neighbours[1],
    }
    return pages.render(request, "negotiation.html.j2", context)


@router.get("/runs/{run_id}/group")
def show_group(request: Request, run_id: str, scenario: str, part: str = "train", step: int = 0) -> Response:
    """Show all rollouts of a scenario in one step side by side."""
    entry = require_run(request, run_id)
    index = index_of(request, entry)
    index.refresh()
    with closing(index.connect()) as connection:
        group = find_group(connection, part, step, scenario)
    if not group:
        raise HTTPException(404, f"Step {step} has no negotiation about {scenario!r}.")
    context = {
        "run": entry,
        "tab": "negotiations",
        "columns": [(record, lay_out_record(entry, record)) for record in group],
        "mean": mean_reward(group),
    }
    return pages.render(request, "group.html.j2", context)


@router.get("/runs/{run_id}/pairs")
def show_pairs(request: Request, run_id: str) -> Response:
    """List the scenarios that two parts share, the largest change in reward first."""
    entry = require_run(request, run_id)
    index = index_of(request, entry)
    state = index.refresh(1.0)
    with closing(index.connect()) as connection:
        parts = [part for part in list_parts(connection) if part != "train"]
        before, after = _two_parts(request.query_params, parts)
        pairs = find_pairs(connection, before, after) if before and after else []
    number = _whole(request.query_params, "page") or 1
    count = max(1, -(-len(pairs) // PAIRS_PER_PAGE))
    number = min(max(1, number), count)
    context = {
        "run": entry, "tab": "pairs", "parts": parts, "before": before, "after": after, "state": state,
        "pairs": pairs[(number - 1) * PAIRS_PER_PAGE : number * PAIRS_PER_PAGE], "total": len(pairs),
        "number": number, "pages": count,
    }  # fmt: skip
    return pages.render(request, "pairs.html.j2", context)


@router.get("/runs/{run_id}/pair")
def show_pair(request: Request, run_id: str, scenario: str, sample: int = 0) -> Response:
    """Show the same scenario and sample in two parts side by side."""
    entry = require_run(request, run_id)
    index = index_of(request, entry)
    index.refresh()
    with closing(index.connect()) as connection:
        parts = [part for part in list_parts(connection) if part != "train"]
        before, after = _two_parts(request.query_params, parts)
        found = [record for part in (before, after) for record in find_group(connection, part, 0, scenario)]
    pair = [record for record in found if record.sample == sample]
    if not pair:
        raise HTTPException(404, f"Neither part has sample {sample} of {scenario!r}.")
    context = {
        "run": entry, "tab": "pairs", "before": before, "after": after,
        "columns": [(record, lay_out_record(entry, record)) for record in pair],
    }  # fmt: skip
    return pages.render(request, "pair.html.j2", context)


def index_of(request: Request, entry: RunEntry) -> RunIndex:
    """Return the index of a run."""
    return viewer_of(request).indexes.open(entry.path)


def lay_out_record(entry: RunEntry, record: Record) -> Dialogue:
    """Return one negotiation laid out; raise RunError when its file has changed since it was indexed."""
    row = read_row(entry.path, record.path, record.start, record.size)
    return lay_out(row, read_rules(entry.path, record.part))


def mean_reward(group: list[Record]) -> float | None:
    """Return the mean reward of a group's scored rollouts, None without any."""
    rewards = [record.reward for record in group if record.reward is not None]
    return sum(rewards) / len(rewards) if rewards else None


def read_filter(query: QueryParams, parts: list[str]) -> Filter:
    """Return the filter in an address; raise 422 for a value that is no number."""
    part = query.get("part") or (parts[0] if parts else "train")
    return Filter(
        part=part,
        step_from=_whole(query, "step_from"),
        step_to=_whole(query, "step_to"),
        scenario=query.get("scenario", "").strip(),
        tier=query.get("tier", ""),
        ending=query.get("ending", ""),
        reward_from=_number(query, "reward_from"),
        reward_to=_number(query, "reward_to"),
        score_from=_number(query, "score_from"),
        score_to=_number(query, "score_to"),
        text=query.get("text", "").strip(),
    )


def _list_context(request: Request, entry: RunEntry, index: RunIndex) -> dict[str, Any]:
    state = index.refresh()
    query = request.query_params
    with closing(index.connect()) as connection:
        parts = list_parts(connection)
        wanted = read_filter(query, parts)
        sort: Sort = next((name for name in SORTS if name == query.get("sort")), "step")
        page = find_page(connection, wanted, sort, query.get("down") == "1", _whole(query, "page") or 1)
    words = search_words(wanted.text)
    kept = {key: value for key, value in query.items() if value and key != "page"}
    return {
        "run": entry, "tab": "negotiations", "parts": parts, "filter": wanted, "sort": sort, "columns": COLUMNS,
        "down": query.get("down") == "1", "page": page, "state": state, "kept": kept, "skipped": state.skipped,
        "rows": [(record, _excerpt(entry, record, words)) for record in page.records],
    }  # fmt: skip


def _excerpt(entry: RunEntry, record: Record, words: list[str]) -> list[tuple[str, bool]]:
    try:
        return cut_excerpt(read_row(entry.path, record.path, record.start, record.size), words)
    except ComityError as error:
        return [(str(error), False)]


def _require_record(record: Record | None) -> Record:
    if record is None:
        raise HTTPException(404, "There is no such negotiation, or it is not in the index yet.")
    return record


def _two_parts(query: QueryParams, parts: list[str]) -> tuple[str, str]:
    first = "before" if "before" in parts else (parts[0] if parts else "")
    last = "after" if "after" in parts else (parts[-1] if parts else "")
    return query.get("before") or first, query.get("after") or last


def _whole(query: QueryParams, name: str) -> int | None:
    value = _number(query, name)
    return None if value is None else int(value)


def _number(query: QueryParams, name: str) -> float | None:
    text = query.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e15:
        raise HTTPException(422, f"{name} is {text!r}: give a number")
    return value
