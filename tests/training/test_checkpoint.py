"""Checkpoints: whole or not there, few, without pickle, and refused when they are another run's."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from comity.config import OptimizationConfig
from comity.errors import RunError
from comity.training.checkpoint import list_checkpoints, read_checkpoint, restore, save_checkpoint
from comity.training.policy import PolicyOptimizer, trainable_parameters
from tiny import build_model


def build_policy(folder, rank=4, targets="all-linear"):
    """Return the tiny model, known under the folder it was saved in, with a fresh adapter, and its optimiser."""
    base = build_model()
    base.name_or_path = base.config._name_or_path = str(folder)
    model = get_peft_model(base, LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM"))
    return model, PolicyOptimizer.create(model, OptimizationConfig(learning_rate=1e-2))


def learn(model, optimizer, step=1, seed=0):
    """Take one optimiser step on random gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in trainable_parameters(model).values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.collect()
    optimizer.step(step)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_of_a_checkpoint(tiny_folder, tmp_path):
    model, optimizer = build_policy(tiny_folder)
    learn(model, optimizer)
    path = save_checkpoint(tmp_path, 1, model, optimizer, keep=2)
    assert path == tmp_path / "checkpoint-1"
    # No pickle: safetensors and JSON only.
    assert names(path) == ["adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors", "state.json"]
    assert json.loads((path / "state.json").read_text())["step"] == 1
    assert names(tmp_path) == ["checkpoint-1"]


def test_save_and_load_give_back_every_tensor(tiny_folder, tmp_path):
    model, optimizer = build_policy(tiny_folder)
    for step in (1, 2, 3):
        learn(model, optimizer, step, seed=step)
    path = save_checkpoint(tmp_path, 3, model, optimizer, keep=1)
    random_before = torch.get_rng_state()
    torch.rand(7)
    other, other_optimizer = build_policy(tiny_folder)
    assert restore(read_checkpoint(path), other_optimizer) == 3
    assert torch.equal(torch.get_rng_state(), random_before)
    for name, parameter in trainable_parameters(model).items():
        assert torch.equal(parameter, trainable_parameters(other)[name]), name
        kept, loaded = optimizer.masters[name], other_optimizer.masters[name]
        assert torch.equal(kept, loaded)
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.adam.state[kept][key], other_optimizer.adam.state[loaded][key])
    # And the next step is the same, which needs all of it.
    learn(model, optimizer, 4, seed=4)
    learn(other, other_optimizer, 4, seed=4)
    for name, parameter in trainable_parameters(model).items():
        assert torch.equal(parameter, trainable_parameters(other)[name]), name


def test_run_without_any_update_yet_is_saved_and_resumed(tiny_folder, tmp_path):
    # All groups of the first steps may be without spread; AdamW has no moments then.
    model, optimizer = build_policy(tiny_folder)
    path = save_checkpoint(tmp_path, 1, model, optimizer, keep=1)
    other, other_optimizer = build_policy(tiny_folder)
    assert restore(read_checkpoint(path), other_optimizer) == 1
    learn(model, optimizer, 2)
    learn(other, other_optimizer, 2)
    for name, parameter in trainable_parameters(model).items():
        assert torch.equal(parameter, trainable_parameters(other)[name]), name


def test_bfloat16_adapter_keeps_what_rounding_would_lose(tiny_folder, tmp_path):
    model, optimizer = build_policy(tiny_folder)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    name, master = next(iter(optimizer.masters.items()))
    with torch.no_grad():
        master.fill_(1 + 2**-12)  # bfloat16 has 8 bits: it would be 1
    path = save_checkpoint(tmp_path, 1, model, optimizer, keep=1)
    _, other = build_policy(tiny_folder)
    restore(read_checkpoint(path), other)
    assert bool((other.masters[name] == 1 + 2**-12).all())


def test_opens_with_peft_as_it_is(tiny_folder, tmp_path):
    model, optimizer = build_policy(tiny_folder)
    learn(model, optimizer)
    path = save_checkpoint(tmp_path, 1, model, optimizer, keep=1)
    opened = PeftModel.from_pretrained(build_model(), str(path)).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad(), model.disable_adapter():
        plain = model(input_ids=ids).logits
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
        assert torch.equal(opened(input_ids=ids).logits, expected)
    assert not torch.allclose(plain, expected, atol=1e-3)  # the adapter does something


