"""Bytes on each device: what lies there all the time, and what rollout and update add at their peaks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comity.config import ModelConfig, TrainConfig
from comity.plan import llama_memory
from comity.plan.architectures import Architecture
from comity.plan.devices import Device
from comity.plan.judge_models import find_judge_models, judge_bytes
from comity.plan.llama_memory import is_computed_here
from comity.plan.workload import Reply, Workload

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Of one weight: four bits, a byte for each block of 64, a float32 for each 256 of those (Dettmers et al. 2023)."""
ENGINE_BATCH_TOKENS = 32_768
"""Prompts and new tokens of one batch of the local engine."""
LOGIT_ROWS = 512
"""Trained tokens whose logits are computed at once."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by what they are for; `always` lies there, the larger of `rollout` and `update` comes on top."""

    always: Mapping[str, float]
    rollout: Mapping[str, float]
    update: Mapping[str, float]
    beside: Mapping[str, float] = field(default_factory=dict)
    """In the memory of the machine, where the device has its own."""

    @property
    def peak(self) -> float:
        """Return the most bytes at any time."""
        return sum(self.always.values()) + max(sum(self.rollout.values()), sum(self.update.values()))


def estimate_memory(
    architecture: Architecture, config: TrainConfig, longest: Workload, device: Device, processes: int, rows: int
) -> Memory:
    """Return the memory of one of the processes that learn, for `rows` of the longest dialogues of the settings."""
    model, settings = config.model, config.optimization
    adapter = architecture.adapter_parameters(model.lora_rank)
    width = DTYPE_BYTES[model.dtype]
    always = {
        "weights": weight_bytes(architecture, model),
        # In the compute type, then float32: master, two moments of AdamW.
        "adapter and optimiser": adapter * (width + 12.0) + (adapter * width if settings.kl_coefficient else 0),
        "libraries": device.reserve_gb * 1e9,
    }
    judges = find_judge_models(config)
    if is_computed_here(architecture, model, device):
        always["output layer, packed"] = llama_memory.head_bytes(architecture, width)
        if judges.reads_policy or (settings.opponent == "base" and not writes_elsewhere(config)):
            always["maps without adapter"] = llama_memory.base_bytes(architecture, width)
    if config.rollouts.engine == "vllm" and not writes_elsewhere(config):
        always["vLLM"] = config.rollouts.memory_share * device.memory_gb * 1e9
    loaded = {"judges' models": judge_bytes(judges)} if judges.loaded else {}
    update = {
        # Of the master and, one micro-batch long, of the adapter itself; several processes sum them in one buffer.
        "gradients": adapter * (4.0 + width + (4.0 if processes > 1 else 0.0)),
        **_update_bytes(architecture, config, longest, device, rows),
    }
    return Memory(
        always | (loaded if device.is_cpu else {}),
        _rollout_bytes(architecture, config, longest, device, rows),
        update,
        {} if device.is_cpu else loaded,
    )


def join_memories(parts: Sequence[Memory]) -> Memory:
    """Return the memory of a step with several kinds of scenarios: of each phase that of the kind that takes most."""
    rollout = max((part.rollout for part in parts), key=lambda items: sum(items.values()))
    update = max((part.update for part in parts), key=lambda items: sum(items.values()))
    return Memory(parts[0].always, rollout, update, parts[0].beside)


def writes_elsewhere(config: TrainConfig) -> bool:
    """Tell whether servers or Ray's rollout workers write the dialogues, with memory of their own."""
    return bool(config.rollouts.servers) or config.cluster.kind == "ray"


def _rollout_bytes(
    architecture: Architecture, config: TrainConfig, longest: Workload, device: Device, rows: int
) -> dict[str, float]:
    if writes_elsewhere(config):
        return {}
    model, width = config.model, DTYPE_BYTES[config.model.dtype]
    folds = config.optimization.opponent == "copy" or config.rollouts.engine != "vllm"
    folded = architecture.linear_parameters * width if model.quantization == "none" and folds else 0
    if config.rollouts.engine == "vllm":
        return {"folded adapter": float(folded)}  # while it is handed over
    here, group = is_computed_here(architecture, model, device), config.optimization.group_size
    found = {"folded adapter": float(folded)} | dict.fromkeys(("KV cache", "prefill", "sampling"), 0.0)
    for reply in longest.replies:
        batch = batch_rows(reply, rows)
        if here:
            cached = llama_memory.cached_tokens(reply, batch, group)
            prefill = llama_memory.prefill_bytes(architecture, reply, batch, group, width)
        else:
            cached = batch * (reply.prompt_tokens + reply.new_tokens)
            prefill = _prefill_bytes(architecture, reply, batch, width)
        found["KV cache"] = max(found["KV cache"], cached * kv_bytes_per_token(architecture, model.dtype))
        found["prefill"] = max(found["prefill"], prefill)
        # The compute type, float32, and float32 over the temperature.
        found["sampling"] = max(found["sampling"], batch * architecture.vocabulary * (width + 8.0))
    return found


def weight_bytes(architecture: Architecture, model: ModelConfig) -> float:
    """Return the bytes of the base model: the linear maps of its layers quantised or not, the rest in its type."""
    width = DTYPE_BYTES[model.dtype]
    if model.quantization == "none":
        return float(architecture.parameters * width)
    linear = architecture.linear_parameters
    return linear * NF4_BYTES + (architecture.parameters - linear) * width


