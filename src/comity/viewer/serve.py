"""Bind an address, build the application, serve until interrupted."""

import asyncio
import dataclasses
import errno
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from comity.errors import ConfigError
from comity.viewer.app import build_app
from comity.viewer.play import GameRoom
from comity.viewer.security import Guard, is_loopback
from comity.viewer.settings import ViewConfig

EXIT_LOOK_SECONDS = 0.2


def serve(root: Path, config: ViewConfig, say: Callable[[str], None]) -> None:
    """Serve the runs below `root` until interrupted; `say` prints a line.

    Raise RunError when there is no such folder, ConfigError when the address cannot be listened at.
    """
    config = secure_settings(config)
    games = GameRoom()
    app = build_app(root, config, games=games)
    with open_listener(config) as listener:
        say(f"{describe_address(config, listener.getsockname()[1])} shows the runs in {root}; stop with Ctrl+C")
        with suppress(KeyboardInterrupt):  # the way to end it, not an error
            asyncio.run(run_server(make_server(app), listener, games))


def secure_settings(config: ViewConfig) -> ViewConfig:
    """Return the settings with what an address that others can reach needs: an access token, and its own names."""
    if is_loopback(config.host):
        return config
    names = (*config.hosts, config.host, socket.gethostname())
    return dataclasses.replace(config, token=config.token or secrets.token_urlsafe(24), hosts=names)


def make_server(app: Guard) -> uvicorn.Server:
    """Return a server that says nothing but warnings."""
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, server_header=False))


async def run_server(server: uvicorn.Server, listener: socket.socket, games: GameRoom) -> None:
    """Serve until the server is told to exit, then end the streams of games, which would hold up the end."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.should_exit and not serving.done():
        await asyncio.sleep(EXIT_LOOK_SECONDS)
    games.close()
    await serving


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
