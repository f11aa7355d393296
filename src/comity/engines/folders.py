"""Where comity keeps what it can make again: converted models, indexes of runs."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return the cache folder: `COMITY_CACHE`, else `XDG_CACHE_HOME`/comity, else `~/.cache/comity`."""
    if "COMITY_CACHE" in os.environ:
        return Path(os.environ["COMITY_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "comity"
