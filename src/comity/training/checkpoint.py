"""Checkpoints without pickle: a PEFT adapter, the optimiser, the random state and the place in the run.

    checkpoint-N/
      adapter_model.safetensors, adapter_config.json     opens with peft as it is
      optimizer.safetensors                              float32 copies, AdamW's moments, a lagged opponent
      state.json                                         step and format

A checkpoint is written under another name, flushed and renamed, so a killed run leaves whole checkpoints only.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from comity.errors import RunError
from comity.runs import read_json, write_json
from comity.training.policy import PolicyOptimizer

FORMAT = 1
ADAM_KEYS = ("step", "exp_avg", "exp_avg_sq")
LAGGED_VERSION = "lagged_version"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The step and the tensors (on the CPU) that a run goes on from; `name` says where they come from."""

    name: str
    step: int
    tensors: dict[str, Tensor]


def save_checkpoint(run: Path, step: int, model: PreTrainedModel, optimizer: PolicyOptimizer, keep: int) -> Path:
    """Write `run/checkpoint-{step}` atomically, delete all but the newest `keep`, and return its path."""
    target = run / f"checkpoint-{step}"
    scratch = run / f".checkpoint-{step}.part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    # Embeddings are never trained here; asking whether to save them looks the base model up on a hub.
    model.save_pretrained(scratch, save_embedding_layers=False)
    (scratch / "README.md").unlink(missing_ok=True)
    save_file(_optimizer_tensors(optimizer), scratch / "optimizer.safetensors")
    write_json(scratch / "state.json", {"format": FORMAT, "step": step})
    for path in scratch.iterdir():
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return target


def list_checkpoints(run: Path) -> list[Path]:
    """Return the whole checkpoints of a run, oldest first."""
    found = [path for path in run.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted((path for path in found if (path / "state.json").is_file()), key=_step_of)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint's tensors and step; raise RunError when it is damaged or of another format."""
    state = read_json(path / "state.json")
    try:
        tensors = load_file(path / "optimizer.safetensors")
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path / 'optimizer.safetensors'}: cannot be read ({error}); delete this checkpoint") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(f"checkpoint {path} does not fit this model: resume with the settings the run began with")
    return Checkpoint(str(path), int(state["step"]), tensors)


def capture(optimizer: PolicyOptimizer) -> Checkpoint:
    """Return what a run holds before its first step, for the processes that begin with it."""
    return Checkpoint("of the first process", 0, _optimizer_tensors(optimizer))


def restore(checkpoint: Checkpoint, optimizer: PolicyOptimizer) -> int:
    """Put adapter weights and optimiser state in place and return the step; raise RunError when they do not fit."""
    tensors = checkpoint.tensors
    found = {name.removeprefix("master/"): t.shape for name, t in tensors.items() if name.startswith("master/")}
    wanted = {name: master.shape for name, master in optimizer.masters.items()}
    if found != wanted:
        raise RunError(
            f"checkpoint {checkpoint.name} does not fit this model: resume with the settings the run began with"
        )
    if optimizer.lagged:
        if not {LAGGED_VERSION, *(f"lagged/{name}" for name in optimizer.lagged)} <= tensors.keys():
            raise RunError(f"checkpoint {checkpoint.name} has no lagged opponent: begin a new run with it")
        optimizer.lagged_version = int(tensors[LAGGED_VERSION])
    parameters = list(optimizer.masters)
    adam_state: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for place, name in enumerate(parameters):
            optimizer.masters[name].copy_(tensors[f"master/{name}"])
            optimizer.parameters[name].copy_(optimizer.masters[name])
            if f"step/{name}" in tensors:  # absent before the first update
                adam_state[place] = {key: tensors[f"{key}/{name}"] for key in ADAM_KEYS}
        for name, weight in optimizer.lagged.items():
            weight.copy_(tensors[f"lagged/{name}"])
    packed = optimizer.adam.state_dict()
    packed["state"] = adam_state
    optimizer.adam.load_state_dict(packed)
    torch.set_rng_state(tensors["random/torch"])
    return checkpoint.step


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))


def _optimizer_tensors(optimizer: PolicyOptimizer) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {"random/torch": torch.get_rng_state()}
    for name, master in optimizer.masters.items():
        tensors[f"master/{name}"] = master.detach().cpu()
        for key, value in optimizer.adam.state.get(master, {}).items():
            tensors[f"{key}/{name}"] = value.detach().cpu().clone()
    if optimizer.lagged:
        tensors[LAGGED_VERSION] = torch.tensor(optimizer.lagged_version)
    tensors |= {f"lagged/{name}": weight.detach().cpu().clone() for name, weight in optimizer.lagged.items()}
    return tensors
