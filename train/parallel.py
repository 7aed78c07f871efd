"""Several processes on one training run, as torchrun starts them; one process is the same thing with a world of 1."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from rtchord.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process (`rank` of `world`) and the device it computes on."""

    rank: int
    world: int
    device: torch.device

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, float64 on the CPU; every process gets the same."""
        numbers = numbers.detach().to(self.device, torch.float64)
        if self.world > 1:
            distributed.all_reduce(numbers)
        return numbers.cpu()


@contextmanager
def processes(device: str) -> Iterator[Ranks]:
    """The process group that torchrun's environment describes: gloo on CPUs, NCCL on GPUs, one GPU a process.

    `device`: "cpu", "cuda" or "auto" (a GPU if there is one). UserError where a GPU is asked for and none is there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; use --device cpu")
    rank, world, local = (int(os.environ.get(name, default)) for name, default in
                          (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))  # fmt: skip
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs; start one for each"
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    else:
        place = torch.device("cpu")
    if world == 1:
        yield Ranks(0, 1, place)
        return
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world, place)
    finally:
        distributed.destroy_process_group()


def made_ahead(make: Callable[[int], T], steps: range, ahead: int) -> Iterator[T]:
    """make(step) for every step, in order; `ahead` of them are under way in threads while one is used."""
    if not ahead:
        yield from map(make, steps)
        return
    with ThreadPoolExecutor(ahead) as pool:
        waiting = deque(pool.submit(make, step) for step in steps[:ahead])
        for step in steps:
            ready = waiting.popleft().result()
            if step + ahead < steps.stop:
                waiting.append(pool.submit(make, step + ahead))
            yield ready
