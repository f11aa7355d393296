"""What the workers of the tests are made of: the tiny model, judges that are plain functions, and deaths on demand.

A file named `die-WHO-VERSION` in the folder of the run kills that worker, once, in the step that the policy of that
version plays; WHO is rollout, judge or trainer. The file is gone then.
"""

import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "invariants"))

from small_session import judge_agency, judge_agreement

import tiny_vllm
from comity.cluster.speakers import LocalPolicy, open_policy
from comity.cluster.workers import Parts
from comity.judges.panel import Panel
from comity.types import Completion, Verdict

MEETING_SECONDS = 600


def is_asked_for(folder, name):
    """Tell whether the file is there, and take it away; of several processes only one is told so."""
    try:
        (Path(folder) / name).unlink()
    except FileNotFoundError:
        return False
    return True


def find_processes(title, above=None):
    """Return the processes below one, this one by default, that Ray gave this title to: `ray::` and an actor's class.

    Those of another Ray on this machine are not below it.
    """
    below = (above or psutil.Process()).children(recursive=True)
    return [found for found in below if read_title(found).startswith(f"ray::{title}")]


def read_title(process):
    """Return the first word of a process's command line, nothing for one that has ended."""
    try:
        return "".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


@contextmanager
def worker_environment():
    """Let Ray's processes find the modules of the tests, and take one thread each."""
    kept = dict(os.environ)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # As `reach_cluster` does where it starts Ray: a slow machine gets time to start Ray's own processes.
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


class MortalPolicy(LocalPolicy):
    """The local engine; on demand its process dies after it was asked and before it has answered."""

    def __init__(self, config):
        super().__init__(config)
        self.folder = config.run.parent

    def __call__(self, requests):
        """Return one completion a request, in order."""
        if is_asked_for(self.folder, f"die-rollout-{self.engine.policy_version}"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(requests)


@dataclass(frozen=True)
class MortalPanel(Panel):
    """Judges; on demand their process, or that of a trainer, dies between the dialogues and their scores."""

    folder: Path = Path()

    def judge(self, negotiations, gated=True):
        """Score ended negotiations."""
        version = negotiations[0].turns[0].completion.policy_version
        if is_asked_for(self.folder, f"die-judge-{version}"):
            os.kill(os.getpid(), signal.SIGKILL)
        if is_asked_for(self.folder, f"die-trainer-{version}"):
            # Ray starts all workers of a machine from one process.
            find_processes("RayTrainWorker", psutil.Process().parent())[0].kill()
        return super().judge(negotiations, gated)


def open_judges(config, _policy):
    """Return the judges of small_session.py."""
    return MortalPanel(judge_agreement, judge_agency, folder=config.run.parent)


PARTS = Parts(MortalPolicy, open_judges)


def open_tiny_vllm(config):
    """Return a worker's vLLM, which `tiny_vllm.py` plays in its process to the end."""
    tiny_vllm.install(pytest.MonkeyPatch())
    return open_policy(config)


VLLM = Parts(open_tiny_vllm, open_judges)


@dataclass
class MeetingEngine:
    """Answer once so many workers hold requests at the same time; the text is the process and the request's seed."""

    folder: Path
    count: int
    version: int = 0

    def install(self, _weights, version):
        """Note the version."""
        self.version = version

    def __call__(self, requests):
        """Return one completion a request, in order; raise TimeoutError when the others do not come in time."""
        (self.folder / f"holds-{os.getpid()}").touch()
        end = time.monotonic() + MEETING_SECONDS
        while len(list(self.folder.glob("holds-*"))) < self.count:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.count} workers did not hold requests at the same time")
            time.sleep(0.01)
        return [Completion(f"{os.getpid()} {request.seed}", policy_version=self.version) for request in requests]


def open_meeting(config):
    """Return an engine that waits for all workers of the run."""
    return MeetingEngine(config.run.parent, config.cluster.workers)


def open_self_judge(config, policy):
    """Return a judge that scores each answer with the version of the policy that judges."""

    def score(answers):
        return [Verdict("self", "", float(policy.version)) for _ in answers]

    return Panel(judge_agreement, score)


MEETING = Parts(open_meeting, open_self_judge)
