"""A real Ray on this machine, and the runs of one process that training under it is held against."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "invariants")]

# Ray 2.60 sets old options of its own, and leaves its processes to the end of the interpreter.
OF_RAY = (
    "ignore:`use_[a-z0-9_]+` is deprecated:DeprecationWarning",
    "ignore:subprocess [0-9]+ is still running:ResourceWarning",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for line in OF_RAY:
                item.add_marker(pytest.mark.filterwarnings(line))


@pytest.fixture(scope="module")
def ray_here():
    """Start Ray once for a file: places for two trainers, two rollout workers and two judges."""
    from crews import worker_environment

    from comity.cluster.start import reach_cluster
    from comity.config import ClusterConfig

    settings = ClusterConfig(kind="ray", trainers=2, workers=2, judges=2, object_store_mb=80)
    with worker_environment(), reach_cluster(settings):
        yield


@pytest.fixture
def small_config(tiny_folder, tmp_path):
    """Return the settings of small_session.py with its rows in files, for a run in this test's folder."""
    from small_session import DILEMMAS, PAIRS, build_config

    for name, rows in (("dilemmas", DILEMMAS), ("personas", PAIRS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = build_config(tiny_folder, tmp_path / "run")
    files = {"dilemmas": str(tmp_path / "dilemmas.jsonl"), "personas": str(tmp_path / "personas.jsonl")}
    return replace(config, process_timeout_seconds=1200, **files)


@pytest.fixture(scope="module")
def alone(tiny_folder, tmp_path_factory):
    """Return the run of one process with the settings of `small_config`."""
    from small_session import build_config, build_session

    from comity.runs import create_run, describe_settings
    from comity.training.trainer import run_steps

    config = build_config(tiny_folder, tmp_path_factory.mktemp("alone") / "run")
    create_run(config.run, describe_settings(config), resume=False)
    run_steps(build_session(config))
    return config.run
