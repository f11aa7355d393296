"""What one process does without a group, how work is split, and what is said when the group cannot be made."""

import subprocess
import sys

import pytest
import torch

from comity.config import OptimizationConfig
from comity.errors import ConfigError, RunError
from comity.training.distributed import ONE_PROCESS, OneProcess, is_writer, open_processes, run_on_writer, share_of
from comity.training.trainer import require_work


def test_one_process_is_the_whole_group():
    tensor = torch.tensor([1.0, 2.0])
    ONE_PROCESS.sum_tensors([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    assert ONE_PROCESS.gather(3) == ONE_PROCESS.gather_on_writer(3) == [3]
    assert ONE_PROCESS.broadcast("x") == "x"
    assert is_writer(ONE_PROCESS)
    assert run_on_writer(ONE_PROCESS, lambda: 7) == 7


def test_an_error_of_the_writer_is_raised():
    def fail():
        raise RunError("run x exists")

    with pytest.raises(RunError, match="run x exists"):
        run_on_writer(ONE_PROCESS, fail)


@pytest.mark.parametrize(
    ("count", "size", "shares"),
    [
        (16, 2, [(0, 8), (8, 16)]),  # 2 scenarios of 8 rollouts: a scenario each
        (16, 3, [(0, 5), (5, 10), (10, 16)]),  # 16/3 = 5.33, 32/3 = 10.67, rounded down
        (3, 3, [(0, 1), (1, 2), (2, 3)]),
        (5, 1, [(0, 5)]),
    ],
)
def test_shares_are_neighbours_and_cover_everything_once(count, size, shares):
    found = [share_of(count, OneProcess(rank, size)) for rank in range(size)]
    assert [(part.start, part.stop) for part in found] == shares


def test_more_processes_than_dialogues_are_refused():
    settings = OptimizationConfig(scenarios_per_step=2, group_size=4)
    require_work(8, settings)
    with pytest.raises(ConfigError, match=r"2 x group_size 4 is less than the 9 processes: .* at most 8 processes"):
        require_work(9, settings)


def test_a_group_needs_a_device_that_each_process_can_take(monkeypatch):
    assert open_processes("cuda:1", 5) is ONE_PROCESS
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="'cuda:1' in a run of 2 processes: choose auto, cpu or cuda"):
        open_processes("cuda:1", 5)


def test_one_process_needs_no_accelerate():
    code = (
        "import sys\n"
        "sys.modules['accelerate'] = None\n"
        "from comity.training.distributed import ONE_PROCESS, open_processes\n"
        "assert open_processes('auto', 5) is ONE_PROCESS\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
