"""Seconds by hand."""

from dataclasses import replace

import pytest

from comity.config import ClusterConfig, ModelConfig, OptimizationConfig, RolloutConfig, TrainConfig
from comity.plan.architectures import SHIPPED, Architecture
from comity.plan.devices import Device, find_device
from comity.plan.speed import decode_seconds, decode_step_seconds, estimate_seconds, prefill_flops, update_flops
from comity.plan.workload import Reply, Workload, mean_workload

SMALL = Architecture(2, 8, 12, 2, 1, 4, 10, tied=True)
"""960 weights in linear maps, an output layer of 80."""
REPLY = Reply("seat_0", 30, 20, 10, 10)


def config(**optimization):
    settings = OptimizationConfig(scenarios_per_step=2, group_size=4, micro_batch_tokens=100, **optimization)
    return TrainConfig(model=ModelConfig(dtype="float32", lora_rank=2), optimization=settings)


def test_operations_of_prompts():
    # 8 rows of 2 groups: 8 x 10 own and 2 x 20 shared tokens = 120, each 2 x 960 for the weights and
    # 4 x 2 layers x 8 x 30 / 2 = 960 for attention; 2 x 8 x 80 for the output layer.
    assert prefill_flops(SMALL, REPLY, 8, 4) == 120 * (1920 + 960) + 1280


def test_a_new_token_is_bound_by_traffic_or_by_arithmetic():
    # Traffic: 1,040 weights of 4 bytes; 8 rows x 35 tokens of context x 2 x 2 layers x (1 + 2 x 2) heads x 4 x 4 bytes.
    traffic = 1040 * 4 + 8 * 35 * 2 * 2 * 5 * 4 * 4
    slow_memory = Device("m", 1, 1e-3, 1e-6, 1.0, 1.0, 0.0)
    assert decode_step_seconds(SMALL, config(), REPLY, 8, slow_memory) == pytest.approx(traffic / 1e3)
    # Our own code for a Llama on the CPU repeats no keys: (1 + 0) heads in place of (1 + 2 x 2).
    ours = decode_step_seconds(replace(SMALL, llama=True), config(), REPLY, 8, replace(slow_memory, is_cpu=True))
    assert ours == pytest.approx((1040 * 4 + 8 * 35 * 2 * 2 * 1 * 4 * 4) / 1e3)
    # Arithmetic: 2 x 8 rows x 1,040 at 1e6 a second; starting the kernels of 2 layers adds 2 x 0.5.
    slow_products = Device("p", 1, 1e-6, 1e6, 1.0, 1.0, 0.5)
    assert decode_step_seconds(SMALL, config(), REPLY, 8, slow_products) == pytest.approx(2 * 8 * 1040 / 1e6 + 1.0)


def test_a_batch_lasts_until_its_longest_reply_has_ended():
    # 8 rows of 10 tokens on average and 25 at most: 25 steps of 8 x 10 / 25 = 3.2 rows, each at place 30 + 10 / 2.
    # Traffic of a step: 1,040 weights of 4 bytes; 3.2 x 35 tokens x 2 x 2 layers x (1 + 2 x 2) heads x 4 x 4 bytes.
    reply, slow_memory = replace(REPLY, longest_tokens=25), Device("m", 1, 1e-3, 1e-6, 1.0, 1.0, 0.0)
    step = (1040 * 4 + 3.2 * 35 * 2 * 2 * 5 * 4 * 4) / 1e3
    assert decode_seconds(SMALL, config(), reply, 8, slow_memory) == pytest.approx(25 * step)
    # Bound by arithmetic it takes what the tokens take, however they are spread: 2 x 80 tokens x 1,040 at 1e6 a second.
    slow_products = Device("p", 1, 1e-6, 1e6, 1.0, 1.0, 0.0)
    assert decode_seconds(SMALL, config(), reply, 8, slow_products) == pytest.approx(2 * 80 * 1040 / 1e6)
    # One row alone is as long as it is, and servers fill the places of replies that have ended.
    one = 10 * decode_step_seconds(SMALL, config(), reply, 1, slow_memory)
    assert decode_seconds(SMALL, config(), reply, 1, slow_memory) == pytest.approx(one)
    served = replace(config(), rollouts=RolloutConfig(servers=("http://a:1",)))
    full = 10 * decode_step_seconds(SMALL, config(), reply, 8, slow_memory)
    assert decode_seconds(SMALL, served, reply, 8, slow_memory) == pytest.approx(full)
    # vLLM in a process does so too, but under Ray a batch comes and goes as a whole.
    inside = replace(config(), rollouts=RolloutConfig(engine="vllm"))
    assert decode_seconds(SMALL, inside, reply, 8, slow_memory) == pytest.approx(full)
    in_workers = replace(inside, cluster=ClusterConfig(kind="ray"))
    assert decode_seconds(SMALL, in_workers, reply, 8, slow_memory) == pytest.approx(25 * step)


