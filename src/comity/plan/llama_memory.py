"""Bytes of our own code for a Llama on the CPU: copies of its weights, and what rollout and update keep.

In bfloat16 the weights lie in oneDNN's layout beside the model's own: with the adapter folded in, without it where
heads or an opponent read the base alone, and transposed for the way back (`engines.llama`). Other types are not packed.
"""

from comity.config import ModelConfig
from comity.plan.architectures import Architecture
from comity.plan.devices import Device
from comity.plan.workload import Reply

LOGIT_ROWS = 256
"""Trained tokens whose logits exist in float32 at once."""
SLICE_ROWS = 512
"""Rows that go through the linear maps together."""
SCORES = 2**21
"""Attention scores that are written down at a time."""


def is_computed_here(architecture: Architecture, model: ModelConfig, device: Device) -> bool:
    """Tell whether the policy is computed by `engines.llama` and not by transformers."""
    return device.is_cpu and architecture.llama and model.quantization == "none" and model.dtype != "float16"


def folded_bytes(architecture: Architecture, width: int) -> float:
    """Return the bytes of the linear maps with the adapter folded in, packed or not."""
    return float(architecture.linear_parameters * width)


def transposed_bytes(architecture: Architecture, width: int) -> float:
    """Return the bytes of the transposed linear maps that the update makes; 0 where nothing is packed."""
    return float(architecture.linear_parameters * width) if width == 2 else 0.0


def base_bytes(architecture: Architecture, width: int) -> float:
    """Return the bytes of the maps without an adapter: all packed, or queries, keys and values joined alone."""
    if width == 2:
        return float(architecture.linear_parameters * width)
    joined = (architecture.heads + 2 * architecture.kv_heads) * architecture.head_width
    return float(architecture.layers * architecture.width * joined * width)


def head_bytes(architecture: Architecture, width: int) -> float:
    """Return the bytes of the output layer, packed and, from the first update on, transposed; 0 if it is not packed."""
    return 2.0 * architecture.head_parameters * width if width == 2 else 0.0


def cached_tokens(reply: Reply, batch: int, group_size: int) -> float:
    """Return the tokens of a batch whose keys and values are kept: what a group shares stands once."""
    groups = -(-batch // group_size)
    return groups * reply.shared_tokens + batch * (reply.prompt_tokens - reply.shared_tokens + reply.new_tokens)


def prefill_bytes(architecture: Architecture, reply: Reply, batch: int, group_size: int, width: int) -> float:
    """Return what the prompts of a batch take in one layer: states, queries, keys, values and attention's result."""
    attention, keys = _attention_widths(architecture)
    fresh = cached_tokens(reply, batch, group_size) - batch * reply.new_tokens
    rows = min(fresh, SLICE_ROWS)
    inside = fresh * (3 * architecture.width + 2 * attention + 2 * keys) + rows * 3 * architecture.inner_width
    # Keys and values are gathered row by row, the shared ones too.
    return (inside + batch * reply.prompt_tokens * 2 * keys + 2 * SCORES) * width


def saved_bytes_per_token(architecture: Architecture, width: int) -> float:
    """Return the bytes that one layer keeps of one token for the way back.

    States before attention and before the gated map, queries, keys, values, attention's result, and both gates.
    """
    attention, keys = _attention_widths(architecture)
    return float(width * (2 * architecture.width + 2 * attention + 2 * keys + 2 * architecture.inner_width))


def passing_bytes(architecture: Architecture, tokens: float, width: int) -> float:
    """Return what the way back through one layer holds: the states' gradient in float32, those of attention, slices."""
    attention, keys = _attention_widths(architecture)
    rows = min(tokens, SLICE_ROWS)
    inside = tokens * (4 * architecture.width + 5 * attention * width + 4 * keys * (width + 4))
    return inside + rows * 6 * architecture.inner_width * width + 3 * SCORES * width


def logits_bytes(architecture: Architecture, trained: float, width: int) -> float:
    """Return the bytes of logits: all in the compute type until the way back, some in float32 twice."""
    return architecture.vocabulary * (trained * width + min(trained, LOGIT_ROWS) * (8.0 + width))


def _attention_widths(architecture: Architecture) -> tuple[int, int]:
    return architecture.heads * architecture.head_width, architecture.kv_heads * architecture.head_width
