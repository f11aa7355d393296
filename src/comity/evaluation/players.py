"""The models of a comparison: one base model in memory with every adapter beside it, and models behind addresses."""

import dataclasses
import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from comity.access import ModelAccess, open_access
from comity.config import AccessConfig, ModelConfig
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.engines.seating import Player
from comity.engines.served import build_served_player, is_served
from comity.training.policy import adapter_folder, attach_adapter, require_adapter, resolve_device
from comity.types import Responder

SHIPPED_ACCESS = AccessConfig()


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


@dataclass(frozen=True)
class Players:
    """The models of a comparison by their names, the engine that the local ones share, and the open servers."""

    engine: LocalEngine
    responders: Mapping[str, Responder]
    served: tuple[ModelAccess, ...]

    def close(self) -> None:
        """Close the connections to servers."""
        for access in self.served:
            access.close()


def find_local_adapters(settings: ModelConfig, models: Mapping[str, str]) -> dict[str, Path | None]:
    """Do as `find_adapters` for the models that are not behind an address."""
    return find_adapters(settings, {name: adapter for name, adapter in models.items() if not is_served(adapter)})


def open_players(
    settings: ModelConfig, models: Mapping[str, str], access: AccessConfig = SHIPPED_ACCESS, run: str = ""
) -> Players:
    """Open the servers among `models` and load the base model once, with every adapter attached to it.

    Judges read the base too, so it is loaded even where all players are servers. What servers cost is booked under
    `run`. Raise ModelError when an adapter does not fit, ConfigError when a key or an address is missing.
    """
    folders = find_local_adapters(settings, models)
    with ExitStack() as opened:
        # A missing key is found in a moment, a model is loaded in minutes.
        served = {
            name: opened.enter_context(open_access(address, access, run))
            for name, address in models.items()
            if name not in folders
        }
        model = load_model(settings.name, settings.dtype, resolve_device(settings.device), settings.quantization)
        # PEFT's names of adapters take no dots, so folders and models have places for names; equal folders share one.
        places = {folder: f"player{i}" for i, folder in enumerate(dict.fromkeys(f for f in folders.values() if f))}
        for folder, place in places.items():
            model = attach_adapter(model, folder, name=place)
        engine = LocalEngine(model, load_tokenizer(settings.name), settings.thinking)
        opened.pop_all()
    responders: dict[str, Responder] = {
        name: Player(engine, places[folder] if folder else None) for name, folder in folders.items()
    }
    responders |= {name: build_served_player(one) for name, one in served.items()}
    return Players(engine, responders, tuple(served.values()))


def hash_adapter(settings: ModelConfig, adapter: str) -> str | None:
    """Return the SHA-256 of an adapter's weights, None for no adapter, the folder's name where it has no such file.

    Of a model behind an address nothing but its name is known.
    """
    if adapter == "none":
        return None
    if is_served(adapter):
        return adapter
    folder = adapter_folder(dataclasses.replace(settings, adapter=adapter))
    path = folder / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(folder)
