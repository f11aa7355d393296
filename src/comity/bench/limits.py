"""The least time that the work can take on this machine: its memory traffic and arithmetic over measured rates.

Every formula counts what the plain algorithm must do once. Prompts are counted whole: what dialogues share is not taken
off, so a contender that computes shared beginnings once can come closer to the limit than the plain algorithm could.
LoRA's own products, norms, sampling and padding are not counted, and the best rate of several shapes and tries counts:
nothing can be faster than the limit but by sharing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from comity.bench.settings import Measured
from comity.plan.architectures import Architecture


@dataclass(frozen=True, slots=True)
class Rates:
    """What the machine does at best: bytes read a second, and operations a second of products.

    `layer_flops_per_second` is over the linear maps of the layers, each weighted with its operations;
    `head_flops_per_second` is that of the output layer.
    """

    bytes_per_second: float
    layer_flops_per_second: float
    head_flops_per_second: float


@dataclass(frozen=True, slots=True)
class Size:
    """The tokens of one message: of its prompt, and new ones; messages of one number are sampled together.

    Of a verdict: the tokens of its prompt, and the `layers` that its head reads.
    """

    prompt: int
    new: int
    message: int = 0
    layers: int = 0


def attention_flops(architecture: Architecture, span: int, layers: int) -> float:
    """Return the operations of causal attention over `span` positions.

    Two products, queries with keys and weights with values, each 2 x heads x head width for a pair of positions, of
    which there are span^2 / 2: `layers x 4 x heads x head width x span^2 / 2`.
    """
    return layers * 4 * architecture.heads * architecture.head_width * span**2 / 2


def prefill_seconds(architecture: Architecture, rates: Rates, prompts: Sequence[int]) -> float:
    """Return the seconds of the prompts (their lengths): linear maps and attention, and the last position's logits.

    `sum over prompts of (2 x linear parameters x P + attention(P)) / layer rate + 2 x vocabulary x width / head rate`
    """
    layers = sum(
        2 * architecture.linear_parameters * length + attention_flops(architecture, length, architecture.layers)
        for length in prompts
    )
    heads = 2 * architecture.vocabulary * architecture.width * len(prompts)
    return layers / rates.layer_flops_per_second + heads / rates.head_flops_per_second


def decode_seconds(architecture: Architecture, rates: Rates, batch: Sequence[Size], value_bytes: int) -> float:
    """Return the seconds in which the messages of one batch grow token by token; `value_bytes` is of one weight.

    The first token comes from the prefill. Each further step reads every weight once, and the keys and values of all
    positions so far, its own among them:
    `(steps x (linear parameters + vocabulary x width) + sum over rows and steps of positions x 2 x layers x KV heads x
    head width) x bytes of a value / bandwidth`
    """
    weights = architecture.linear_parameters + architecture.vocabulary * architecture.width
    position = 2 * architecture.layers * architecture.kv_heads * architecture.head_width
    steps = max(size.new for size in batch) - 1
    # Step t of a row (from 1 to its last) attends to its prompt and t tokens.
    positions = sum((size.new - 1) * size.prompt + size.new * (size.new - 1) // 2 for size in batch)
    return (steps * weights + positions * position) * value_bytes / rates.bytes_per_second


def update_seconds(architecture: Architecture, rates: Rates, samples: Sequence[Size]) -> float:
    """Return the seconds of forward and backward passes over samples of a prompt and trained tokens.

    The frozen base needs the products of the forward pass and, backward, those with respect to its inputs; attention's
    backward pass has twice the products of its forward pass; only trained tokens need logits:
    `sum over samples of (4 x linear parameters x T + 3 x attention(T)) / layer rate + 4 x vocabulary x width x N / head
    rate`, with T all tokens of a sample and N its trained ones
    """
    layers = sum(
        4 * architecture.linear_parameters * (size.prompt + size.new)
        + 3 * attention_flops(architecture, size.prompt + size.new, architecture.layers)
        for size in samples
    )
    heads = sum(4 * architecture.vocabulary * architecture.width * size.new for size in samples)
    return layers / rates.layer_flops_per_second + heads / rates.head_flops_per_second


def judge_seconds(architecture: Architecture, rates: Rates, verdicts: Sequence[Size]) -> float:
    """Return the seconds of verdicts, each of which needs the layers up to the last one that its head reads.

    `sum over verdicts of (2 x linear parameters x layers / all layers x P + attention(P, layers)) / layer rate`
    """
    total = sum(
        2 * architecture.linear_parameters * verdict.layers / architecture.layers * verdict.prompt
        + attention_flops(architecture, verdict.prompt, verdict.layers)
        for verdict in verdicts
    )
    return total / rates.layer_flops_per_second


def limit_parts(
    architecture: Architecture, rates: Rates, measured: Measured, sizes: Sequence[Size], value_bytes: int
) -> dict[str, float]:
    """Return the least seconds of each part of the work; messages of one number grow side by side."""
    if measured == "judge":
        return {"judge": judge_seconds(architecture, rates, sizes)}
    parts = {}
    if measured in ("rollout", "step"):
        batches = [[size for size in sizes if size.message == number] for number in {size.message for size in sizes}]
        parts["prefill"] = prefill_seconds(architecture, rates, [size.prompt for size in sizes])
        parts["decode"] = sum(decode_seconds(architecture, rates, batch, value_bytes) for batch in batches)
    if measured in ("update", "step"):
        parts["update"] = update_seconds(architecture, rates, sizes)
    return parts
