"""A real vLLM server: its log-probabilities are the trainer's, and policies are swapped while it runs.

Skipped without an environment for vLLM. `pytest tests/real_servers -s` prints what was measured.
"""

import asyncio
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from real_vllm import environment, find_python, serve

from comity.config import ModelConfig, OptimizationConfig, RolloutConfig
from comity.engines.completions import fits
from comity.engines.fleet import Fleet
from comity.engines.local import LocalEngine
from comity.engines.merging import adapters_off
from comity.engines.models import load_tokenizer, resolve_model
from comity.engines.versions import PolicyVersion, leave_adapter
from comity.errors import ConfigError
from comity.training.collate import make_micro_batches
from comity.training.policy import PolicyOptimizer, load_policy, token_logprobs
from comity.training.samples import make_sample
from comity.types import Request, Sampling

HOT, COLD, GREEDY = Sampling(0.7, 0.95, 24), Sampling(0.1, 0.95, 24), Sampling(0.0, 1.0, 24)
PROCESSORS = ("comity.engines.vllm_logprobs:NormaliseGreedy", "comity.engines.vllm_logprobs:NormaliseSampled")
TOLERANCE = 2e-3
"""Of a log-probability in float32: two libraries add in another order."""

pytestmark = pytest.mark.slow


def requests(sampling, count=8):
    texts = [f"Two neighbours share {number + 2} fields and one well. Who draws first?" for number in range(count)]
    return [Request("seat_0", ({"role": "user", "content": text},), sampling, seed) for seed, text in enumerate(texts)]


@pytest.fixture(scope="module")
def engine():
    """Return the embedded model in float32 with a fresh adapter that changes nothing yet."""
    model = load_policy(ModelConfig(dtype="float32", device="cpu", lora_rank=8))
    return LocalEngine(model, load_tokenizer("embedded"))


def shift_policy(engine, seed):
    """Change the adapter so that the policy speaks otherwise."""
    optimizer = PolicyOptimizer.create(engine.model, OptimizationConfig())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in optimizer.parameters.items():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def retold(engine, completions, temperature):
    """Return the trainer's log-probabilities of what was sampled."""
    samples = [make_sample(item, 0.0, temperature) for item in completions]
    found = {}
    for batch in make_micro_batches(samples, 4096, engine.tokenizer.pad_token_id):
        with torch.no_grad():
            logprobs_N = token_logprobs(engine.model, batch)[0].numpy()
        rows = batch.loss_row_N.numpy()
        found |= {sample: logprobs_N[rows == row] for row, sample in enumerate(batch.samples_B)}
    return [found[place] for place in range(len(samples))]


def assert_told_alike(engine, completions, temperature):
    largest = 0.0
    for item, wanted in zip(completions, retold(engine, completions, temperature), strict=True):
        assert item.finish in ("stop", "length")
        largest = max(largest, float(np.abs(item.logprobs - wanted).max()))
    assert largest < TOLERANCE
    return largest


async def ask(opened, version, sampling):
    return await asyncio.gather(*(opened.answer(item, version) for item in requests(sampling)))


def test_a_server_reports_what_the_trainer_computes_and_swaps_policies(engine, tmp_path):
    folder, report = resolve_model("embedded"), {}
    options = (
        "--dtype", "float32", "--enforce-eager", "--enable-lora", "--max-loras", "2", "--max-lora-rank", "8",
        "--logprobs-mode", "processed_logits", "--logits-processors", *PROCESSORS,
    )  # fmt: skip
    begun = time.monotonic()
    with serve(folder, *options) as address:
        report["start_seconds"] = time.monotonic() - begun
        settings = RolloutConfig(servers=(address,), token_seconds=60)
        fleet = Fleet(settings, engine, [HOT, COLD, GREEDY])

        async def play(version, sampling):
            async with fleet.open([version, PolicyVersion(0)]) as opened:
                begun = time.monotonic()
                return await ask(opened, version, sampling), opened.tally, time.monotonic() - begun

        texts = {}
        for number in (1, 2):
            shift_policy(engine, number)
            version = leave_adapter(engine.model, tmp_path, number)
            for sampling, heat in ((HOT, 0.7), (COLD, 0.1), (GREEDY, 1.0)):
                replies, tally, seconds = asyncio.run(play(version, sampling))
                report[f"largest difference, policy {number}, temperature {sampling.temperature}"] = assert_told_alike(
                    engine, replies, heat
                )
                assert {reply.policy_version for reply in replies} == {number}
                if sampling is HOT:
                    texts[number] = [reply.text for reply in replies]
                    report[f"push_seconds {number}"] = tally.push_seconds
                    report[f"tokens_per_second {number}"] = sum(len(r.token_ids) for r in replies) / seconds
                if sampling is GREEDY:
                    assert [reply.text for reply in replies] == [item.text for item in engine(requests(GREEDY))]
        assert texts[1] != texts[2]

        # The base model answers under its own name, and a policy that was taken from the server behind our back is
        # noticed and given to it again.
        base, _, _ = asyncio.run(play(PolicyVersion(0), HOT))
        with adapters_off(engine.model):
            assert_told_alike(engine, base, 0.7)

        async def take_away():
            async with fleet.open([version]) as opened:
                server = opened._server(opened.standings[0])
                await server.unload_adapter(version.name)
                replies = await ask(opened, version, HOT)
                return replies, opened.tally

        replies, tally = asyncio.run(take_away())
        assert [reply.text for reply in replies] == texts[2]
        assert tally.readmitted >= 1
    print("\n" + json.dumps(report, indent=2))


def test_a_server_as_it_is_by_default_is_refused(engine):
    with serve(resolve_model("embedded"), "--dtype", "float32", "--enforce-eager") as address:
        fleet = Fleet(RolloutConfig(servers=(address,), token_seconds=60), engine, [HOT])

        async def play():
            async with fleet.open([PolicyVersion(0)]):
                pass

        with pytest.raises(ConfigError, match=r"another kind \(raw\)"):
            asyncio.run(play())
    assert not fits("raw", [HOT])


@pytest.mark.parametrize("merges", ["merged", "adapters"])
def test_vllm_inside_a_process_reports_what_the_trainer_computes(merges):
    script = Path(__file__).with_name("in_process.py")
    done = subprocess.run(
        [str(find_python()), str(script), merges], env=environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.strip().splitlines()[-1])
    print("\n" + json.dumps(report, indent=2))
    assert report["largest_difference"] < TOLERANCE
    assert report["texts_differ"]
    assert report["versions"] == [1, 2]
