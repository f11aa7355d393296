"""What `comity.engines.vllm` needs of `vllm.LLM`, around the tiny model: vLLM itself is not installed for tests.

Each request is sampled alone, as by the server of `serving.py`, so that both can be held against each other.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from comity.engines.generate import generate
from comity.engines.models import load_model, load_tokenizer
from comity.training.policy import attach_adapter
from comity.types import Request, Sampling


@dataclass
class SamplingParams:
    """The settings of one request, under vLLM's names."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop_token_ids: list[int]
    logprobs: int
    detokenize: bool


@dataclass
class LoRARequest:
    """An adapter beside the base, under vLLM's names."""

    lora_name: str
    lora_int_id: int
    lora_path: str


class VLLMClientError(Exception):
    """What vLLM raises for a request that it does not take."""


def install(monkeypatch, has_exceptions=True):
    """Let `import vllm` find these classes; older releases have no exceptions of their own."""
    found = {
        "vllm": {"SamplingParams": SamplingParams, "LLM": open_tiny},
        "vllm.exceptions": {"VLLMClientError": VLLMClientError},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.v1": {},
        "vllm.v1.sample": {},
        "vllm.v1.sample.logits_processor": {"LogitsProcessor": object},
    }
    for name, content in found.items():
        module = ModuleType(name)
        vars(module).update(content)
        absent = name == "vllm.exceptions" and not has_exceptions
        monkeypatch.setitem(sys.modules, name, None if absent else module)


def open_tiny(model, **options):
    """Return what `vllm.LLM` would; it takes adapters only where that was asked for."""
    return TinyVllm(model, takes_adapters=options.get("enable_lora", False))


class TinyVllm:
    """An engine that writes one reply a step and refuses prompts of `context` tokens or more, as vLLM does."""

    def __init__(self, folder, context=4096, refusal=VLLMClientError, takes_adapters=False):
        self.folder, self.context, self.refusal, self.takes_adapters = str(folder), context, refusal, takes_adapters
        self.model, self.tokenizer = load_model(self.folder, "float32", "cpu"), load_tokenizer(self.folder)
        self.waiting, self.adapted = {}, {}
        self.llm_engine = self
        self.emptied = 0
        self.fault = None

    def collective_rpc(self, method, kwargs):
        """Take new weights, under the names of the checkpoint and no others."""
        assert method == "reload_weights"
        self.model = load_model(self.folder, "float32", "cpu")
        missing, unexpected = self.model.load_state_dict(dict(kwargs["weights_iterator"]), strict=False)
        assert unexpected == []
        assert set(missing) <= {"lm_head.weight"}  # tied to the embeddings

    def reset_prefix_cache(self):
        """Note it."""
        self.emptied += 1

    def add_request(self, name, prompt, params, lora_request=None):
        """Queue a request; raise for a prompt that is too long."""
        assert lora_request is None or self.takes_adapters
        ids = prompt["prompt_token_ids"]
        if len(ids) >= self.context:
            raise self.refusal(f"The decoder prompt (length {len(ids)}) is longer than the maximum model length")
        self.waiting[name] = (ids, params, self.find_model(lora_request))

    def find_model(self, lora):
        """Return the model with an adapter beside it, which is read from its folder the first time only."""
        if lora is None:
            return self.model
        if lora.lora_int_id not in self.adapted:
            base = load_model(self.folder, "float32", "cpu")
            self.adapted[lora.lora_int_id] = attach_adapter(base, Path(lora.lora_path))
        return self.adapted[lora.lora_int_id]

    def abort_request(self, names):
        """Forget requests."""
        for name in names:
            del self.waiting[name]

    def step(self):
        """Write the reply that waits longest."""
        if self.fault is not None:
            raise self.fault
        name, (ids, params, model) = next(iter(self.waiting.items()))
        del self.waiting[name]
        request = Request("text", (), Sampling(params.temperature, params.top_p, params.max_tokens), params.seed)
        stops = frozenset(params.stop_token_ids)
        ((tokens, logprobs),) = generate(
            model, [np.asarray(ids, np.int32)], [request], self.tokenizer.pad_token_id, stops
        )
        told = [{token: SimpleNamespace(logprob=value)} for token, value in zip(tokens, logprobs, strict=True)]
        reply = SimpleNamespace(token_ids=tokens, logprobs=told)
        return [SimpleNamespace(request_id=name, finished=True, outputs=[reply])]
