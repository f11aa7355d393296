"""Pages to rate: blind, one item at a time, by keyboard; results and export.

What a browser gets before a rating is the item's texts in an order drawn for each rater. Where they come from, and what
the judges said of them, is in the results alone, and there for rated items only.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote

from fastapi import APIRouter, Form, HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from comity.errors import ComityError, ConfigError
from comity.viewer import pages
from comity.viewer.library import RunEntry
from comity.viewer.query import list_parts
from comity.viewer.rater_agreement import compare_judges, compare_raters, count_wins
from comity.viewer.ratings import KINDS, Item, Kind, Rating, Study, is_swapped, next_item, read_name
from comity.viewer.sources import MANY, list_parts_of
from comity.viewer.state import Viewer, require_run, viewer_of
from comity.viewer.studies import MOST_ITEMS, RatedSource, draw_items, write_audit_rows, write_labels

router = APIRouter()

RATER = "comity_rater"
INDEX_WAIT_SECONDS = 30.0
KIND_WORDS: dict[Kind, str] = {
    "preference": "Which answer is better? (blind, two parts compared)",
    "agency": "How good is the answer? (0 to 5)",
    "agreement": "Did they agree? (yes or no)",
}


@router.get("/rate")
def show_studies(request: Request) -> Response:
    """Show the studies, and the forms for a name and for a new study."""
    return pages.render(request, "rate.html.j2", _studies_context(request))


@router.post("/rate/name")
def set_name(request: Request, name: Annotated[str, Form()] = "") -> Response:
    """Keep the rater's name in a cookie."""
    try:
        cleaned = read_name(name)
    except ConfigError as error:
        return pages.render(request, "rate.html.j2", {**_studies_context(request), "problem": str(error)}, 422)
    answer = RedirectResponse("/rate", 303)
    answer.set_cookie(RATER, quote(cleaned), httponly=True, samesite="lax", max_age=365 * 86400)
    return answer


@router.post("/rate/studies")
def add_study(
    request: Request,
    kind: Annotated[Kind, Form()],
    source: Annotated[str, Form()],
    other: Annotated[str, Form()] = "",
    count: Annotated[int, Form()] = 20,
    seed: Annotated[int, Form()] = 0,
) -> Response:
    """Draw the items of a new study from runs; show the form again when something does not fit."""
    try:
        sources = [_find_source(request, source)]
        if kind == "preference":
            sources.append(_find_source(request, other))
        name = " against ".join(item.name for item in sources)
        study = viewer_of(request).ratings.add_study(kind, name, seed, draw_items(kind, sources, count, seed))
    except ComityError as error:
        return pages.render(request, "rate.html.j2", {**_studies_context(request), "problem": str(error)}, 422)
    return RedirectResponse(f"/rate/{study.id}", 303)


@router.get("/rate/{study_id}")
def show_next(request: Request, study_id: int) -> Response:
    """Show the rater's next item, or that all are rated."""
    study, rater = _require_study(request, study_id), read_rater(request)
    if not rater:
        return RedirectResponse("/rate", 303)
    store = viewer_of(request).ratings
    items, ratings = store.list_items(study), store.list_ratings(study)
    item = next_item(study, items, rater, ratings)
    done = sum(rating.rater == rater for rating in ratings)
    context = {"study": study, "rater": rater, "done": done, "total": len(items), "item": item}
    if item is None:
        return pages.render(request, "rated.html.j2", context)
    return pages.render(request, "rate_item.html.j2", {**context, "shown": show_item(study, rater, item)})


@router.post("/rate/{study_id}/items/{item_id}")
def rate_item(
    request: Request, study_id: int, item_id: str, value: Annotated[Literal["left", "right"] | float, Form()]
) -> Response:
    """Keep a rating and go on to the next item."""
    study, rater = _require_study(request, study_id), read_rater(request)
    if not rater:
        raise HTTPException(409, "There is no name to rate under: write yours on the page Rate.")
    store = viewer_of(request).ratings
    if isinstance(value, str):
        item = next((item for item in store.list_items(study) if item.id == item_id), None)
        if item is None or study.kind != "preference":
            raise HTTPException(404, "There is no such item in this study.")
        value = float((value == "right") != is_swapped(study, rater, item))
    store.rate(study, item_id, rater, value)
    return RedirectResponse(f"/rate/{study_id}", 303)


@router.post("/rate/{study_id}/undo")
def undo_rating(request: Request, study_id: int) -> Response:
    """Take the rater's latest rating back."""
    study = _require_study(request, study_id)
    viewer_of(request).ratings.undo(study, read_rater(request))
    return RedirectResponse(f"/rate/{study_id}", 303)


@router.get("/rate/{study_id}/results")
def show_results(request: Request, study_id: int) -> Response:
    """Show how far raters agree with each other and with the judges, and the reader's own ratings unblinded."""
    study, rater = _require_study(request, study_id), read_rater(request)
    store = viewer_of(request).ratings
    ratings = store.list_ratings(study)
    raters = sorted({rating.rater for rating in ratings})
    context = {
        "study": study,
        "total": len(store.list_items(study)),
        "raters": [(name, sum(rating.rater == name for rating in ratings)) for name in raters],
        "between": compare_raters(study, ratings) if len(raters) > 1 else [],
        "judges": compare_judges(study, ratings) if ratings else [],
        "wins": count_wins(ratings) if study.kind == "preference" else [],
        "mine": [describe_rating(study, rating) for rating in ratings if rating.rater == rater],
    }
    return pages.render(request, "results.html.j2", context)


