"""The numbers of a dense decoder model that its memory and time follow from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.errors import ModelError


@dataclass(frozen=True, slots=True)
class Architecture:
    """A Llama-like decoder; `width` is that of the residual stream, `head_width` of one attention head."""

    layers: int
    width: int
    inner_width: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    """The output layer is the embedding."""
    normed_heads: bool = False
    """Queries and keys are normalised head by head, as in Qwen3."""
    layer_biases: int = 0
    """Bias parameters of one layer."""
    llama: bool = False
    """A Llama such as `engines.llama` computes on the CPU: SiLU, no biases, fixed rotary frequencies."""

    @property
    def head_parameters(self) -> int:
        """Return the weights of the output layer."""
        return self.vocabulary * self.width

    @property
    def linear_shapes(self) -> tuple[tuple[int, int], ...]:
        """Return (inputs, outputs) of the seven linear maps of a layer: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        return (
            (self.width, queries), (self.width, keys), (self.width, keys), (queries, self.width),
            (self.width, self.inner_width), (self.width, self.inner_width), (self.inner_width, self.width),
        )  # fmt: skip

    @property
    def linear_parameters(self) -> int:
        """Return the weights of all layers' linear maps: what is quantised and what adapters stand beside."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear_shapes)

    @property
    def parameters(self) -> int:
        """Return how many parameters the model has."""
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        norms = 2 * self.width + (2 * self.head_width if self.normed_heads else 0)
        return embeddings + self.linear_parameters + self.layers * (norms + self.layer_biases) + self.width

    def adapter_parameters(self, rank: int) -> int:
        """Return the parameters of a LoRA adapter on all linear maps: rank x (inputs + outputs) each."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.linear_shapes)


def _qwen3(layers: int, width: int, inner_width: int, heads: int, tied: bool) -> Architecture:
    return Architecture(layers, width, inner_width, heads, 8, 128, 151_936, tied, normed_heads=True)


SHIPPED = {
    "embedded": Architecture(30, 576, 1536, 9, 3, 64, 49_152, tied=True, llama=True),
    "smollm2-135m-instruct": Architecture(30, 576, 1536, 9, 3, 64, 49_152, tied=True, llama=True),
    "qwen3-0.6b": _qwen3(28, 1024, 3072, 16, tied=True),
    "qwen3-1.7b": _qwen3(28, 2048, 6144, 16, tied=True),
    "qwen3-4b": _qwen3(36, 2560, 9728, 32, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 12_288, 32, tied=False),
    "qwen3-14b": _qwen3(40, 5120, 17_408, 40, tied=False),
    "qwen3-32b": _qwen3(64, 5120, 25_600, 64, tied=False),
}
"""By the last part of a model's name in lower case: these need no file and no network."""

KNOWN_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def find_architecture(name: str) -> Architecture:
    """Return the numbers of a model by its name; raise ModelError when they cannot be had.

    A name that is not in the shipped table is looked up as `transformers` does: a folder, the cache or the hub.
    """
    key = name.lower().split("/")[-1]
    if key in SHIPPED and not Path(name).is_dir():
        return SHIPPED[key]
    return read_architecture(_read_config(name, "model.name"))


def count_parameters(name: str) -> tuple[int, Architecture | None]:
    """Return the parameters of any model, an encoder too, and its numbers where a plan knows its kind.

    Raise ModelError when its configuration cannot be had.
    """
    key = name.lower().split("/")[-1]
    if key in SHIPPED and not Path(name).is_dir():
        return SHIPPED[key].parameters, SHIPPED[key]
    config = _read_config(name, "judge")
    if config.model_type in KNOWN_TYPES:
        architecture = read_architecture(config)
        return architecture.parameters, architecture
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        return AutoModel.from_config(config).num_parameters(), None


def _read_config(name: str, setting: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{setting} {name!r} has no configuration in reach ({first}): give a folder, or one of {', '.join(SHIPPED)}"
        ) from error


def read_architecture(config: Any) -> Architecture:
    """Return the numbers in a `transformers` configuration; raise ModelError for another kind of model."""
    if config.model_type not in KNOWN_TYPES:
        raise ModelError(
            f"model.name {config.name_or_path!r} is of type {config.model_type}: "
            f"a plan can be made for {', '.join(KNOWN_TYPES)}"
        )
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head_width, config.num_key_value_heads * head_width
    biases = queries + 2 * keys if config.model_type == "qwen2" else 0
    if getattr(config, "attention_bias", False):
        biases = queries + 2 * keys + config.hidden_size
    if getattr(config, "mlp_bias", False):
        biases += 2 * config.intermediate_size + config.hidden_size
    return Architecture(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        inner_width=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_width=head_width,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        normed_heads=config.model_type == "qwen3",
        layer_biases=biases,
        llama=config.model_type == "llama"
        and not biases
        and config.hidden_act == "silu"
        and (config.rope_parameters or {}).get("rope_type", "default") in ("default", "linear", "llama3"),
    )
