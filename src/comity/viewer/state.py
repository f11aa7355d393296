"""What the application holds while it is served."""

from dataclasses import dataclass

from fastapi import HTTPException
from starlette.requests import Request

from comity.viewer.cast import Cast
from comity.viewer.index import IndexShelf
from comity.viewer.library import Library, RunEntry
from comity.viewer.play import GameRoom
from comity.viewer.ratings import RatingStore
from comity.viewer.settings import ViewConfig


@dataclass(frozen=True)
class Viewer:
    """One served viewer."""

    library: Library
    config: ViewConfig
    indexes: IndexShelf
    cast: Cast
    games: GameRoom
    ratings: RatingStore


def viewer_of(request: Request) -> Viewer:
    """Return the viewer that answers a request."""
    viewer: Viewer = request.app.state.viewer
    return viewer


def require_run(request: Request, run_id: str) -> RunEntry:
    """Return the run of an id; raise 404 when there is none."""
    entry = viewer_of(request).library.find(run_id)
    if entry is None:
        raise HTTPException(404, f"There is no run {run_id!r} here.")
    return entry
