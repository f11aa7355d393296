"""The models of a comparison in memory: one base model with every adapter beside it."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

from comity.config import ModelConfig
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.engines.seating import Player
from comity.training.policy import adapter_folder, attach_adapter, require_adapter, resolve_device


def find_adapters(settings: ModelConfig, models: Mapping[str, str]) -> dict[str, Path | None]:
    """Return the folder of each model's adapter, None for the base model; raise ModelError for one that is missing."""
    folders: dict[str, Path | None] = {}
    for name, adapter in models.items():
        if adapter == "none":
            folders[name] = None
            continue
        folder = adapter_folder(dataclasses.replace(settings, adapter=adapter))
        require_adapter(folder)
        folders[name] = folder
    return folders


def load_players(settings: ModelConfig, folders: Mapping[str, Path | None]) -> dict[str, Player]:
    """Load the base model once, attach every adapter to it, and return one player a model; they share one engine.

    Raise ModelError when an adapter does not fit.
    """
    model = load_model(settings.name, settings.dtype, resolve_device(settings.device), settings.quantization)
    # PEFT's names of adapters take no dots, so folders and models have places for names; equal folders share one.
    places = {folder: f"player{i}" for i, folder in enumerate(dict.fromkeys(f for f in folders.values() if f))}
    for folder, place in places.items():
        model = attach_adapter(model, folder, name=place)
    engine = LocalEngine(model, load_tokenizer(settings.name), settings.thinking)
    return {name: Player(engine, places[folder] if folder else None) for name, folder in folders.items()}


def hash_adapter(settings: ModelConfig, adapter: str) -> str | None:
    """Return the SHA-256 of an adapter's weights, None for no adapter, the folder's name where it has no such file."""
    if adapter == "none":
        return None
    folder = adapter_folder(dataclasses.replace(settings, adapter=adapter))
    path = folder / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(folder)
