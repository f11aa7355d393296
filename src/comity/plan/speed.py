"""Seconds of a step, from the arithmetic and the memory traffic of its parts."""

from dataclasses import dataclass

from comity.config import TrainConfig
from comity.plan.architectures import Architecture
from comity.plan.devices import Device
from comity.plan.llama_memory import is_computed_here
from comity.plan.memory import DTYPE_BYTES, NF4_BYTES, batch_rows, trained_replies
from comity.plan.workload import Reply, Workload

UNPACKED_NF4_BYTES = NF4_BYTES + 4.0
"""Memory traffic of one 4-bit weight in a product of several rows: read, written in 16 bits, read again."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """One step of one process; what the judges take is not in it."""

    prefill: float
    decode: float
    update: float

    @property
    def step(self) -> float:
        """Return the seconds of the whole step."""
        return self.prefill + self.decode + self.update

    def plus(self, other: "Seconds") -> "Seconds":
        """Return both, one after the other."""
        return Seconds(self.prefill + other.prefill, self.decode + other.decode, self.update + other.update)


def estimate_seconds(
    architecture: Architecture, config: TrainConfig, workload: Workload, device: Device, rows: tuple[int, int]
) -> Seconds:
    """Return the seconds of a step whose dialogues are all as the workload says.

    `rows` counts those that one device writes, and those that one device learns from.
    """
    settings, (written, learnt) = config.optimization, rows
    prefill = decode = 0.0
    for reply in workload.replies:
        left = written
        while left > 0:
            batch = min(left, batch_rows(reply, written))
            prefill += prefill_flops(architecture, reply, batch, settings.group_size) / flops_per_second(device)
            decode += decode_seconds(architecture, config, reply, batch, device)
            left -= batch
    update = update_flops(architecture, config, workload, learnt) / flops_per_second(device)
    return Seconds(prefill, decode, update * settings.epochs_per_step)


def flops_per_second(device: Device) -> float:
    """Return the arithmetic that batched products get."""
    return device.tflops * 1e12 * device.compute_share


def prefill_flops(architecture: Architecture, reply: Reply, batch: int, group_size: int) -> float:
    """Return the operations of the prompts of one batch; what a group's prompts share is computed once.

    Two for each weight and token; the output layer sees one token a row.
    """
    groups = -(-batch // group_size)
    tokens = batch * (reply.prompt_tokens - reply.shared_tokens) + groups * reply.shared_tokens
    attention = 4 * architecture.layers * architecture.heads * architecture.head_width * reply.prompt_tokens / 2
    head = batch * architecture.vocabulary * architecture.width
    return tokens * (2 * architecture.linear_parameters + attention) + 2 * head


def decode_seconds(architecture: Architecture, config: TrainConfig, reply: Reply, batch: int, device: Device) -> float:
    """Return the seconds of all new tokens of a batch.

    The local engine's batch lasts until its longest reply has ended, with ever fewer rows, and so does any under Ray.
    vLLM, in the process or on servers, puts the next dialogue's reply in the place of one that has ended.
    """
    refills = config.rollouts.engine == "vllm" and config.cluster.kind == "none"
    in_step = not refills and not config.rollouts.servers and batch > 1
    steps = reply.longest_tokens if in_step else reply.new_tokens
    rows = batch * reply.new_tokens / steps
    return steps * decode_step_seconds(architecture, config, reply, rows, device)


def decode_step_seconds(
    architecture: Architecture, config: TrainConfig, reply: Reply, rows: float, device: Device
) -> float:
    """Return the seconds of one new token in each of the rows: the traffic or the arithmetic, and the start-up.

    Every weight is read once a step. Keys and values are read, by transformers repeated for every head and read again.
    """
    width = DTYPE_BYTES[config.model.dtype]
    quantised = config.model.quantization != "none"
    weights = architecture.linear_parameters * (UNPACKED_NF4_BYTES if quantised else width)
    weights += architecture.vocabulary * architecture.width * width
    context = reply.prompt_tokens + reply.new_tokens / 2
    here = is_computed_here(architecture, config.model, device)
    heads = architecture.kv_heads + (0 if here else 2 * architecture.heads)
    cache = rows * context * 2 * architecture.layers * heads * architecture.head_width * width
    traffic = (weights + cache) / (device.bandwidth_gb_per_second * 1e9 * device.bandwidth_share)
    products = architecture.linear_parameters + architecture.vocabulary * architecture.width
    arithmetic = 2 * rows * products / flops_per_second(device)
    return max(traffic, arithmetic) + architecture.layers * device.layer_step_seconds


def update_flops(architecture: Architecture, config: TrainConfig, workload: Workload, rows: int) -> float:
    """Return the operations of forward and backward passes over the trained replies of `rows` dialogues.

    Two operations for each weight and token forward and two backward (the frozen base has no weight gradients), six
    for the adapter's own parameters; the reference of a KL penalty is one more forward pass.
    """
    settings = config.optimization
    passes = 4 + (2 if settings.kl_coefficient else 0)
    total = 0.0
    for reply in trained_replies(workload, config):
        remainder = reply.prompt_tokens - reply.shared_tokens + reply.new_tokens
        batch = max(1, int((settings.micro_batch_tokens - reply.shared_tokens) // remainder))
        # Each micro-batch computes its shared beginning anew.
        tokens = rows * remainder + -(-rows // batch) * reply.shared_tokens
        span = reply.prompt_tokens + reply.new_tokens
        attention = 3 * 4 * architecture.layers * architecture.heads * architecture.head_width * span / 2
        adapter = 6 * architecture.adapter_parameters(config.model.lora_rank)
        total += tokens * (passes * architecture.linear_parameters + adapter + attention)
        total += rows * reply.new_tokens * passes * architecture.vocabulary * architecture.width
    return total
