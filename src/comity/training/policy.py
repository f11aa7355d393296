"""The trained policy: a frozen base with a LoRA adapter, its log-probabilities and its optimiser."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from comity.config import ModelConfig, OptimizationConfig
from comity.engines.llama import open_llama
from comity.engines.models import EMBEDDED, decoder_of, load_model, output_layer
from comity.errors import ModelError
from comity.training.collate import MicroBatch
from comity.training.llama_gradient import llama_logprobs
from comity.training.warm_start import shipped_adapter

LOGIT_ROWS = 512
"""Most trained tokens whose logits exist at once."""


def resolve_device(device: str) -> str:
    """Return the torch device for the setting `model.device`; raise ModelError when it is not there.

    `cuda` without a number is this process's own device where several processes share a machine.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"model.device {device!r} cannot be used ({first}): choose auto, cpu or cuda") from error
    return device


def load_policy(settings: ModelConfig) -> PreTrainedModel:
    """Load the base model with its trainable LoRA adapter, fresh or from the setting `model.adapter`."""
    base = load_model(settings.name, settings.dtype, resolve_device(settings.device), settings.quantization)
    if settings.adapter == "none":
        torch.manual_seed(0)
        config = LoraConfig(
            r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        # Adapters in the compute dtype; full precision lives in the optimiser's copies.
        return get_peft_model(base, config, autocast_adapter_dtype=False)
    return attach_adapter(base, adapter_folder(settings), trainable=True)


def adapter_folder(settings: ModelConfig) -> Path:
    """Return the folder of the adapter that the settings name; raise ModelError when there is none."""
    if settings.adapter == "warm-start":
        if settings.name != EMBEDDED:
            raise ModelError(
                f"model.adapter warm-start fits only the embedded model, not {settings.name!r}: choose none"
            )
        return shipped_adapter()
    return Path(settings.adapter)


def require_adapter(folder: Path) -> None:
    """Raise ModelError unless the folder holds a PEFT adapter."""
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"adapter {folder} has no adapter_config.json: give a PEFT folder such as runs/demo/checkpoint-10"
        )


def attach_adapter(
    base: PreTrainedModel, folder: Path, trainable: bool = False, name: str = "default"
) -> PreTrainedModel:
    """Return the model with the PEFT adapter in `folder`, beside those it has; raise ModelError when it does not fit.

    The first adapter is on; later ones wait for `set_adapter(name)`.
    """
    require_adapter(folder)
    options = {"adapter_name": name, "is_trainable": trainable, "autocast_adapter_dtype": False}
    model = base
    try:
        if isinstance(base, PeftModel):
            base.load_adapter(str(folder), **options)
        else:
            model = PeftModel.from_pretrained(base, str(folder), **options)
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(f"adapter {folder} does not fit the model ({str(error).splitlines()[0]})") from error
    dtype = base.dtype
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return model.eval()


