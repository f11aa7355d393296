"""AdamW that keeps float32 copies of parameters of a lower precision."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class MasterAdamW(torch.optim.AdamW):
    """AdamW on float32 copies of the given parameters, which receive the rounded result after every step.

    In bfloat16 an update below 1/256 of a weight is rounded away; the copies keep it (Micikevicius et al. 2018).
    """

    def __init__(self, parameters: Iterable[Tensor], **settings: Any) -> None:
        self.parameters = list(parameters)
        self.masters = [p.detach().float().clone() for p in self.parameters]
        super().__init__(self.masters, weight_decay=settings.pop("weight_decay", 0.0), **settings)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the copies with the parameters' gradients and write them back."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        super().step(closure)
        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                parameter.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters and of their copies."""
        super().zero_grad(set_to_none)
        for parameter in self.parameters:
            parameter.grad = None
