"""A module imports only from its left."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import comity

ORDER = (
    "types", "errors", "settings", "config", "prompts", "access", "scenarios", "negotiation", "runs", "engines",
    "judges", "training", "cluster", "plan", "bench", "evaluation", "report", "viewer", "demo", "study", "cli",
    "__main__",
)  # fmt: skip
ROOT = Path(comity.__file__).parent
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def layer_of(path):
    return path.parts[0].removesuffix(".py")


def imported_modules(source, path):
    """Yield the dotted comity names that a file imports, inside functions too."""
    package = ["comity", *path.parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "comity")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name == "comity":
                yield from (f"comity.{alias.name}" for alias in node.names)
            elif name.startswith("comity."):
                # `from comity.evaluation import signs` imports a module too.
                found = (ROOT / Path(*name.split(".")[1:])).is_dir()
                yield from (f"{name}.{alias.name}" if found else name for alias in node.names)


def wrong_imports(source, path):
    layer = layer_of(path)
    for name in imported_modules(source, path):
        target = name.split(".")[1] if "." in name else ""
        if target not in ORDER:
            continue  # `comity` itself and its __version__
        if ORDER.index(target) > ORDER.index(layer):
            yield name


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_from_its_left(path):
    assert layer_of(path) in ORDER, f"{path}: add the new module to ORDER at its place"
    assert list(wrong_imports((ROOT / path).read_text(encoding="utf-8"), path)) == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from comity.types import Turn", []),
        ("import comity.engines.local", ["comity.engines.local"]),
        ("def f():\n    from comity.judges.agency import x", ["comity.judges.agency"]),
        ("from comity import runs, types", ["comity.runs"]),
        ("from ..training import loss", ["comity.training.loss"]),
        ("from . import protocol", []),
        ("from comity import __version__", []),
    ],
)
def test_the_check_itself_sees_each_form_of_import(source, wrong):
    assert list(wrong_imports(source, Path("negotiation/lockstep.py"))) == wrong


def test_the_protocol_is_pure():
    source = (ROOT / "negotiation" / "protocol.py").read_text(encoding="utf-8")
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names <= {"comity", "dataclasses", "hashlib"}


def test_play_and_runs_load_no_tensor_library():
    code = (
        "import sys, comity.runs, comity.scenarios.load, comity.negotiation.lockstep, comity.engines.scripted\n"
        "print([name for name in ('torch', 'transformers', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