def test_newest_are_kept_in_order_of_their_numbers(tiny_folder, tmp_path):
    model, optimizer = build_policy(tiny_folder)
    for step in (2, 8, 9, 10):  # as words, "10" comes before "2"
        save_checkpoint(tmp_path, step, model, optimizer, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-9"]


def test_what_a_killed_save_leaves_is_ignored_and_overwritten(tiny_folder, tmp_path):
    model, optimizer = build_policy(tiny_folder)
    save_checkpoint(tmp_path, 4, model, optimizer, keep=3)
    scratch = tmp_path / ".checkpoint-5.part"
    shutil.copytree(tmp_path / "checkpoint-4", scratch)
    (scratch / "stale.bin").write_bytes(b"stale")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-4"]
    path = save_checkpoint(tmp_path, 5, model, optimizer, keep=3)
    assert "stale.bin" not in names(path)
    assert not scratch.exists()


def test_a_checkpoint_is_never_seen_half_written(tiny_folder, tmp_path):
    model, optimizer = build_policy(tiny_folder)
    save_checkpoint(tmp_path, 1, model, optimizer, keep=2)
    # The optimiser cannot be written: what a full disk or a kill would leave.
    optimizer.masters["no tensor"] = "text"
    with pytest.raises((AttributeError, TypeError, ValueError)):
        save_checkpoint(tmp_path, 2, model, optimizer, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1"]
    assert not (tmp_path / "checkpoint-2").exists()


def test_other_names_are_not_checkpoints(tiny_folder, tmp_path):
    model, optimizer = build_policy(tiny_folder)
    save_checkpoint(tmp_path, 1, model, optimizer, keep=2)
    shutil.copytree(tmp_path / "checkpoint-1", tmp_path / "checkpoint-best")
    (tmp_path / "checkpoint-7").mkdir()  # half deleted: no state.json
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1"]
    assert list_checkpoints(tmp_path / "nowhere") == []


@pytest.fixture
def saved(tiny_folder, tmp_path):
    model, optimizer = build_policy(tiny_folder)
    learn(model, optimizer)
    return save_checkpoint(tmp_path, 1, model, optimizer, keep=2)


@pytest.mark.parametrize(
    ("rank", "targets"),
    [(8, "all-linear"), (1, "all-linear"), (4, ["q_proj"]), (4, ["q_proj", "embed_tokens"])],
    ids=["larger rank", "rank that broadcasts", "fewer modules", "other modules"],
)
def test_checkpoint_of_another_adapter_is_refused_and_changes_nothing(tiny_folder, saved, rank, targets):
    model, optimizer = build_policy(tiny_folder, rank, targets)
    before = {name: p.detach().clone() for name, p in trainable_parameters(model).items()}
    with pytest.raises(RunError, match="does not fit this model"):
        restore(read_checkpoint(saved), optimizer)
    assert all(torch.equal(p, before[name]) for name, p in trainable_parameters(model).items())


@pytest.mark.parametrize("content", ['{"format": 99, "step": 1}', "{}", "[]", "{", None])
def test_foreign_or_damaged_state_is_refused(tiny_folder, saved, content):
    if content is None:
        (saved / "state.json").unlink()
    else:
        (saved / "state.json").write_text(content)
    with pytest.raises(RunError):
        restore(read_checkpoint(saved), build_policy(tiny_folder)[1])


@pytest.mark.parametrize("damage", ["missing", "torn", "foreign"])
def test_foreign_or_damaged_optimizer_file_is_refused(tiny_folder, saved, damage):
    path = saved / "optimizer.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(RunError):
        restore(read_checkpoint(saved), build_policy(tiny_folder)[1])


def test_masters_are_written_in_float32(saved):
    tensors = load_file(saved / "optimizer.safetensors")
    assert {t.dtype for name, t in tensors.items() if name.startswith("master/")} == {torch.float32}
