"""A run judged by a real model server, killed twice: each verdict is bought once, by the server's own count.

`pytest tests/invariants/test_model_server.py -s` prints what was measured. The server is `transformers serve` with the
embedded model; so small a model seldom gives a verdict that can be read, and what it says otherwise is unscored.
"""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest
from test_external_judges import assert_same_run, words

from comity.engines.models import resolve_model
from comity.runs import read_metrics

CONNECTIONS = 2
SERVE = "from transformers.cli.transformers import main; main()"
RECEIVED, ANSWERED = "[Request received]", '"POST /v1/chat/completions HTTP/1.1" 200 OK'
START_SECONDS, STEP_SECONDS = 300, 600


class Server:
    """A running server, read line by line."""

    def __init__(self, process, name, port):
        self.process, self.name, self.port = process, name, port
        self.lines, self.changed = [], threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()

    def count(self, word):
        return sum(word in line for line in self.lines)

    def wait_for(self, condition, seconds):
        """Wait until the log fulfils a condition; return whether it did in time."""
        with self.changed:
            return self.changed.wait_for(lambda: condition(self), seconds)

    def environment(self):
        address = f"http://127.0.0.1:{self.port}/v1"
        return {"LOCAL_BASE_URL": address, "LOCAL_API_KEY": "none", "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"}


@contextmanager
def serve_embedded():
    """Serve the embedded model on a free port; skip the test when the server does not start."""
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        pytest.skip("`transformers serve` lacks packages: pip install 'comity[models,view]'")
    folder = resolve_model("embedded")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The server knows the model by the name that it was given, so it is started beside the folder.
    name = os.path.basename(folder)
    options = [name, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "bfloat16"]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", *options],
        cwd=os.path.dirname(folder),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        server = Server(process, name, port)
        if not server.wait_for(lambda log: log.count("Uvicorn running") or process.poll() is not None, START_SECONDS):
            pytest.skip(f"`transformers serve` was not ready after {START_SECONDS} s: {server.lines[-1:]}")
        if process.poll() is not None:
            pytest.skip(f"`transformers serve` ended at once: {server.lines[-1:]}")
        yield server
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def read_ledger(path):
    """Return calls, distinct questions, answered calls, tokens in, tokens out and dollars of all runs."""
    query = (
        "SELECT COUNT(*), COUNT(DISTINCT key), SUM(answered), SUM(input_tokens), SUM(output_tokens), SUM(dollars) "
        "FROM calls"
    )
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchone()


def kill_while_it_asks(command, server, environment, answered):
    """Run the command and kill it after so many answers, while every connection waits for one."""
    lost = server.count(RECEIVED) - server.count(ANSWERED)  # at the kill before

    def is_time(log):
        # A connection asks anew once its last answer is booked: here nothing is between the server and the ledger.
        under_way = log.count(RECEIVED) - log.count(ANSWERED) - lost
        return log.count(ANSWERED) >= answered and under_way == CONNECTIONS

    with subprocess.Popen(command, env=environment) as process:
        reached = server.wait_for(lambda log: process.poll() is not None or is_time(log), STEP_SECONDS)
        ended = process.poll() is not None
        process.kill()
    assert reached, "the run did not ask so much in time"
    assert not ended, "the run ended before it was to be killed"


@pytest.mark.slow
@pytest.mark.scale
def test_a_killed_run_buys_each_verdict_of_a_model_server_once(tmp_path):
    with serve_embedded() as server:
        model = f"openai-api/local/{server.name}"
        prices = tmp_path / "prices.toml"
        prices.write_text(f'[dollars_per_million_tokens]\n"{model}" = {{ input = 1.0, output = 2.0 }}\n')
        settings = {
            "judges.agreement": model, "judges.agency": model, "judges.reply_tokens": 24,
            "judges.max_unscored_share": 1.0, "access.connections": CONNECTIONS, "access.prices": prices,
            "access.cache": tmp_path / "verdicts.sqlite", "optimization.agreement_gate": "false",
            "optimization.scenarios_per_step": 1, "optimization.learning_rate": 1e-4, "model.dtype": "bfloat16",
            "save_every": 1,
        }  # fmt: skip
        environment = os.environ | server.environment()
        command = [sys.executable, "-m", "comity", *words("embedded", tmp_path / "killed", 3, **settings)]
        begun = time.monotonic()
        # A step has 4 rollouts, so 4 agreement and 4 agency verdicts: the kills fall into steps 1 and 2.
        kill_while_it_asks(command, server, environment, 2)
        kill_while_it_asks([*command, "--resume"], server, environment, 11)
        subprocess.run([*command, "--resume"], env=environment, check=True)
        seconds = time.monotonic() - begun

        received, sent = server.count(RECEIVED), server.count(ANSWERED)
        calls, questions, answered, tokens_in, tokens_out, dollars = read_ledger(tmp_path / "verdicts.sqlite")
        assert calls == questions == answered == sent
        # Only what was under way at a kill came to the server a second time.
        assert received - sent == 2 * CONNECTIONS
        assert dollars == pytest.approx((tokens_in * 1.0 + tokens_out * 2.0) / 1e6)
        rows = read_metrics(tmp_path / "killed")
        assert [row["step"] for row in rows] == [1, 2, 3]

        # A run that nothing stops needs the very same verdicts and ends with the same bytes.
        whole = [sys.executable, "-m", "comity", *words("embedded", tmp_path / "whole", 3, **settings)]
        subprocess.run(whole, env=environment, check=True)
        assert (server.count(RECEIVED), server.count(ANSWERED)) == (received, sent)
        assert read_ledger(tmp_path / "verdicts.sqlite")[0] == calls
    assert_same_run(tmp_path / "whole", tmp_path / "killed", 3)
    figures = {
        "requests received": received, "replies sent": sent, "paid calls": calls, "distinct questions": questions,
        "tokens in": tokens_in, "tokens out": tokens_out, "dollars": dollars, "seconds": round(seconds, 1),
        "unscored": [row["unscored/share"] for row in rows],
    }  # fmt: skip
    print(json.dumps(figures))