def kv_bytes_per_token(architecture: Architecture, dtype: str) -> int:
    """Return the bytes of one token's keys and values in all layers."""
    return 2 * architecture.layers * architecture.kv_heads * architecture.head_width * DTYPE_BYTES[dtype]


def batch_rows(reply: Reply, rows: int) -> int:
    """Return how many of `rows` replies the engine writes at once."""
    return min(rows, max(1, int(ENGINE_BATCH_TOKENS // (reply.prompt_tokens + reply.new_tokens))))


def saved_bytes_per_token(architecture: Architecture, rank: int, width: int) -> float:
    """Return the bytes that one layer keeps of one token for the backward pass, its keys and values aside.

    Inputs of the linear maps and of SwiGLU, queries, attention's result and the adapter's inner values in the compute
    type; the inputs of both norms, and of those of queries and keys, in float32.
    """
    attention = architecture.heads * architecture.head_width
    kept = 4 * architecture.inner_width + 2 * architecture.width + 2 * attention + 7 * rank
    normed = 2 * architecture.width
    if architecture.normed_heads:
        normed += attention + architecture.kv_heads * architecture.head_width
    return float(width * kept + 4 * normed)


def _prefill_bytes(architecture: Architecture, reply: Reply, batch: int, width: int) -> float:
    # Hidden states, both halves of SwiGLU and their product; keys and values repeated for every head; the mask.
    fresh = batch * (reply.prompt_tokens - reply.shared_tokens) + reply.shared_tokens
    attended = batch * reply.prompt_tokens
    repeated = 2 * architecture.heads * architecture.head_width * width
    inside = fresh * (3 * architecture.inner_width * width + architecture.width * (3 * width + 4))
    return inside + attended * repeated + attended * (reply.prompt_tokens - reply.shared_tokens) * width


def _update_bytes(
    architecture: Architecture, config: TrainConfig, longest: Workload, device: Device, rows: int
) -> dict[str, float]:
    """Return what the fullest micro-batch needs: one shared beginning and as many remainders as the budget takes.

    A step that has fewer is one micro-batch of all of them.
    """
    settings, width = config.optimization, DTYPE_BYTES[config.model.dtype]
    here = is_computed_here(architecture, config.model, device)
    worst = {"activations": 0.0, "logits": 0.0}
    trained_kinds = trained_replies(longest, config)
    for reply in trained_kinds:
        remainder = reply.prompt_tokens - reply.shared_tokens + reply.new_tokens
        batch = max(1, int((settings.micro_batch_tokens - reply.shared_tokens) // remainder))
        batch = min(batch, rows * len(trained_kinds))
        tokens, trained = reply.shared_tokens + batch * remainder, batch * reply.new_tokens
        if here:
            saved = architecture.layers * tokens * llama_memory.saved_bytes_per_token(architecture, width)
            activations = saved + llama_memory.passing_bytes(architecture, tokens, width)
            logits = llama_memory.logits_bytes(architecture, trained, width)
        else:
            activations = _activation_bytes(architecture, config.model, reply, batch)
            # Every trained token's log-probabilities stay until the way back; the rest exists for LOGIT_ROWS at once.
            logits = (trained + 3 * min(trained, LOGIT_ROWS)) * architecture.vocabulary * 4.0
        worst = {"activations": max(worst["activations"], activations), "logits": max(worst["logits"], logits)}
    if not here:
        return worst
    return {
        "folded adapter": llama_memory.folded_bytes(architecture, width),
        "transposed maps": llama_memory.transposed_bytes(architecture, width),
        **worst,
    }


def _activation_bytes(architecture: Architecture, model: ModelConfig, reply: Reply, batch: int) -> float:
    width, remainder = DTYPE_BYTES[model.dtype], reply.prompt_tokens - reply.shared_tokens + reply.new_tokens
    tokens = reply.shared_tokens + batch * remainder
    attended = batch * (reply.shared_tokens + remainder)
    saved = tokens * saved_bytes_per_token(architecture, model.lora_rank, width)
    # Keys and values repeated for every head, and the mask in the compute type, once a layer.
    saved += attended * 2 * architecture.heads * architecture.head_width * width + attended * remainder * width
    # Backward through one layer holds the gradients of SwiGLU's parts; a 4-bit weight is unpacked for its product.
    unpacked = architecture.width * architecture.inner_width * width if model.quantization != "none" else 0
    passing = tokens * (3 * architecture.inner_width + 4 * architecture.width) * width + unpacked
    return architecture.layers * saved + passing


def trained_replies(workload: Workload, config: TrainConfig) -> list[Reply]:
    """Return the replies that carry loss under `optimization.seats` and `optimization.tokens`."""
    settings = config.optimization
    wanted: set[str] = set()
    if settings.tokens in ("dialogue", "both") or config.solo:
        wanted |= {"seat_0"} | ({"seat_1"} if settings.seats == "both" else set())
    if settings.tokens in ("completion", "both"):
        wanted.add("summary")
    return [reply for reply in workload.replies if reply.target in wanted]
