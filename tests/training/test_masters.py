"""AdamW on float32 copies: equal to AdamW in float32, and nothing lost to rounding."""

import torch

from comity.training.masters import MasterAdamW


def test_equals_adamw_on_float32_parameters():
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(5))
    theirs = torch.nn.Parameter(ours.detach().clone())
    a, b = MasterAdamW([ours], lr=0.1), torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        for parameter, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            (parameter**2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_steps_below_the_resolution_of_bfloat16_add_up():
    # Near 1 bfloat16 knows steps of 1/128; Adam's first steps are lr = 1/1024 each, so alone each is rounded away.
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([parameter], lr=1 / 1024)
    for _ in range(16):
        optimizer.zero_grad()
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    # 16 / 1024 = 2 / 128 below 1; bfloat16 holds 1 - 2/128 exactly.
    assert parameter.item() == 1 - 2 / 128


def test_zero_grad_forgets_the_gradients_of_the_parameters():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = MasterAdamW([parameter], lr=0.1)
    parameter.grad = torch.ones(1)
    optimizer.zero_grad()
    assert parameter.grad is None
