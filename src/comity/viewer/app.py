"""The application: what it holds, its routes, and the guard before them."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from comity.engines.folders import cache_directory
from comity.errors import ComityError
from comity.viewer import negotiation_pages, pages, play_pages, rate_pages, run_pages
from comity.viewer.cast import Cast, LocalCast
from comity.viewer.index import IndexShelf
from comity.viewer.library import Library, is_run
from comity.viewer.play import GameRoom
from comity.viewer.ratings import RatingStore
from comity.viewer.security import Guard
from comity.viewer.settings import ViewConfig
from comity.viewer.state import Viewer


def build_app(root: Path, config: ViewConfig, cast: Cast | None = None, games: GameRoom | None = None) -> Guard:
    """Return the guarded application that shows the runs below `root`; raise RunError when there is no such folder.

    `cast` says who can play, without it the models of this machine; `games` keeps what is played.
    """
    app = FastAPI(title="comity", openapi_url=None, docs_url=None, redoc_url=None)
    cache = Path(config.cache) if config.cache else cache_directory()
    library = Library(root)
    app.state.viewer = Viewer(
        library=library,
        config=config,
        indexes=IndexShelf(cache),
        cast=cast or LocalCast(library, config),
        games=games or GameRoom(),
        ratings=RatingStore(find_ratings(config, root)),
    )
    app.include_router(run_pages.router)
    app.include_router(negotiation_pages.router)
    app.include_router(play_pages.router)
    app.include_router(rate_pages.router)
    app.mount("/static", StaticFiles(packages=[("comity.viewer", "static")]), name="static")
    app.add_exception_handler(HTTPException, _show_http_error)
    app.add_exception_handler(RequestValidationError, _show_bad_value)
    app.add_exception_handler(ComityError, _show_error)
    return Guard(app, config.hosts, config.token)


def find_ratings(config: ViewConfig, root: Path) -> Path:
    """Return the SQLite file of human ratings: beside the runs, never inside one, which has its own writer."""
    if config.ratings:
        return Path(config.ratings)
    return (root.resolve().parent if is_run(root) else root) / "ratings.sqlite"


async def _show_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return pages.fail(request, error.status_code, error.detail)


async def _show_bad_value(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return pages.fail(request, 422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")


async def _show_error(request: Request, error: Exception) -> Response:
    return pages.fail(request, 409, str(error))
