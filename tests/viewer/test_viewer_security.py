"""Who may reach the viewer, and that no page runs what is not ours."""

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import ScriptedCast, csrf_of, make_run, open_viewer
from starlette.testclient import TestClient

from comity.errors import ConfigError
from comity.viewer.app import build_app
from comity.viewer.security import is_known_host, is_loopback, read_cookies
from comity.viewer.serve import describe_address, open_listener, secure_settings
from comity.viewer.settings import ViewConfig

TOKEN = "a-token-of-some-length"


@pytest.fixture
def runs(tmp_path):
    """Return the folder of one small run."""
    make_run(tmp_path / "runs" / "small", steps=1)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True), ("localhost:8765", True), ("127.0.0.1:1", True), ("[::1]:8765", True), ("10.0.0.7", True),
        ("lab.example", True), ("LAB.example:80", True), ("evil.example", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False), ("", False), ("[", False), ("a@localhost@evil", False),
    ],
)  # fmt: skip
def test_hosts(host, known):
    assert is_known_host(host, ("lab.example",)) is known


@given(st.text())
def test_any_host_header_gets_an_answer(host):
    assert is_known_host(host, ()) in (True, False)


@given(st.text())
def test_any_cookie_header_is_read(header):
    assert isinstance(read_cookies(header), dict)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("lab", False)],
)
def test_loopback_addresses(host, loopback):
    assert is_loopback(host) is loopback


def test_a_foreign_host_name_is_refused(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache")
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421


def test_a_token_is_asked_for_once(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache", token=TOKEN)
    for path in ("/", "/runs/small", "/static/viewer.css", "/play/x/events", "/?token=wrong-token-of-length"):
        assert client.get(path).status_code == 401
    assert client.post("/play", data={"csrf": "x"}).status_code == 401
    answer = client.get(f"/compare?token={TOKEN}&run=a&run=b")
    assert (answer.status_code, answer.headers["location"]) == (303, "/compare?run=a&run=b")
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert client.get("/list").status_code == 200


def test_a_token_may_come_as_a_header(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache", token=TOKEN)
    assert client.get("/list", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/list", headers={"authorization": "Bearer ü".encode("latin-1")}).status_code == 401


def post_routes(app, prefix=""):
    """Yield the path of every route that takes a POST, however deep it is included."""
    for route in getattr(app, "routes", []):
        if "POST" in (getattr(route, "methods", None) or ()):
            yield re.sub(r"\{[^}]*\}", "1", route.path)
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from post_routes(inner)


def test_every_post_needs_the_token_of_a_page(runs, tmp_path):
    guard = build_app(runs, ViewConfig(cache=str(tmp_path / "cache")), ScriptedCast())
    paths = sorted(set(post_routes(guard.app)))
    assert paths == [
        "/play", "/play/1/leave", "/play/1/say", "/rate/1/items/1", "/rate/1/undo", "/rate/name", "/rate/studies",
    ]  # fmt: skip
    client = TestClient(guard, base_url="http://localhost", follow_redirects=False)
    csrf = csrf_of(client)
    for path in paths:
        assert client.post(path, data={"name": "Ada"}).status_code == 403, path
        assert client.post(path, data={"csrf": csrf[::-1]}).status_code == 403, path
        foreign = {"origin": "http://evil.example"}
        assert client.post(path, data={"csrf": csrf}, headers=foreign).status_code == 403, path
        other = {"sec-fetch-site": "same-site"}
        assert client.post(path, data={"csrf": csrf}, headers=other).status_code == 403, path
        assert client.post(path, data={"csrf": csrf}).status_code != 403, path


def test_a_token_of_another_session_is_refused(runs, tmp_path):
    guard = build_app(runs, ViewConfig(cache=str(tmp_path / "cache")), ScriptedCast())
    one, two = (TestClient(guard, base_url="http://localhost", follow_redirects=False) for _ in range(2))
    csrf = csrf_of(one)
    assert one.post("/rate/name", data={"csrf": csrf, "name": "Ada"}).status_code == 303
    assert two.post("/rate/name", data={"csrf": csrf, "name": "Ada"}).status_code == 403


def test_a_form_that_is_too_long_is_refused(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache")
    assert client.post("/play", data={"csrf": csrf_of(client), "dilemma": "x" * 300_000}).status_code == 413


PAGES = (
    "/",
    "/runs/small",
    "/runs/small/negotiations",
    "/runs/small/negotiations/train/1/0",
    "/play",
    "/rate",
    "/nope",
)


@pytest.mark.parametrize("path", PAGES)
def test_pages_allow_no_inline_script_or_style(runs, tmp_path, path):
    answer = open_viewer(runs, tmp_path / "cache").get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", answer.text)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", answer.text)


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/runs/%2e%2e%2f%2e%2e"])
def test_paths_do_not_leave_their_folder(runs, tmp_path, path):
    assert open_viewer(runs, tmp_path / "cache").get(path).status_code == 404


def test_an_open_address_has_a_token_and_knows_its_own_name():
    assert secure_settings(ViewConfig()) == ViewConfig()
    settings = secure_settings(ViewConfig(host="0.0.0.0", hosts=("lab.example",)))
    assert len(settings.token) == 32
    address = urlsplit(describe_address(settings, 8765))
    assert address.query == f"token={settings.token}"
    assert is_known_host(address.netloc, settings.hosts)
    assert is_known_host("lab.example", settings.hosts)
    assert secure_settings(ViewConfig(host="lab", token=TOKEN)).token == TOKEN


def test_the_address_to_open_holds_the_token():
    assert describe_address(ViewConfig(), 8765) == "http://127.0.0.1:8765/"
    assert describe_address(ViewConfig(host="::1", token=TOKEN), 1) == f"http://[::1]:1/?token={TOKEN}"


def test_a_port_that_is_taken_is_named():
    with open_listener(ViewConfig(port=0)) as first:
        taken = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port is {taken}: is taken; choose another --port"):
            open_listener(ViewConfig(port=taken))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 70000}, "port is 70000"),
        ({"token": "short"}, "choose 16 or more"),
        ({"export": "x"}, "belong together"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        ViewConfig(**settings)
