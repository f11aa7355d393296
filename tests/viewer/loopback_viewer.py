"""A viewer on a loopback socket in a thread, for streams and browsers."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import uvicorn

from comity.viewer.app import build_app
from comity.viewer.settings import ViewConfig


@dataclass(frozen=True)
class ServedViewer:
    """A served viewer: its address and a client with cookies."""

    address: str
    client: httpx.Client

    def post(self, path, **fields):
        """Send a form as a page of the viewer would; return where it leads."""
        csrf = re.search(r'name="csrf" content="([0-9a-f]+)"', self.client.get("/").text)[1]
        answer = self.client.post(path, data={"csrf": csrf, **fields})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]


@contextmanager
def serve_viewer(root, cache, cast, **settings) -> Iterator[ServedViewer]:
    """Serve the runs below `root` on a free port."""
    app = build_app(root, ViewConfig(cache=str(cache), **settings), cast)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=20) as client:
            yield ServedViewer(address, client)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
