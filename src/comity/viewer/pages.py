"""Templates to HTML, with everything escaped and no name left undefined."""

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from comity.report.tables import show
from comity.viewer.scales import show_number

ENDINGS = {
    "agreed": "agreed",
    "no_agreement": "no agreement",
    "answered": "answered alone",
    "failed": "failed, unscored",
}


@cache
def make_environment() -> Environment:
    """Return the environment of all templates: autoescape on, a misspelt name is an error."""
    environment = Environment(
        loader=PackageLoader("comity.viewer", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        show=show,
        figure=show_number,
        ago=show_age,
        ending=name_ending,
        segment=quote_segment,
        query=encode_query,
    )
    return environment


def render(request: Request, template: str, context: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """Return a page; templates get the context, `csrf` for their forms and `path` of the request."""
    return HTMLResponse(
        render_text(template, {"csrf": request.state.csrf, "path": request.url.path, **context}), status
    )


def render_text(template: str, context: Mapping[str, Any]) -> str:
    """Return a filled template; what is no Unicode text, such as half of a surrogate pair, becomes a question mark."""
    text = make_environment().get_template(template).render(context)
    return text.encode("utf-8", "replace").decode("utf-8")


def render_fragment(
    request: Request, template: str, version: str, make_context: Callable[[], Mapping[str, Any]]
) -> Response:
    """Return a part of a page that the browser asks for again and again; 304 when it has this version already."""
    tag = f'"{hashlib.sha256(version.encode("utf-8", "replace")).hexdigest()[:24]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    answer = render(request, template, make_context())
    answer.headers.update(headers)
    return answer


def fail(request: Request, status: int, message: str) -> HTMLResponse:
    """Return a page that says what went wrong."""
    return render(request, "error.html.j2", {"status": status, "message": message}, status)


def show_age(seconds: float) -> str:
    """Return how long ago a moment (seconds since the epoch) was, in words."""
    age = time.time() - seconds
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if age < limit:
            return f"{max(0, age) / unit:.0f} {name} ago"
    return f"{age / 86400:.0f} days ago"


def name_ending(ending: str | None) -> str:
    """Return how a dialogue ended in words."""
    return "unfinished" if ending is None else ENDINGS.get(ending, ending)


def quote_segment(text: str) -> str:
    """Return a text as one segment of an address."""
    return quote(text, safe="")


def encode_query(values: Mapping[str, Any]) -> str:
    """Return a query string of the values that are not empty; a list gives its key several times."""
    kept = [(key, value) for key, value in values.items() if value not in (None, "", [], ())]
    return urlencode(kept, doseq=True)
