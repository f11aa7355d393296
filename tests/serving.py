"""A real HTTP server on 127.0.0.1 that speaks vLLM's routes and samples the tiny model, with faults on command.

    with serve_tiny(folder) as server:
        server.fail("hang")          # from now on no reply comes, until server.mend()

Each request is sampled alone, so a reply depends on the request and the weights and on nothing else.
"""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import numpy as np
import torch
from peft import PeftModel

from comity.engines.generate import generate
from comity.engines.merging import adapters_off
from comity.engines.models import load_model, load_tokenizer
from comity.types import Request, Sampling

BASE = "served-base"
Fault = Literal["", "hang", "drop", "status", "refuse", "broken", "other model", "amnesia"]
"""`hang` sends nothing to completions, `drop` resets every connection, `status` sends 500 to completions, `refuse` 400,
`broken` sends what is no document, `other model` answers under another name, `amnesia` forgets all adapters first, as a
restart does."""


@dataclass
class TinyServer:
    """The running server and what it was asked."""

    url: str = ""
    kind: str = "whole"  # the log-probabilities that it reports, see comity.engines.completions.Kind
    fault: Fault = ""
    adapters: list[str] = field(default_factory=list)
    completions: list[dict] = field(default_factory=list)  # bodies of requests for more than one token
    loads: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    mended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # Called with this server before each completion of more than one token; may return a fault for this one alone.
    on_completion: Callable[["TinyServer"], Fault | None] | None = None
    most_at_once: int = 0
    context: int = 1_000_000  # prompts of so many tokens or more are refused

    def fail(self, fault: Fault) -> None:
        self.mended.clear()
        self.fault = fault

    def mend(self) -> None:
        self.fault = ""
        self.mended.set()


class Policy:
    """The tiny model with any number of adapters."""

    def __init__(self, folder):
        self.tokenizer = load_tokenizer(str(folder))
        self.model = load_model(str(folder), "float32", "cpu")

    def load(self, name, path):
        options = {"adapter_name": name, "autocast_adapter_dtype": False}
        if isinstance(self.model, PeftModel):
            if name not in self.model.peft_config:  # what vLLM unloads by name stays cached too
                self.model.load_adapter(path, **options)
        else:
            self.model = PeftModel.from_pretrained(self.model, path, **options).eval()

    def sample(self, name, body):
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"])
        prompt = np.asarray(body["prompt"], np.int32)
        request = Request("text", (), sampling, body["seed"])
        pad, stops = self.tokenizer.pad_token_id, frozenset(body["stop_token_ids"])
        with self._speaking(name):
            ((tokens, logprobs),) = generate(self.model, [prompt], [request], pad, stops)
        return tokens, logprobs

    def first_logits(self, name, prompt):
        with torch.inference_mode(), self._speaking(name):
            return self.model(torch.tensor([prompt])).logits[0, -1].float()

    @contextmanager
    def _speaking(self, name):
        if name == BASE:
            with adapters_off(self.model):
                yield
        else:
            self.model.set_adapter(name, inference_mode=True)
            yield


@contextmanager
def serve_tiny(folder, port: int = 0, **settings) -> Iterator[TinyServer]:
    """Run a server of the model in a folder until the block ends."""
    server, policy = TinyServer(**settings), Policy(folder)
    now = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.must_drop():
                return
            if self.path == "/health":
                self.send(200, b"")
            elif self.path == "/v1/models":
                cards = [{"id": BASE, "parent": None}, *({"id": name, "parent": BASE} for name in server.adapters)]
                self.send_json(200, {"object": "list", "data": cards})
            else:
                self.send_error_document(404, "Not Found")

        def do_POST(self):
            nonlocal now
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.must_drop():
                return
            with server.lock:
                now += 1
                server.most_at_once = max(server.most_at_once, now)
            try:
                {
                    "/v1/completions": self.complete,
                    "/v1/load_lora_adapter": self.load,
                    "/v1/unload_lora_adapter": self.unload,
                }[self.path](body)
            finally:
                with server.lock:
                    now -= 1

        def load(self, body):
            with server.lock:
                if body["lora_name"] in server.adapters:
                    return self.send_error_document(
                        400, f"The lora adapter {body['lora_name']} has already been loaded"
                    )
                policy.load(body["lora_name"], body["lora_path"])
                server.adapters.append(body["lora_name"])
                server.loads.append(body["lora_name"])
            return self.send(200, b"Success: LoRA adapter added successfully.")

        def unload(self, body):
            with server.lock:
                if body["lora_name"] not in server.adapters:
                    return self.send_error_document(404, "The lora adapter cannot be found")
                server.adapters.remove(body["lora_name"])
            return self.send(200, b"Success: LoRA adapter removed successfully.")

        def complete(self, body):
            fault = None
            if body["max_tokens"] > 1:
                server.completions.append(body)
                fault = server.on_completion(server) if server.on_completion else None
            fault = fault or server.fault or ("refuse" if len(body["prompt"]) >= server.context else "")
            if fault == "hang":
                while not (server.stopped.wait(0.01) or server.mended.is_set()):
                    pass
                self.close_connection = True
                return None
            if self.must_drop():
                return None
            if fault == "refuse":
                return self.send_error_document(400, "This model's maximum context length is 2048 tokens")
            if fault == "status":
                return self.send_error_document(500, "EngineDeadError")
            if fault == "broken":
                return self.send(200, b"<html>not a document")
            with server.lock:
                if fault == "amnesia":
                    server.adapters.clear()
                name = body["model"]
                if name != BASE and name not in server.adapters:
                    return self.send_error_document(404, f"The model `{name}` does not exist.")
                choice = self.sample(name, body)
            return self.send_json(200, {
                "object": "text_completion", "model": "another" if fault == "other model" else name,
                "choices": [choice],
            })  # fmt: skip

        def sample(self, name, body):
            tokens, logprobs = policy.sample(name, body)
            choice = {"index": 0, "token_ids": tokens, "prompt_token_ids": body["prompt"], "finish_reason": "length"}
            choice["logprobs"] = {"token_logprobs": logprobs}
            if body["logprobs"]:
                values = first_values(policy.first_logits(name, body["prompt"]), body, server.kind)
                top = values.topk(body["logprobs"])
                named = zip(top.indices.tolist(), top.values.clamp(min=-9999.0).tolist(), strict=True)
                choice["logprobs"]["top_logprobs"] = [{f"token_id:{token}": value for token, value in named}]
            return choice

        def must_drop(self):
            dead = server.fault == "drop" or server.stopped.is_set()
            if dead:
                # Lingering for no time turns the close into a reset.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
            return dead

        def send_error_document(self, status, message):
            return self.send_json(status, {"error": {"message": message, "type": "scripted", "code": status}})

        def send_json(self, status, document):
            return self.send(status, json.dumps(document).encode())

        def send(self, status, content):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # a client that left

    http = Quiet(("127.0.0.1", port), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        http.shutdown()
        thread.join()
        http.server_close()


def first_values(logits_V, body, kind):
    """Return what vLLM reports at the first place in each of its modes, and with our processors (`whole`)."""
    heated_V = logits_V / (body["temperature"] or 1.0)
    if kind == "raw":
        return logits_V.log_softmax(-1)
    if kind == "whole":
        return heated_V.log_softmax(-1)
    values, order = heated_V.softmax(-1).sort(descending=True)
    outside = order[values.cumsum(-1) - values >= body["top_p"]]
    cut_V = heated_V.index_fill(0, outside, float("-inf"))
    return cut_V.log_softmax(-1) if kind == "nucleus" else cut_V