def trainable_parameters(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the adapter's parameters by name, in a fixed order."""
    return {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}


def token_logprobs(model: PreTrainedModel, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N,) of the trained tokens with gradient, and their entropies (N,) without.

    Both are taken at each token's sampling temperature over the whole vocabulary. Only the trained positions pass
    through the output layer.
    """
    llama = open_llama(model)
    if llama is not None:
        return llama_logprobs(llama, batch)
    hidden_BSD = _hidden_states(model, batch)
    device = hidden_BSD.device
    hidden_ND = hidden_BSD[batch.loss_row_N.to(device), batch.loss_place_N.to(device) - 1]
    target_N = batch.suffix_ids_BS[batch.loss_row_N, batch.loss_place_N].to(device)
    head = output_layer(model)
    logprobs, entropies = [], []
    for start in range(0, len(hidden_ND), LOGIT_ROWS):
        rows = slice(start, start + LOGIT_ROWS)
        logits_NV = head(hidden_ND[rows]).float() / batch.temperatures_N[rows].to(device)[:, None]
        logprob_NV = logits_NV.log_softmax(-1)
        logprobs.append(logprob_NV.gather(1, target_N[rows, None])[:, 0])
        with torch.no_grad():
            entropies.append(-(logprob_NV.exp() * logprob_NV).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def _hidden_states(model: PreTrainedModel, batch: MicroBatch) -> Tensor:
    decoder, device = decoder_of(model), model.device
    cache = None
    prefix_mask_BP = batch.prefix_mask_CP[batch.prefix_of_B].to(device)
    if batch.prefix_ids_CP.shape[1]:
        cache = DynamicCache(config=model.config)
        mask_CP = batch.prefix_mask_CP.to(device)
        decoder(
            input_ids=batch.prefix_ids_CP.to(device),
            attention_mask=mask_CP,
            position_ids=(mask_CP.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        # Rows of the batch take their beginning's keys and values; gradients of all rows add up in them.
        cache.batch_select_indices(batch.prefix_of_B.to(device))
    suffix_mask_BS = batch.suffix_mask_BS.to(device)
    mask_BT = torch.cat([prefix_mask_BP, suffix_mask_BS], dim=1)
    position_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    states: Tensor = decoder(
        input_ids=batch.suffix_ids_BS.to(device),
        attention_mask=mask_BT,
        position_ids=position_BT[:, prefix_mask_BP.shape[1] :],
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return states


@dataclass
class PolicyOptimizer:
    """AdamW on float32 copies of the adapter, which itself stays in the compute dtype.

    In bfloat16 a learning rate of 5e-6 would be rounded away; the copies keep it.
    """

    parameters: dict[str, torch.nn.Parameter]
    masters: dict[str, Tensor]
    adam: torch.optim.AdamW
    settings: OptimizationConfig
    reference: dict[str, Tensor]
    """The adapter that the run began with, kept when a KL penalty needs it."""
    lagged: dict[str, Tensor]
    """The adapter of a lagged opponent; empty for other opponents."""
    lagged_version: int = 0
    """The steps that the policy had taken when the lagged opponent became it."""
    last_step: int = 0
    """The step whose gradients were applied last, 0 before any."""

    @staticmethod
    def create(model: PreTrainedModel, settings: OptimizationConfig) -> "PolicyOptimizer":
        """Return an optimiser for the adapter of a model."""
        parameters = trainable_parameters(model)
        masters = {name: p.detach().float().clone() for name, p in parameters.items()}
        adam = torch.optim.AdamW(
            masters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.999)
        )
        begin = {name: p.detach().clone() for name, p in parameters.items()}
        reference = begin if settings.kl_coefficient else {}
        lagged = {name: p.clone() for name, p in begin.items()} if settings.opponent == "lagged" else {}
        return PolicyOptimizer(parameters, masters, adam, settings, reference, lagged)

    def reference_policy(self) -> AbstractContextManager[None]:
        """Put the adapter of the run's beginning in place inside the context."""
        return self._in_place(self.reference)

    def lagged_policy(self) -> AbstractContextManager[None]:
        """Put the lagged opponent's adapter in place inside the context."""
        return self._in_place(self.lagged)

    @torch.no_grad()
    def renew_lagged(self, version: int) -> None:
        """Let the lagged opponent become the policy as it is now, after `version` steps."""
        self.lagged_version = version
        for name, weight in self.lagged.items():
            weight.copy_(self.parameters[name])

    @contextmanager
    def _in_place(self, weights: dict[str, Tensor]) -> Iterator[None]:
        current = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = weights[name]
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = current[name]

    def collect(self) -> None:
        """Move the gradients of one micro-batch into the float32 copies, where they add up without rounding."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                master = self.masters[name]
                gradient = parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """Return the collected gradients in the order of the copies, zeros where there are none."""
        found = []
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            found.append(master.grad)
        return found

    def step(self, step: int) -> float:
        """Apply the collected gradients; return their norm before clipping. `step` counts from 1."""
        self.gradients()
        warmup = self.settings.warmup_steps
        rate = self.settings.learning_rate * min(1.0, step / warmup if warmup else 1.0)
        for group in self.adam.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(self.masters.values(), self.settings.max_grad_norm or float("inf"))
        self.adam.step()
        self.last_step = step
        self.adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.masters[name])
        return float(norm)
