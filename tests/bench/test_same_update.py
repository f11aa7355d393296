"""On the same rows, our update, the plain one and TRL's step give an optimiser the same gradients (float32, no KL)."""

from contextlib import contextmanager

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from comity.bench.ours import load_engine, open_update
from comity.bench.plain import learn_plainly
from comity.bench.settings import BenchSettings
from comity.bench.trl import Rounds, arrange_rows, build_trainer
from comity.config import ModelConfig
from comity.training.policy import load_policy, trainable_parameters
from tiny import save_tiny


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = save_tiny(tmp_path_factory.mktemp("bench") / "model")
    return BenchSettings("update", dialogues=6, group_size=3, messages=2, tokens=7, model=str(folder), dtype="float32")


def fill_adapter(model):
    """Give the adapter weights that do something, the same each time."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return trainable_parameters(model)


@contextmanager
def caught_gradients():
    """Return the gradients that the next optimiser's step is given, after clipping, in its own order."""
    caught = []

    def catch(optimizer, args, kwargs):
        caught.append([(p, p.grad.clone()) for group in optimizer.param_groups for p in group["params"]])

    handle = register_optimizer_step_pre_hook(catch)
    yield caught
    handle.remove()


def test_three_ways_give_the_same_gradients(settings, tmp_path):
    engine = load_engine(settings)
    names = list(fill_adapter(engine.model))
    with caught_gradients() as caught:
        outcome = open_update(settings, engine)(0, [])
    ours = dict(zip(names, [gradient for _, gradient in caught[0]], strict=True))

    model = load_policy(ModelConfig(name=settings.model, dtype="float32", device="cpu"))
    parameters = fill_adapter(model)
    with caught_gradients() as caught:
        learn_plainly(model, torch.optim.SGD(parameters.values(), lr=0.1), outcome.rows, settings)
    plain = dict(zip(parameters, [gradient for _, gradient in caught[0]], strict=True))

    rounds = Rounds()
    trainer = build_trainer(settings, rounds, tmp_path)
    known = {id(parameter): name for name, parameter in fill_adapter(trainer.model).items()}
    arrange_rows(rounds, outcome.rows)
    with caught_gradients() as caught:
        trainer.train()
    assert len(caught) == 1  # one step of the optimiser for all rows
    theirs = {known[id(parameter)]: gradient for parameter, gradient in caught[0]}

    assert ours.keys() == plain.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert float(gradient.abs().max()) > 1e-4  # the tolerance says something
        torch.testing.assert_close(plain[name], gradient, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-4, atol=1e-6)
