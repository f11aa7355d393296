"""Many vLLM servers as one engine: each request goes to a server that is ready, and from a failing one to the next.

A server is ready once it is well, has every wanted policy, reports log-probabilities that the trainer can use and gives
single tokens in time. One that is slow, dead, failing or without the wanted policy is skipped from then on. It is
looked at until it is ready again, and given the policy that it lacks.
"""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from comity.config import RolloutConfig
from comity.engines.completions import fits
from comity.engines.local import LocalEngine, make_completion
from comity.engines.server import RequestRefused, Server, ServerFault
from comity.engines.standing import UNASKED, Standing, Tally, choose
from comity.engines.versions import PolicyVersion, leave_adapter
from comity.errors import ConfigError, ServersLost
from comity.types import Completion, Message, Request, Sampling

PROBES: tuple[tuple[Message, ...], ...] = tuple(
    ({"role": "user", "content": text},)
    for text in ("Name a thing you like.", "Write a random word.", "Begin a story.", "Pick a number.")
)
"""Prompts whose first token is seldom certain."""


class Fleet:
    """The servers of a run; `open` them for each step."""

    def __init__(
        self, settings: RolloutConfig, engine: LocalEngine, samplings: Sequence[Sampling], ready: int = 1
    ) -> None:
        """Take the addresses, the engine whose tokenizer is theirs, and how tokens will be drawn.

        `ready` servers are waited for when the fleet opens.
        """
        self.settings = settings
        self.engine = engine
        self.samplings = tuple(samplings)
        self.ready = min(ready, len(settings.servers))
        self._troubles = {address.rstrip("/"): UNASKED for address in settings.servers}
        # Several steps may be played at once, each in a thread with an event loop of its own.
        self._lock = threading.Lock()
        self._pushed: set[str] = set()
        self._in_use: Counter[str] = Counter()

    @asynccontextmanager
    async def open(self, versions: Sequence[PolicyVersion]) -> AsyncIterator["OpenFleet"]:
        """Give all servers the versions and ask them inside the context; those that nobody uses any more are forgotten.

        Raise ConfigError for servers that are unfit for training, and ServersLost when none is ready in time.
        """
        names = {version.name for version in versions if version.name}
        with self._lock:
            self._in_use.update(names)
            # A server that was ready for the last step is not yet for this one: it may lack the policy.
            standings = [
                Standing(address, was_skipped=trouble not in ("", UNASKED))
                for address, trouble in self._troubles.items()
            ]
        try:
            # Connections are bounded for each server by who takes from `OpenFleet`.
            key = os.environ.get("VLLM_API_KEY")
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as http:
                opened = OpenFleet(self, http, tuple(versions), standings)
                watchers = [asyncio.create_task(opened.watch(standing)) for standing in standings]
                try:
                    await opened.wait_until_ready()
                    yield opened
                finally:
                    for watcher in watchers:
                        watcher.cancel()
                    await asyncio.gather(*watchers, return_exceptions=True)
        finally:
            with self._lock:
                self._in_use.subtract(names)
                self._troubles.update({standing.address: standing.trouble for standing in standings})

    def take(self, model: PreTrainedModel, root: Path, version: int) -> PolicyVersion:
        """Take the policy as it is now: its adapter, in a folder below `root`, which servers are told when it opens."""
        return leave_adapter(model, root, version)

    def note_pushed(self, names: Iterable[str]) -> None:
        """Remember which adapters this run has given to servers."""
        with self._lock:
            self._pushed.update(names)

    def list_forgettable(self) -> set[str]:
        """Return the adapters of this run that no step uses now; those of other runs are not ours to unload."""
        with self._lock:
            return {name for name in self._pushed if not self._in_use[name]}