def test_operations_of_an_update():
    # 20 + 4 x 20 tokens fit into 100: 8 rows make 2 micro-batches, 8 x 20 + 2 x 20 = 200 tokens. Each: 4 x 960 for the
    # frozen base, 6 x 464 for the adapter, 3 x 4 x 2 layers x 8 x 40 / 2 for attention. Output: 8 x 10 x 4 x 80.
    work = Workload((REPLY,), (), ())
    assert update_flops(SMALL, config(), work, 8) == 200 * (3840 + 2784 + 3840) + 25_600
    # The reference of a KL penalty is half as much again of the base and the output layer.
    assert update_flops(SMALL, config(kl_coefficient=0.1), work, 8) == 200 * (5760 + 2784 + 3840) + 38_400


def test_a_step_adds_up_and_is_shared_by_processes():
    device = Device("d", 1, 1e-6, 1e-6, 1.0, 1.0, 0.0)
    work = Workload((REPLY,), (), ())
    whole = estimate_seconds(SMALL, config(), work, device, (8, 8))
    assert whole.prefill == pytest.approx(prefill_flops(SMALL, REPLY, 8, 4) / 1e6)
    assert whole.decode == pytest.approx(10 * decode_step_seconds(SMALL, config(), REPLY, 8, device))
    assert whole.update == pytest.approx(update_flops(SMALL, config(), work, 8) / 1e6)
    assert whole.step == whole.prefill + whole.decode + whole.update
    half = estimate_seconds(SMALL, config(), work, device, (4, 4))
    assert half.prefill == pytest.approx(prefill_flops(SMALL, REPLY, 4, 4) / 1e6)
    assert half.update == pytest.approx(whole.update / 2)
    twice = estimate_seconds(SMALL, config(epochs_per_step=2), work, device, (8, 8))
    assert twice.update == pytest.approx(2 * whole.update)
    # Two servers write, one process learns.
    served = estimate_seconds(SMALL, config(), work, device, (4, 8))
    assert (served.prefill, served.decode, served.update) == (half.prefill, half.decode, whole.update)
    assert whole.plus(half).step == pytest.approx(whole.step + half.step)


def test_the_seconds_of_measured_work_are_those_of_the_plan_within_a_quarter():
    # `comity bench step` and its parts, docs/performance.md: 4 dilemmas x 8 dialogues of 4 messages of 64 tokens, all
    # learnt from, no joint answers. Rollouts took 32.2 and 31.9 s, updates 58.8 and 53.1 s.
    settings = OptimizationConfig(scenarios_per_step=4, group_size=8, seats="both")
    plain = TrainConfig(model=ModelConfig("embedded", lora_rank=16), optimization=settings)
    rules = replace(plain.negotiation, rounds=2, dialogue=replace(plain.negotiation.dialogue, max_tokens=64))
    told = replace(plain, negotiation=rules)
    played = mean_workload(told, 2, 1.0)
    work = replace(played, replies=tuple(reply for reply in played.replies if reply.target != "summary"))
    found = estimate_seconds(SHIPPED["embedded"], told, work, find_device("cpu-2-cores"), (32, 32))
    assert found.prefill + found.decode == pytest.approx((32.2 + 31.9) / 2, rel=0.25)
    assert found.update == pytest.approx((58.8 + 53.1) / 2, rel=0.25)
