"""A viewer on a loopback socket in a thread, for streams and browsers."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from comity.viewer.app import build_app
from comity.viewer.play import GameRoom
from comity.viewer.serve import make_server, open_listener, run_server
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
    games = GameRoom()
    config = ViewConfig(cache=str(cache), port=0, **settings)
    listener, server = open_listener(config), make_server(build_app(root, config, cast, games))
    thread = threading.Thread(target=lambda: asyncio.run(run_server(server, listener, games)), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=20) as client:
            yield ServedViewer(address, client)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
