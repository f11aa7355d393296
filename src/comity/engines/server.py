"""One vLLM server: its routes as functions, and whatever goes wrong there as a `ServerFault`."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import numpy as np
from numpy.typing import NDArray

from comity.engines.completions import (
    PROBE_SAMPLINGS,
    Kind,
    MalformedReply,
    OtherModel,
    Sampled,
    find_kind,
    read_likeliest,
    read_reply,
    write_request,
)
from comity.engines.versions import PolicyVersion
from comity.types import Sampling

Trouble = Literal["slow", "dead", "failing", "behind", "malformed", "unfit"]
"""Too late; no connection; an error of its own; without the wanted policy; no proper reply; unfit for training."""
Limit = Literal["timeout_seconds", "token_seconds"]
"""The settings of how long a call may take."""


class ServerFault(Exception):
    """A server did not do what was asked, where another one may."""

    def __init__(self, trouble: Trouble, words: str) -> None:
        """Say what kind of trouble it is, and in a few words which."""
        super().__init__(words)
        self.trouble = trouble


class RequestRefused(Exception):
    """A server refused a request that every server would refuse."""


@dataclass(frozen=True)
class Server:
    """A server at an address; use it from the event loop of its connections."""

    address: str
    http: aiohttp.ClientSession
    timeout_seconds: float
    token_seconds: float

    async def sample(
        self, model: str, prompt: NDArray[np.int32], sampling: Sampling, seed: int, stop_ids: frozenset[int]
    ) -> Sampled:
        """Return one reply of a model; raise RequestRefused for a prompt that is too long, ServerFault otherwise."""
        body = write_request(model, prompt, sampling, seed, stop_ids)
        document = _read_json(await self._call("POST", "/v1/completions", body, "timeout_seconds"))
        try:
            return read_reply(document, model, prompt)
        except OtherModel as error:
            raise ServerFault("behind", str(error)) from error
        except MalformedReply as error:
            raise ServerFault("malformed", str(error)) from error

    async def check_health(self) -> None:
        """Raise ServerFault unless the server says in time that it is well."""
        await self._call("GET", "/health", None, "token_seconds")

    async def read_models(self) -> tuple[str, frozenset[str]]:
        """Return the name of the base model, and those of the adapters that are loaded."""
        document = _read_json(await self._call("GET", "/v1/models", None, "token_seconds"))
        try:
            parents = {card["id"]: card.get("parent") for card in document["data"]}
            base = next(name for name, parent in parents.items() if parent is None)
        except (KeyError, TypeError, AttributeError, StopIteration) as error:
            raise ServerFault("malformed", "lists no base model") from error
        return base, frozenset(parents) - {base}

    async def load_adapter(self, version: PolicyVersion) -> None:
        """Load an adapter from its folder."""
        body = {"lora_name": version.name, "lora_path": str(version.folder)}
        try:
            await self._call("POST", "/v1/load_lora_adapter", body, "timeout_seconds")
        except RequestRefused as error:
            # Another process of the run may have loaded the same bytes in the meantime.
            if version.name not in (await self.read_models())[1]:
                raise ServerFault("behind", f"does not load adapters ({error})") from error

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; one that is not there is none to forget."""
        try:
            await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name}, "timeout_seconds")
        except RequestRefused:
            pass
        except ServerFault as fault:
            if fault.trouble != "behind":
                raise

    async def find_kind(self, model: str, prompt: NDArray[np.int32]) -> Kind | None:
        """Return which log-probabilities the server reports, None when the model is too certain of its first token."""
        found = []
        for sampling in PROBE_SAMPLINGS:
            body = write_request(model, prompt, sampling, 0, frozenset()) | {"logprobs": 2}
            document = _read_json(await self._call("POST", "/v1/completions", body, "token_seconds"))
            try:
                found.append(read_likeliest(document))
            except MalformedReply as error:
                raise ServerFault("malformed", str(error)) from error
        plain, heated, cut = found
        return find_kind(plain, heated, cut)

    async def _call(self, method: str, route: str, body: dict[str, Any] | None, limit: Limit) -> bytes:
        seconds = self.timeout_seconds if limit == "timeout_seconds" else self.token_seconds
        try:
            timeout = aiohttp.ClientTimeout(total=seconds)
            async with self.http.request(method, self.address + route, json=body, timeout=timeout) as reply:
                status, content = reply.status, await reply.read()
        except TimeoutError as error:
            raise ServerFault("slow", f"{route} took longer than rollouts.{limit} ({seconds:g} s)") from error
        except aiohttp.ClientError as error:
            raise ServerFault("dead", f"{route}: {type(error).__name__}") from error
        if status == 200:
            return content
        words = f"{route}: http {status} {_read_message(content)}".strip()
        if status == 404:
            raise ServerFault("behind", words)
        if status in (400, 413, 422):
            raise RequestRefused(words)
        raise ServerFault("failing", words)


def _read_json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ServerFault("malformed", "sent no document") from error


def _read_message(content: bytes) -> str:
    try:
        document = json.loads(content)
        error = document.get("error", document)
        return " ".join(str(error["message"] if isinstance(error, dict) else error).split())[:200]
    except (ValueError, KeyError, AttributeError):
        return ""
