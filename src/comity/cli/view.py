"""The command `comity view`."""

import importlib.util
from pathlib import Path

from rich.console import Console

from comity.cli.progress import print_line
from comity.errors import ConfigError
from comity.viewer.settings import ViewConfig

PACKAGES = ("fastapi", "uvicorn", "krippendorff")


def run_view(runs: Path, config: ViewConfig, console: Console) -> None:
    """Serve the runs, or export one of them; raise ConfigError when the viewer's packages are not installed."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"view needs {package}: run `pip install 'comity[view]'`")
    if config.export:
        from comity.viewer.export import export_run

        print_line(console, f"{export_run(runs, config.export, Path(config.out))} written")
        return
    from comity.viewer.serve import serve

    serve(runs, config, lambda line: print_line(console, line))
