"""Several processes that train one policy together; the only file that imports accelerate.

`accelerate launch -m comity train ...` or `torchrun -m comity train ...` starts the processes and tells each its rank.
Each holds the whole model and plays its share of the step's dialogues. Gradients travel over the device's backend
(NCCL on CUDA, gloo on CPU), everything else as objects over gloo.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed
from torch import Tensor

from comity.errors import ComityError, ConfigError, RunError

T = TypeVar("T")


class ProcessLostError(RunError):
    """Another process of the run ended or did not answer in time."""


WRITER = 0
"""The rank that writes the run directory."""


class Processes(Protocol):
    """What the trainer asks of the processes that train together; every process makes the same calls in order."""

    @property
    def rank(self) -> int:
        """Return the number of this process, from 0."""

    @property
    def world_size(self) -> int:
        """Return how many processes there are."""

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes by rank, in every process."""

    def gather_on_writer(self, value: T) -> list[T]:
        """Return the values of all processes by rank in the writer, [] elsewhere."""

    def broadcast(self, value: T) -> T:
        """Return the writer's value."""

    def close(self) -> None:
        """Leave the group; nothing may be called afterwards."""


@dataclass(frozen=True, slots=True)
class OneProcess:
    """A run in one process, which needs no other."""

    rank: int = 0
    world_size: int = 1

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Leave the tensors as they are: they are the sum."""

    def gather(self, value: T) -> list[T]:
        """Return the one value."""
        return [value]

    def gather_on_writer(self, value: T) -> list[T]:
        """Return the one value."""
        return [value]

    def broadcast(self, value: T) -> T:
        """Return the value."""
        return value

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class ManyProcesses:
    """The members of a torch process group; `objects` is a gloo group of the same members.

    A call raises RunError when another process ended or did not answer in time.
    """

    rank: int
    world_size: int
    objects: Any

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor (all of one type and device) by its sum over all processes."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _named_loss(self.rank, self.world_size):
            torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes by rank, in every process."""
        found: list[Any] = [None] * self.world_size
        with _named_loss(self.rank, self.world_size):
            torch.distributed.all_gather_object(found, value, group=self.objects)
        return found

    def gather_on_writer(self, value: T) -> list[T]:
        """Return the values of all processes by rank in the writer, [] elsewhere."""
        found: list[Any] | None = [None] * self.world_size if is_writer(self) else None
        with _named_loss(self.rank, self.world_size):
            torch.distributed.gather_object(value, found, dst=WRITER, group=self.objects)
        return found or []

    def broadcast(self, value: T) -> T:
        """Return the writer's value."""
        holder: list[Any] = [value]
        with _named_loss(self.rank, self.world_size):
            torch.distributed.broadcast_object_list(holder, src=WRITER, group=self.objects)
        result: T = holder[0]
        return result

    def close(self) -> None:
        """Wait for the others and leave the group."""
        self.gather(None)
        torch.distributed.destroy_process_group()


ONE_PROCESS = OneProcess()


def is_writer(processes: Processes) -> bool:
    """Tell whether this process writes the run directory."""
    return processes.rank == WRITER


def run_on_writer(processes: Processes, function: Callable[[], T]) -> T:
    """Call a function in the writer and return its result everywhere; its errors of users are raised everywhere."""
    outcome: Any = None
    if is_writer(processes):
        try:
            outcome = function()
        except (ComityError, OSError) as error:
            outcome = error
    outcome = processes.broadcast(outcome)
    if isinstance(outcome, ComityError | OSError):
        raise outcome
    result: T = outcome
    return result


def share_of(count: int, processes: Processes) -> slice:
    """Return which of `count` items are this process's: one run of neighbours, sizes differing by at most one."""
    rank, size = processes.rank, processes.world_size
    return slice(rank * count // size, (rank + 1) * count // size)


def require_launcher(device: str) -> int:
    """Return how many processes the launcher announces in the environment, 1 without one.

    Raise ConfigError for a launcher's configuration, or a `model.device`, that several processes cannot have.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return 1
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"model.device is {device!r} in a run of {size} processes: choose auto, cpu or cuda")
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ConfigError(
            "the launcher's configuration asks for DeepSpeed, which does not fit this loop: take one with FSDP2, such "
            "as configs/accelerate/fsdp2.yaml"
        )
    if find_spec("accelerate") is None:
        raise ConfigError(
            f"a run of {size} processes needs accelerate: run `pip install comity[distributed]`, or start one process"
        )
    return size


def require_no_launcher() -> None:
    """Raise ConfigError when a launcher started several processes of a run that Ray spreads."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "cluster.kind is ray, which starts its own processes: start `comity train` without a launcher"
        )


def open_processes(device: str, timeout_seconds: int) -> Processes:
    """Join the group that the launcher announces in the environment, or stand alone without one.

    `device` is the setting `model.device`. Raise ConfigError when the group needs what is not there, RunError when the
    others do not come within `timeout_seconds`.
    """
    size = require_launcher(device)
    if size == 1:
        return ONE_PROCESS
    from accelerate import PartialState

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    # Without it accelerate asks for the number of physical cores, which containers may hide.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    timeout = timedelta(seconds=timeout_seconds)
    with _named_loss(int(os.environ.get("RANK", "0")), size):
        state = PartialState(cpu=on_cpu, timeout=timeout)
        objects = None if on_cpu else torch.distributed.new_group(backend="gloo", timeout=timeout)
    atexit.register(_leave, objects)
    return ManyProcesses(state.process_index, state.num_processes, objects)


def _leave(objects: Any) -> None:
    # A run that an error ends has not left its gloo group. Its threads let go of Python objects, and one that does so
    # while the interpreter ends aborts the whole process, after the error's line and with a status nobody expects.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group(objects)


@contextmanager
def _named_loss(rank: int, size: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ProcessLostError(
            f"process {rank} of {size} lost the others ({first}): see why they ended, then continue with --resume"
        ) from error
