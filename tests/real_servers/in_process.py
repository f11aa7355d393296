"""`python in_process.py merged|adapters REPORT`: two policies in vLLM inside this process; leaves a file of JSON.

It runs in vLLM's environment, which has neither pytest nor the packages of judges.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from comity.config import ModelConfig
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.engines.versions import PolicyVersion
from comity.engines.vllm import load_vllm
from comity.types import Request, Sampling

HOT = Sampling(0.7, 0.95, 24)
ASKED = [
    Request("seat_0", ({"role": "user", "content": f"Who may use {number + 2} wells first?"},), HOT, number)
    for number in range(8)
]


def shift(model, seed):
    """Change the adapter so that the policy speaks otherwise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def largest_difference(model, replies):
    """Return how far the reported log-probabilities are from those of a plain forward pass."""
    largest = 0.0
    for reply in replies:
        ids = torch.tensor([[*reply.prompt_ids.tolist(), *reply.token_ids.tolist()]])
        with torch.inference_mode():
            logits_TV = model(ids).logits[0, len(reply.prompt_ids) - 1 : -1] / HOT.temperature
        told = logits_TV.log_softmax(-1).gather(1, ids[0, len(reply.prompt_ids) :, None])[:, 0]
        largest = max(largest, float((told - torch.tensor(reply.logprobs)).abs().max()))
    return largest


def main(merges):
    """Write with two policies, one after the other; return what was measured."""
    settings = ModelConfig(dtype="float32", device="cpu", lora_rank=8)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(settings.name, settings.dtype), lora, autocast_adapter_dtype=False).eval()
    engine = LocalEngine(model, load_tokenizer(settings.name))
    begun = time.monotonic()
    host = load_vllm(settings, engine, merges, 16, 0.4, 8)
    report = {"load_seconds": time.monotonic() - begun, "versions": []}
    written = []

    async def play(version: PolicyVersion):
        async with host.open([version]) as opened:
            return await asyncio.gather(*(opened.answer(item, version) for item in ASKED))

    with tempfile.TemporaryDirectory() as folder:
        for number in (1, 2):
            shift(model, number)
            begun = time.monotonic()
            version = host.take(model, Path(folder), number)
            report[f"push_seconds_{number}"] = time.monotonic() - begun
            begun = time.monotonic()
            replies = asyncio.run(play(version))
            tokens = sum(len(reply.token_ids) for reply in replies)
            report[f"tokens_per_second_{number}"] = tokens / (time.monotonic() - begun)
            report[f"largest_difference_{number}"] = largest_difference(model, replies)
            report["versions"] += sorted({reply.policy_version for reply in replies})
            written.append(replies)
            print(json.dumps(report), flush=True)  # into the log, should it end early
    report["words_1_under_policy_2"] = largest_difference(model, written[0])
    report["texts_differ"] = [reply.text for reply in written[0]] != [reply.text for reply in written[1]]
    return report


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(sys.argv[1] == "merged")))
