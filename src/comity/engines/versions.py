"""A policy as servers know it: an adapter in a folder, under a name that follows from its bytes.

A server that was restarted, or that lagged behind, does not know the name and says so; and under a name that it does
know it cannot hold other weights. So no reply can come from another policy than the one that was asked.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

NAMED = "comity-"
"""What the names of adapters begin with."""


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A policy that servers can speak for; `folder=None` is the base model without an adapter.

    `number` is the training step after which it was the policy, and is stamped on what it says.
    """

    number: int
    name: str = ""
    folder: Path | None = None


def leave_adapter(model: PreTrainedModel, root: Path, number: int) -> PolicyVersion:
    """Write the model's adapter into a folder below `root`, unless it is there, and return it as a version.

    Several processes with the same weights may do so at once. The folder appears whole or not at all.
    """
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=root, prefix=".writing-"))
    try:
        model.save_pretrained(scratch, save_embedding_layers=False)
        (scratch / "README.md").unlink(missing_ok=True)
        scratch.chmod(0o755)  # servers may run as another user
        name = NAMED + _hash_adapter(scratch)
        folder = root / name
        if not folder.exists():
            try:
                scratch.rename(folder)
            except OSError:
                # Another process was first; a folder without the weights is a real failure.
                if not (folder / "adapter_model.safetensors").is_file():
                    raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return PolicyVersion(number, name, folder)


def _hash_adapter(folder: Path) -> str:
    # Of the settings, those that change what the weights mean: the order of others in the file may differ.
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    meaning = json.dumps([settings.get(key) for key in ("r", "lora_alpha", "use_rslora", "use_dora")])
    digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes() + meaning.encode())
    return digest.hexdigest()[:16]
