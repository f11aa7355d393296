"""Measure what this machine does at best: memory bandwidth, and products at the shapes of a model."""

import time
from collections.abc import Callable

import torch

from comity.bench.limits import Rates
from comity.plan.architectures import Architecture

LAYER_ROWS = (512, 1024, 2048)
"""Rows of the products of the layers; the fastest counts for each shape, since some are far slower than others."""
HEAD_ROWS = (64, 256, 512)
TRIES = 4


@torch.inference_mode()
def measure_rates(architecture: Architecture, dtype: str) -> Rates:
    """Return the best rates of several tries; it takes seconds and as much memory as the weights.

    Bandwidth is a sum over a buffer of the weights' size, which reads every byte once and writes nothing.
    """
    kind = getattr(torch, dtype)
    return Rates(
        bytes_per_second=_measure_bandwidth(architecture.parameters * kind.itemsize),
        layer_flops_per_second=_measure_layers(architecture, kind),
        head_flops_per_second=_measure_product(architecture.width, architecture.vocabulary, HEAD_ROWS, kind),
    )


def _measure_bandwidth(size_bytes: int) -> float:
    buffer = torch.ones(max(1, size_bytes // 4), dtype=torch.float32)
    return buffer.nbytes / _least_seconds(lambda: buffer.sum(), 2 * TRIES)


def _measure_layers(architecture: Architecture, dtype: torch.dtype) -> float:
    shapes = architecture.linear_shapes
    rates = {shape: _measure_product(*shape, LAYER_ROWS, dtype) for shape in set(shapes)}
    weights = [inputs * outputs for inputs, outputs in shapes]
    seconds = [weight / rates[shape] for weight, shape in zip(weights, shapes, strict=True)]
    return sum(weights) / sum(seconds)


def _measure_product(inputs: int, outputs: int, rows: tuple[int, ...], dtype: torch.dtype) -> float:
    best = 0.0
    weight = torch.full((outputs, inputs), 0.01, dtype=dtype)
    for count in rows:
        states = torch.full((count, inputs), 0.01, dtype=dtype)
        result = torch.empty(count, outputs, dtype=dtype)

        def multiply(states: torch.Tensor = states, result: torch.Tensor = result) -> object:
            return torch.mm(states, weight.t(), out=result)

        best = max(best, 2 * count * inputs * outputs / _least_seconds(multiply, TRIES))
    return best


def _least_seconds(work: Callable[[], object], tries: int) -> float:
    work()  # the first pass faults pages in and builds kernels
    least = float("inf")
    for _ in range(tries):
        begun = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - begun)
    return least