@router.get("/rate/{study_id}/labels.jsonl")
def export_labels(request: Request, study_id: int, part: Literal["train", "heldout"] = "heldout") -> Response:
    """Return the ratings that stand as JSONL, one row a rating."""
    study = _require_study(request, study_id)
    rows = write_labels(study, viewer_of(request).ratings.list_ratings(study), part)
    return _download(rows, f"{study.kind}-{study.id}-{part}.jsonl")


@router.get("/rate/{study_id}/audit.jsonl")
def export_audit_rows(request: Request, study_id: int) -> Response:
    """Return the rated items with all their ratings and the judges' verdicts as JSONL, one row an item."""
    study = _require_study(request, study_id)
    if study.kind == "preference":
        raise HTTPException(404, "Comparisons are audited as they are: take labels.jsonl.")
    rows = write_audit_rows(study, viewer_of(request).ratings.list_ratings(study))
    return _download(rows, f"{study.kind}-{study.id}-audit.jsonl")


def _download(rows: Sequence[Mapping[str, Any]], name: str) -> Response:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(text.encode("utf-8", "backslashreplace"), media_type="application/jsonl", headers=headers)


def show_item(study: Study, rater: str, item: Item) -> dict[str, Any]:
    """Return what a rater may see of an item: texts, never names or scores."""
    content = item.content
    shown: dict[str, Any] = {"dilemma": content["dilemma"], "personas": content["personas"]}
    if study.kind == "preference":
        answers = content["answers"]
        return shown | {"answers": answers[::-1] if is_swapped(study, rater, item) else answers}
    if study.kind == "agency":
        return shown | {"answer": content["answer"]}
    return shown | {"messages": [content["message_a"], content["message_b"]]}


def describe_rating(study: Study, rating: Rating) -> tuple[str, str, str]:
    """Return a rating's dilemma, what was said, and what it was said of, with the judges' word."""
    content = rating.item.content
    if study.kind == "preference":
        said = "neither" if rating.value == 0.5 else content["names"][int(rating.value)]
        pairs = zip(content["names"], content["scores"], strict=True)
        return content["dilemma"], said, ", ".join(f"{name} {_show(score)}" for name, score in pairs)
    if study.kind == "agency":
        judges = f"judge {_show(content['score'])}, held-out judge {_show(content['heldout_score'])}"
        return content["dilemma"], f"{rating.value:.0f}", f"{content['name']}: {judges}"
    words = {True: "agreed", False: "not agreed", None: "no word"}
    judges = f"judge {words[content['agreed']]}, held-out judge {words[content['heldout_agreed']]}"
    return content["dilemma"], words[rating.value == 1.0], f"{content['name']}: {judges}"


def read_rater(request: Request) -> str:
    """Return the rater's name from its cookie, empty without a valid one."""
    try:
        return read_name(unquote(request.cookies.get(RATER, "")))
    except ConfigError:
        return ""


def _show(score: float | None) -> str:
    return "unscored" if score is None else f"{score:.2f}"


def _studies_context(request: Request) -> dict[str, Any]:
    viewer = viewer_of(request)
    rater = read_rater(request)
    return {
        "rater": rater,
        "kinds": KINDS,
        "words": KIND_WORDS,
        "studies": [_count(viewer, study, rater) for study in viewer.ratings.list_studies()],
        "sources": _list_sources(viewer),
        "most": MOST_ITEMS,
        "problem": "",
    }


def _count(viewer: Viewer, study: Study, rater: str) -> tuple[Study, int, int, int]:
    ratings = viewer.ratings.list_ratings(study)
    mine = sum(rating.rater == rater for rating in ratings)
    return study, len(viewer.ratings.list_items(study)), mine, len({rating.rater for rating in ratings})


def _list_sources(viewer: Viewer) -> Sequence[tuple[str, str]]:
    order = {"before": 0, "after": 1, "train": 3}
    found = [(entry.id, part) for entry in viewer.library.entries() for part in _list_parts(viewer, entry)]
    found.sort(key=lambda item: order.get(item[1], 2))
    return [(f"{part}@{run}", f"{run}, {'training' if part == 'train' else part}") for run, part in found]


def _list_parts(viewer: Viewer, entry: RunEntry) -> list[str]:
    parts = list_parts_of(entry.path)
    if MANY not in parts:
        return parts
    # Only the index knows which models a comparison of several has.
    index = viewer.indexes.open(entry.path)
    index.refresh()
    with closing(index.connect()) as connection:
        more = [part for part in list_parts(connection) if part not in parts]
    return [part for part in parts if part != MANY] + more


def _find_source(request: Request, text: str) -> RatedSource:
    part, _, run_id = text.partition("@")
    entry = require_run(request, run_id)
    if part not in _list_parts(viewer_of(request), entry):
        raise ConfigError(f"part {part!r} is not in run {run_id!r}: choose one of the list")
    index = viewer_of(request).indexes.open(entry.path)
    if not index.refresh(INDEX_WAIT_SECONDS).complete:
        raise ConfigError(f"run {run_id!r} is still being indexed: try again in a moment")
    return RatedSource(entry, part, index)


def _require_study(request: Request, study_id: int) -> Study:
    study = viewer_of(request).ratings.find_study(study_id)
    if study is None:
        raise HTTPException(404, "There is no such study.")
    return study
