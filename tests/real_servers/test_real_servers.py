"""A real vLLM server: its log-probabilities are the trainer's, and policies are swapped while it runs.

Skipped without an environment for vLLM. `pytest tests/real_servers -s` prints what was measured.
"""

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from real_vllm import PATIENCE, require_modules, serve, start

from comity.config import ModelConfig, OptimizationConfig, RolloutConfig
from comity.engines.completions import fits
from comity.engines.fleet import Fleet
from comity.engines.local import LocalEngine
from comity.engines.merging import adapters_off
from comity.engines.models import load_tokenizer, resolve_model
from comity.engines.server import ServerFault
from comity.engines.versions import PolicyVersion, leave_adapter
from comity.errors import ConfigError
from comity.training.collate import make_micro_batches
from comity.training.policy import PolicyOptimizer, load_policy, token_logprobs
from comity.training.samples import make_sample
from comity.types import Request, Sampling

HOT, COLD, GREEDY = Sampling(0.7, 0.95, 16), Sampling(0.1, 0.95, 16), Sampling(0.0, 1.0, 16)
PROCESSORS = ("comity.engines.vllm_logprobs:NormaliseGreedy", "comity.engines.vllm_logprobs:NormaliseSampled")
TOLERANCE = 2e-3
"""Of a log-probability in float32: two libraries add in another order."""

pytestmark = pytest.mark.slow


def requests(sampling, count=4):
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


def difference(engine, completions, temperature):
    """Return how far the reported log-probabilities are from those of the policy as it is now, at most."""
    pairs = zip(completions, retold(engine, completions, temperature), strict=True)
    assert all(item.finish in ("stop", "length") for item in completions)
    return max(float(np.abs(item.logprobs - wanted).max()) for item, wanted in pairs)


async def ask(opened, version, asked):
    return await asyncio.gather(*(opened.answer(item, version) for item in asked))


async def ask_the_old_one(fleet, old, new):
    """Return the adapters that a server knows once it has the new one, and why the old one does not answer."""
    async with fleet.open([new]) as opened:
        server = opened._server(opened.standings[0])
        _, loaded = await server.read_models()
        prompt = fleet.engine.encode_chat(requests(HOT)[0].messages)
        with pytest.raises(ServerFault, match="does not exist") as fault:
            await server.sample(old.name, prompt, HOT, 0, fleet.engine.stop_ids)
        return loaded, fault.value.trouble


