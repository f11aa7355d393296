"""The environment of vLLM and what runs in it; see scripts/setup-vllm-cpu.sh.

Nothing here is bounded in time: on a machine that is busy with other work vLLM took seven minutes to start and
half a minute for a token. Whoever waits, waits for a line in the log, as long as the process that shall write it lives.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = {"timeout_seconds": 7200.0, "token_seconds": 7200.0}
"""Settings of rollouts with which no server counts as slow."""


def find_python():
    """Return the interpreter that has vLLM; skip the test when there is none."""
    python = Path(os.environ.get("COMITY_VLLM_PYTHON", ROOT / ".venv-vllm/bin/python"))
    if not python.exists():
        pytest.skip(f"vLLM is not installed at {python}: scripts/setup-vllm-cpu.sh, or set COMITY_VLLM_PYTHON")
    return python


def require_modules(*names):
    """Skip the test when vLLM's environment lacks one of these modules."""
    code = "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))"
    if subprocess.run([str(find_python()), "-c", code, *names], check=False).returncode:
        pytest.skip(f"vLLM's environment lacks one of {', '.join(names)}: scripts/setup-vllm-cpu.sh")


def environment():
    """Return what vLLM and our modules in it need."""
    return {
        **os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else it stays on one core, also when others work there
        "VLLM_ENGINE_READY_TIMEOUT_S": "7200", "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "7200",  # its own time-outs
    }  # fmt: skip


@contextmanager
def start(log, *words):
    """Run the interpreter with these words until the block ends; all that it and its processes say goes to `log`."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(find_python()), *words],
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it starts processes of its own, which shall end with it
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def serve(log, folder, *options):
    """Run `vllm serve` on a free port until the block ends; yield its address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "1024", *options]
    with start(log, "-m", "vllm.entrypoints.cli.main", *words) as process:
        while "Application startup complete" not in log.read_text():
            if process.poll() is not None:
                pytest.fail("vllm serve did not start:\n" + "\n".join(log.read_text().splitlines()[-30:]))
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
