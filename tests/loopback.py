"""A real OpenAI-compatible HTTP server on 127.0.0.1 whose replies a test scripts.

    with serve(lambda call: "YES\\nboth accept") as server:
        server.point(monkeypatch)      # then openai-api/loopback/MODEL is asked here

The script gets a `Call` and returns the text of the reply or an `Act`; its `count` is how often this prompt came.
"""

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

MODEL = "openai-api/loopback/tiny"


@dataclass(frozen=True)
class Call:
    """One request as the server saw it."""

    prompt: str  # the contents of all messages, joined by newlines
    count: int  # 1 for the first time that this prompt comes
    body: dict


@dataclass(frozen=True)
class Act:
    """What the server does instead of sending a plain text.

    `status` sends an error; `hang` sends nothing until the client leaves or the server stops; `drop` resets the
    connection; `half` sends half a document and closes; `broken` sends what is no document.
    """

    kind: Literal["text", "status", "hang", "drop", "half", "broken"]
    text: str = ""
    status: int = 200
    finish: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[Call], str | Act]


@dataclass
class Loopback:
    """The running server: its address, and every call in the order of arrival."""

    url: str
    calls: list[Call]
    stopped: threading.Event
    most_at_once: int = 0

    def point(self, monkeypatch) -> None:
        """Let openai-api/loopback/... lead here for this test."""
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)

    def environment(self) -> dict[str, str]:
        """Return what a child process needs in its environment to find the server."""
        return {"LOOPBACK_BASE_URL": self.url, "LOOPBACK_API_KEY": "none", "NO_PROXY": "127.0.0.1"}

    def counts(self) -> Counter:
        """Return how often each prompt came."""
        return Counter(call.prompt for call in self.calls)


@contextmanager
def serve(script: Script) -> Iterator[Loopback]:
    """Run the server in a thread until the block ends."""
    loopback = Loopback("", [], threading.Event())
    lock = threading.Lock()
    now = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            nonlocal now
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = "\n".join(_text_of(message["content"]) for message in body["messages"])
            with lock:
                now += 1
                loopback.most_at_once = max(loopback.most_at_once, now)
                call = Call(prompt, sum(seen.prompt == prompt for seen in loopback.calls) + 1, body)
                loopback.calls.append(call)
            try:
                answer = script(call)
                _perform(self, Act("text", answer) if isinstance(answer, str) else answer, prompt, loopback)
            finally:
                with lock:
                    now -= 1

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # a client that left

    server = Server(("127.0.0.1", 0), Handler)
    loopback.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield loopback
    finally:
        loopback.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _text_of(content) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _perform(handler, act: Act, prompt: str, loopback: Loopback) -> None:
    if act.kind == "hang":
        loopback.stopped.wait()
        handler.close_connection = True
        return
    if act.kind == "drop":
        # Lingering for no time turns the close into a reset.
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()
        return
    if act.kind == "status":
        document = {"error": {"message": act.text or "scripted", "type": "scripted", "code": str(act.status)}}
    else:
        document = _completion(prompt, act)
    data = json.dumps(document).encode()
    length = len(data)
    if act.kind == "half":
        data = data[: length // 2]
        handler.close_connection = True
    elif act.kind == "broken":
        data = b"<html>not a document" + b" " * 20
        length = len(data)
    handler.send_response(act.status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(length), **act.headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def _completion(prompt: str, act: Act) -> dict:
    # Words stand for tokens, so that a test can count them by hand.
    used, made = len(prompt.split()), len(act.text.split())
    return {
        "id": "loopback",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": act.text}, "finish_reason": act.finish}],
        "usage": {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made},
    }