def test_a_server_reports_what_the_trainer_computes_and_swaps_policies(engine, tmp_path):
    folder, report = resolve_model("embedded"), {}
    options = (
        "--dtype", "float32", "--enforce-eager", "--enable-lora", "--max-loras", "2", "--max-lora-rank", "8",
        "--logprobs-mode", "processed_logits", "--logits-processors", *PROCESSORS,
    )  # fmt: skip
    begun = time.monotonic()
    with serve(tmp_path / "server.log", folder, *options) as address:
        report["start_seconds"] = time.monotonic() - begun
        fleet = Fleet(RolloutConfig(servers=(address,), **PATIENCE), engine, [HOT, COLD, GREEDY])

        async def play(version, asked):
            async with fleet.open([version, PolicyVersion(0)]) as opened:
                begun = time.monotonic()
                return await ask(opened, version, asked), opened.tally, time.monotonic() - begun

        replies, versions = {}, {}
        for number in (1, 2):
            shift_policy(engine, number)
            versions[number] = version = leave_adapter(engine.model, tmp_path, number)
            # All samplings in one batch, as those of policy and judges may be.
            told, tally, seconds = asyncio.run(play(version, [*requests(HOT), *requests(COLD), *requests(GREEDY)]))
            report[f"push_seconds {number}"] = tally.push_seconds
            report[f"tokens_per_second {number}"] = sum(len(reply.token_ids) for reply in told) / seconds
            assert {reply.policy_version for reply in told} == {number}
            parts = {"hot": (told[:4], 0.7), "cold": (told[4:8], 0.1), "greedy": (told[8:], 1.0)}
            largest = {name: difference(engine, part, heat) for name, (part, heat) in parts.items()}
            report[f"largest_difference {number}"] = largest
            print(json.dumps(report), flush=True)
            assert max(largest.values()) < TOLERANCE
            assert [reply.text for reply in told[8:]] == [item.text for item in engine(requests(GREEDY))]
            replies[number] = told[:4]
        # The comparison would notice the other policy.
        report["policy 1's words under policy 2"] = difference(engine, replies[1], 0.7)
        assert report["policy 1's words under policy 2"] > 100 * TOLERANCE
        assert [reply.text for reply in replies[1]] != [reply.text for reply in replies[2]]

        # The base model answers under its own name, the old policy no longer.
        base, _, _ = asyncio.run(play(PolicyVersion(0), requests(HOT)))
        with adapters_off(engine.model):
            assert difference(engine, base, 0.7) < TOLERANCE

        loaded, trouble = asyncio.run(ask_the_old_one(fleet, versions[1], version))
        assert (loaded, trouble) == ({version.name}, "behind")

        # A policy that was taken from the server behind our back is noticed and given to it again.
        async def take_away():
            async with fleet.open([version]) as opened:
                server = opened._server(opened.standings[0])
                await server.unload_adapter(version.name)
                return await ask(opened, version, requests(HOT)), opened.tally

        again, tally = asyncio.run(take_away())
        assert difference(engine, again, 0.7) < TOLERANCE
        assert [reply.text for reply in again] == [reply.text for reply in replies[2]]
        assert {reply.policy_version for reply in again} == {2}
        assert tally.readmitted >= 1
    print(json.dumps(report, indent=2))


def test_a_server_as_it_is_by_default_is_refused(engine, tmp_path):
    with serve(tmp_path / "server.log", resolve_model("embedded"), "--dtype", "float32", "--enforce-eager") as address:
        fleet = Fleet(RolloutConfig(servers=(address,), **PATIENCE), engine, [HOT])

        async def play():
            async with fleet.open([PolicyVersion(0)]):
                pass

        with pytest.raises(ConfigError, match=r"another kind \(raw\)"):
            asyncio.run(play())
    assert not fits("raw", [HOT])


@pytest.mark.parametrize("merges", ["merged", "adapters"])
def test_vllm_inside_a_process_reports_what_the_trainer_computes(merges, tmp_path):
    log, told = tmp_path / "process.log", tmp_path / "report.json"
    with start(log, str(Path(__file__).with_name("in_process.py")), merges, str(told)) as process:
        assert process.wait() == 0, "\n".join(log.read_text().splitlines()[-30:])
    report = json.loads(told.read_text())
    print("\n" + json.dumps(report, indent=2))
    assert max(report["largest_difference_1"], report["largest_difference_2"]) < TOLERANCE
    assert report["words_1_under_policy_2"] > 100 * TOLERANCE
    assert report["texts_differ"]
    assert report["versions"] == [1, 2]


@pytest.mark.parametrize("opponent", ["copy", "base"])
def test_vllm_inside_a_worker_of_ray_reports_what_the_trainer_computes(opponent, tmp_path):
    require_modules("ray", "scipy")
    log, told = tmp_path / "worker.log", tmp_path / "report.json"
    with start(log, str(Path(__file__).with_name("in_workers.py")), opponent, str(told)) as process:
        assert process.wait() == 0, "\n".join(log.read_text().splitlines()[-30:])
    report = json.loads(told.read_text())
    print("\n" + json.dumps(report, indent=2))
    assert max(value for name, value in report.items() if name.startswith("largest")) < TOLERANCE
    assert report["versions"] == [1, 2]
    assert report["texts_differ"]
    assert report.get("says_the_same_again", True)
