"""Bind an address, build the application, serve until interrupted."""

import dataclasses
import errno
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from comity.errors import ConfigError
from comity.viewer.app import build_app
from comity.viewer.security import is_loopback
from comity.viewer.settings import ViewConfig


def serve(root: Path, config: ViewConfig, say: Callable[[str], None]) -> None:
    """Serve the runs below `root` until interrupted; `say` prints a line.

    Raise RunError when there is no such folder, ConfigError when the address cannot be listened at.
    """
    if not config.token and not is_loopback(config.host):
        config = dataclasses.replace(config, token=secrets.token_urlsafe(24))
    app = build_app(root, config)
    listener = open_listener(config)
    say(f"{describe_address(config, listener.getsockname()[1])} shows the runs in {root}; stop with Ctrl+C")
    # Streams stay open as long as a page does: they must not hold up the end.
    settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, server_header=False)
    uvicorn.Server(settings).run(sockets=[listener])


def open_listener(config: ViewConfig) -> socket.socket:
    """Return a socket that listens; raise ConfigError when the port is taken or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port is {config.port}: is taken; choose another --port, or 0 for a free one") from error
        raise ConfigError(
            f"host {config.host} port {config.port}: cannot be listened at ({error.strerror}); choose another"
        ) from error


def describe_address(config: ViewConfig, port: int) -> str:
    """Return the address to open, with the access token when one is asked for."""
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(config.host, config.host)
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/" + (f"?token={config.token}" if config.token else "")
