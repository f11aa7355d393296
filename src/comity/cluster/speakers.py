"""What a rollout worker speaks with: the transformers engine or vLLM, with a policy that can be replaced."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from comity.config import TrainConfig
from comity.engines.local import LocalEngine
from comity.engines.merging import adapters_off
from comity.engines.models import load_tokenizer
from comity.engines.versions import PolicyVersion
from comity.training.policy import load_policy, trainable_parameters
from comity.training.serving import forget_adapters, load_vllm_host
from comity.types import Completion, Request


class PolicyEngine(Protocol):
    """An engine whose adapter can be replaced: what a rollout worker holds."""

    def install(self, weights: Mapping[str, Tensor] | None, version: int) -> None:
        """Speak with this adapter from now on, without any for None; stamp completions with the version."""

    def __call__(self, requests: Sequence[Request], /) -> Sequence[Completion]:
        """Return one completion a request, in order."""


class LocalPolicy:
    """The local transformers engine with an adapter that can be replaced."""

    def __init__(self, config: TrainConfig) -> None:
        self.engine, self.parameters = _load_engine(config)
        self.has_adapter = True

    def install(self, weights: Mapping[str, Tensor] | None, version: int) -> None:
        """Speak with this adapter from now on, without any for None; stamp completions with the version."""
        _replace(self.parameters, weights or {})
        self.has_adapter, self.engine.policy_version = weights is not None, version

    def __call__(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one completion a request, in order."""
        if self.has_adapter:
            return self.engine(requests)
        with adapters_off(self.engine.model):
            return self.engine(requests)


class VllmPolicy:
    """vLLM in the worker's process; its policies go by way of a model of transformers on the CPU.

    That model folds a policy into the base, where one policy speaks in both seats. Where two do, each is an adapter
    that vLLM reads from a temporary folder and keeps while the other one speaks.
    """

    def __init__(self, config: TrainConfig) -> None:
        on_cpu = replace(config, model=replace(config.model, device="cpu"))
        engine, self.parameters = _load_engine(on_cpu)
        self.host = load_vllm_host(config, engine)
        self.folder = tempfile.TemporaryDirectory(prefix="comity-adapters-", ignore_cleanup_errors=True)
        self.known: list[PolicyVersion] = []

    def install(self, weights: Mapping[str, Tensor] | None, version: int) -> None:
        """Speak with this adapter from now on, without any for None; stamp completions with the version."""
        spoken = PolicyVersion(version)
        if weights is not None:
            _replace(self.parameters, weights)
            spoken = self.host.take(self.host.engine.model, Path(self.folder.name), version)
        # The other policy of a step comes back at the next turn.
        self.known = [*(item for item in self.known if item != spoken), spoken][-2:]

    def __call__(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one completion a request, in order."""
        return asyncio.run(self._answer(requests))

    async def _answer(self, requests: Sequence[Request]) -> list[Completion]:
        async with self.host.open(self.known) as opened:
            forget_adapters(Path(self.folder.name), self.host.list_forgettable())
            return list(await asyncio.gather(*(opened.answer(request, self.known[-1]) for request in requests)))


def open_policy(config: TrainConfig) -> PolicyEngine:
    """Load what the setting `rollouts.engine` names; raise ModelError when it cannot be loaded."""
    return VllmPolicy(config) if config.rollouts.engine == "vllm" else LocalPolicy(config)


def _load_engine(config: TrainConfig) -> tuple[LocalEngine, dict[str, torch.nn.Parameter]]:
    model = load_policy(config.model)
    engine = LocalEngine(model, load_tokenizer(config.model.name), config.model.thinking)
    return engine, trainable_parameters(model)


@torch.no_grad()
def _replace(parameters: Mapping[str, torch.nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        parameters[name].copy_(tensor)