@dataclass
class OpenFleet:
    """Servers that can be asked, in the event loop that opened them."""

    fleet: Fleet
    http: aiohttp.ClientSession
    versions: tuple[PolicyVersion, ...]
    standings: list[Standing]
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        """Prepare what requests and watchers tell each other."""
        self._lock = asyncio.Lock()
        self._changed = asyncio.Condition(self._lock)
        """A server became ready or had to be skipped, or nothing goes on."""
        self._free = asyncio.Condition(self._lock)
        """A request may go to some server."""
        self._error: Exception | None = None
        self._bases: dict[str, str] = {}
        self._ready_at = time.monotonic()

    async def answer(self, request: Request, version: PolicyVersion) -> Completion:
        """Return the reply of one policy; it has `finish="error"` when every attempt failed."""
        engine = self.fleet.engine
        prompt = engine.encode_chat(request.messages)
        tried: list[Standing] = []
        while len(tried) < self.fleet.settings.attempts:
            self.tally.asked_again += bool(tried)
            standing = await self._take(prompt, tried)
            tried.append(standing)
            try:
                model = version.name or self._bases[standing.address]
                sampled = await self._server(standing).sample(
                    model, prompt, request.sampling, request.seed, engine.stop_ids
                )
            except ServerFault as fault:
                await self._skip(standing, fault)
            except RequestRefused:
                self.tally.refused += 1
                break
            else:
                return make_completion(
                    engine, prompt, sampled.token_ids.tolist(), sampled.logprobs.tolist(), version.number
                )
            finally:
                await self._give_back(standing)
        return Completion("", finish="error")

    def figures(self) -> dict[str, float]:
        """Return how many servers are ready now and what happened to them, as metrics."""
        return {"servers/ready": float(self._count_ready())} | {
            f"servers/{name}": float(value) for name, value in asdict(self.tally).items()
        }

    async def wait_until_ready(self) -> None:
        """Wait for as many servers as the fleet begins with."""
        begun = time.monotonic()
        async with self._lock:
            await self._changed.wait_for(lambda: self._error or self._count_ready() >= self.fleet.ready)
            if self._error:
                raise self._error
        self.tally.push_seconds = time.monotonic() - begun

    async def watch(self, standing: Standing) -> None:
        """Make a server ready, and again whenever it had to be skipped, until cancelled."""
        settings = self.fleet.settings
        while True:
            try:
                await self._admit(standing)
            except (ServerFault, RequestRefused) as fault:
                standing.trouble = f"{getattr(fault, 'trouble', 'failing')}: {fault}"
                await self._check_hope()
                await asyncio.sleep(settings.probe_seconds)
                continue
            except Exception as error:
                await self._end(error)  # else whoever waits for a server would wait for ever
                raise
            async with self._lock:
                self.tally.readmitted += standing.was_skipped
                standing.trouble, standing.was_skipped = "", False
                self._free.notify_all()
                self._changed.notify_all()
                await self._changed.wait_for(lambda: not standing.is_ready)
                standing.was_skipped = True

    async def _check_hope(self) -> None:
        # Told by the watcher of a server that is not ready.
        if self._count_ready():
            self._ready_at = time.monotonic()
        elif all(item.trouble.startswith("unfit") for item in self.standings):
            # Waiting does not mend how they were started.
            await self._end(ConfigError(f"rollouts.servers: {self._describe_troubles()}"))
        elif time.monotonic() - self._ready_at > self.fleet.settings.patience_seconds:
            await self._end(
                ServersLost(
                    f"rollouts.servers: none has been ready for {self.fleet.settings.patience_seconds:g} s "
                    f"({self._describe_troubles()}): start them again, and the run with --resume"
                )
            )

    async def _admit(self, standing: Standing) -> None:
        server = self._server(standing)
        await server.check_health()
        base, loaded = await server.read_models()
        self._bases[standing.address] = base
        wanted = {version.name: version for version in self.versions if version.name}
        for name in sorted(loaded & self.fleet.list_forgettable()):
            await server.unload_adapter(name)
        for name in sorted(wanted.keys() - loaded):
            await server.load_adapter(wanted[name])
        self.fleet.note_pushed(wanted)
        await self._check_logprobs(server, base)

    async def _check_logprobs(self, server: Server, base: str) -> None:
        for messages in PROBES:
            kind = await server.find_kind(base, self.fleet.engine.encode_chat(messages))
            if kind is None:
                continue
            if not fits(kind, self.fleet.samplings):
                raise ServerFault(
                    "unfit",
                    f"reports log-probabilities of another kind ({kind}) than the trainer computes: start it with "
                    "--logprobs-mode processed_logits --logits-processors and the two of comity.engines.vllm_logprobs",
                )
            return
        raise ServerFault("unfit", "is certain of every first token, so its log-probabilities cannot be checked")

    async def _take(self, prompt: NDArray[np.int32], tried: Sequence[Standing]) -> Standing:
        async with self._lock:
            while True:
                if self._error:
                    raise self._error
                chosen = choose(self.standings, self.fleet.settings.connections, prompt, tried)
                if chosen is not None:
                    chosen.under_way += 1
                    return chosen
                await self._free.wait()

    async def _give_back(self, standing: Standing) -> None:
        async with self._lock:
            standing.under_way -= 1
            self._free.notify()

    async def _skip(self, standing: Standing, fault: ServerFault) -> None:
        async with self._lock:
            self.tally.skipped += standing.is_ready  # several of its requests may fail at once
            self._ready_at = time.monotonic()
            standing.trouble = f"{fault.trouble}: {fault}"
            self._changed.notify_all()

    async def _end(self, error: Exception) -> None:
        async with self._lock:
            self._error = self._error or error
            self._free.notify_all()
            self._changed.notify_all()

    def _server(self, standing: Standing) -> Server:
        settings = self.fleet.settings
        return Server(standing.address, self.http, settings.timeout_seconds, settings.token_seconds)

    def _count_ready(self) -> int:
        return sum(standing.is_ready for standing in self.standings)

    def _describe_troubles(self) -> str:
        return "; ".join(f"{item.address} {item.trouble}" for item in self.standings)
