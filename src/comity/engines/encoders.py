"""Models whose hidden states are read: causal ones, and encoders without a language head, such as BERT and its kin."""

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from comity.engines.models import decoder_of, load_model, named_errors, resolve_model
from comity.errors import ModelError

ENCODER_ENDINGS = ("ForMaskedLM", "BertModel", "BertaModel", "ElectraModel", "DebertaV2Model", "MPNetModel")
"""Endings of the names that encoders give their architecture in config.json (in any case of letters)."""
LAYER_PLACES = ("layers", "encoder.layer", "encoder.layers", "transformer.layer", "h")
"""Where models keep their layers: Llama and ModernBERT, BERT, others, DistilBERT, GPT-2."""


def load_reader(name: str, dtype: str = "bfloat16", device: str = "cpu", quantization: str = "none") -> PreTrainedModel:
    """Load a model to read hidden states from, frozen and in evaluation mode; raise ModelError when it cannot be."""
    with named_errors(name):
        config = AutoConfig.from_pretrained(resolve_model(name))
    if not is_encoder(config):
        return load_model(name, dtype, device, quantization)
    if quantization != "none":
        raise ModelError(f"model {name!r} is an encoder, which is read as it is: leave quantization at none")
    with named_errors(name):
        model: PreTrainedModel = AutoModel.from_pretrained(resolve_model(name), dtype=getattr(torch, dtype))
    model.requires_grad_(False)
    return model.to(device).eval()


def is_encoder(config: object) -> bool:
    """Return whether a configuration is of a model that reads both ways and has no language head to play with."""
    names = getattr(config, "architectures", None) or [""]
    endings = tuple(ending.lower() for ending in ENCODER_ENDINGS)
    return all(name.lower().endswith(endings) for name in names)


def layers_of(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Return the layers of a plain or PEFT-wrapped model in their order; raise ModelError for one of another build."""
    stack: torch.nn.Module = model if is_encoder(model.config) else decoder_of(model)
    for place in LAYER_PLACES:
        try:
            layers = stack.get_submodule(place)
        except AttributeError:
            continue
        if isinstance(layers, torch.nn.ModuleList):
            return layers
    raise ModelError(f"model {model.config.name_or_path!r} has no layers that can be read: choose another encoder")


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return how many tokens an encoder can read at once; None for a causal model, whose texts are cut elsewhere."""
    if not is_encoder(model.config):
        return None
    places = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    # RoBERTa and its kin count places from behind the padding token.
    offset = (tokenizer.pad_token_id or 0) + 1 if "roberta" in model.config.model_type else 0
    return min(int(places) - offset, int(tokenizer.model_max_length))
