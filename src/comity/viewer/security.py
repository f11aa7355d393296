"""What every request passes: Host, access token, session, CSRF; and the headers of every answer.

A page on another site must not reach the viewer through the reader's browser: the Host header is checked against DNS
rebinding, every POST needs a token that only our own pages hold, and no page runs a script that is not a file of ours.
"""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SESSION, ACCESS = "comity_session", "comity_access"
"""Names of the cookies."""
BODY_LIMIT_BYTES = 256 * 1024
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send forms of our own with `Origin: null`
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Guard:
    """An ASGI application before the viewer's own: it refuses, or passes on with `state.csrf` set.

    `hosts` are the names a browser may use beside loopback ones and addresses; `token` is asked for unless empty.
    """

    app: ASGIApp
    hosts: Sequence[str] = ()
    token: str = ""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and answer it, or hand it to the viewer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies = read_cookies(headers.get("cookie", ""))
        known = cookies.get(SESSION, "")
        fresh = "" if _is_session(known) else secrets.token_urlsafe(24)
        csrf = self.csrf_of(fresh or known)
        send = _with_headers(send, fresh)
        refusal = self._refuse(scope, headers, cookies)
        if refusal is None and scope["method"] not in ("GET", "HEAD"):
            body = await _read_body(receive)
            refusal = _refuse_body(body, headers, "" if fresh else csrf)
            receive = _replay(body or b"", receive)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["csrf"] = csrf
        await self.app(scope, receive, send)

    def csrf_of(self, session: str) -> str:
        """Return the token that forms of a session carry."""
        return hmac.new(self.secret, session.encode(), hashlib.sha256).hexdigest()

    def _refuse(self, scope: Scope, headers: Headers, cookies: dict[str, str]) -> Response | None:
        if not is_known_host(headers.get("host", ""), self.hosts):
            text = "This name is not one of the viewer's. Open the address that `comity view` printed, or add --hosts."
            return PlainTextResponse(text, 421)
        if not self.token:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        if scope["method"] == "GET" and any(name == "token" and _same(value, self.token) for name, value in query):
            # The token leaves the address, where it would be seen over a shoulder and kept in the history.
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            answer = RedirectResponse(quote(scope["path"]) + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(ACCESS, self.token, httponly=True, samesite="lax")
            return answer
        given = cookies.get(ACCESS) or headers.get("authorization", "").removeprefix("Bearer ")
        if _same(given, self.token):
            return None
        return PlainTextResponse("An access token is needed. Open the address that `comity view` printed.", 401)


def is_known_host(host: str, hosts: Sequence[str]) -> bool:
    """Tell whether a Host header names this server: localhost, an address, or one of the given names.

    An address cannot be rebound by a foreign name server, so any is taken.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name in {known.lower() for known in hosts}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen at is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_cookies(header: str) -> dict[str, str]:
    """Return the cookies of a request; a malformed header has none."""
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _is_session(text: str) -> bool:
    return len(text) == 32 and text.replace("-", "").replace("_", "").isalnum() and text.isascii()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


async def _read_body(receive: Receive) -> bytes | None:
    # None: longer than any form of ours.
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _refuse_body(body: bytes | None, headers: Headers, csrf: str) -> Response | None:
    if body is None:
        return PlainTextResponse(f"A form may have {BODY_LIMIT_BYTES} bytes.", 413)
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
    if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return PlainTextResponse("This form came from another site.", 403)
    given = headers.get("x-csrf-token", "")
    if not given and headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        given = dict(parse_qsl(body.decode("utf-8", "replace"))).get("csrf", "")
    if not csrf or not _same(given, csrf):
        return PlainTextResponse("This form is out of date: go back, load the page again, and send it once more.", 403)
    return None


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


def _with_headers(send: Send, session: str) -> Send:
    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
            if session:
                headers.append("set-cookie", f"{SESSION}={session}; HttpOnly; SameSite=Lax; Path=/")
        await send(message)

    return forward
