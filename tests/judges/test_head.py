"""The reward head: hand-made weights, its file, and files that are none."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from comity.errors import ModelError
from comity.judges.embedded import load_shipped_head
from comity.judges.head import RewardHead, load_head, save_head


def make_head(kind="agency", **changes):
    """Return a head of two features that is easy to follow by hand."""
    head = RewardHead(
        kind=kind,
        name="mine",
        model="tiny",
        layers=(1,),
        pooling="answer:mean",
        weights=np.array([2, -1], np.float32),
        bias=1.0,
        feature_mean=np.array([1, 0], np.float32),
        feature_std=np.array([2, 1], np.float32),
        directions=np.array([[1, 0]], np.float16),
        direction_variances=np.array([0.25], np.float32),
        prior_variance=0.5,
        residual_std=0.4,
        mean_variance=1.75,
        offset=0.5,
        metadata={"template_hash": "abc", "figures": {"heldout_rows": {"spearman": 1 / 3}}, "command": "naïve ‹x›"},
    )
    return dataclasses.replace(head, **changes)


# z is (1, 1), (3, 0) and (-2, 0): raw 2 - 1 + 1 = 2, 6 + 1 = 7 and -4 + 1 = -3.
FEATURES = np.array([[3, 1], [7, 0], [-3, 0]], np.float32)


def test_agency_scores_by_hand():
    score, std = make_head().predict(FEATURES)
    assert score.tolist() == [2.5, 5.0, 0.0]  # 7.5 and -2.5 are clipped
    # Variances: 1 + 0.25 + 0.5 * 1 = 1.75; 1 + 9 * 0.25 = 3.25; 1 + 4 * 0.25 = 2.
    np.testing.assert_allclose(std, [0.4, 0.4 * (3.25 / 1.75) ** 0.5, 0.4 * (2 / 1.75) ** 0.5], rtol=1e-12)


def test_errors_may_be_larger_at_some_scores():
    # Between half the error at 0 and one and a half times at 5; raw 2 has the score 2.5, halfway: times 1.
    _, std = make_head(error_by_score=(0.5, 1.5)).predict(FEATURES)
    np.testing.assert_allclose(std, [0.4, 1.5 * 0.4 * (3.25 / 1.75) ** 0.5, 0.5 * 0.4 * (2 / 1.75) ** 0.5], rtol=1e-12)


def test_slope_scales_scores_and_their_deviations():
    score, std = make_head(slope=0.5, offset=0.25).predict(FEATURES)
    assert score.tolist() == [1.25, 3.75, 0.0]
    assert std[0] == pytest.approx(0.2)
    _, std = make_head(slope=100.0).predict(FEATURES)
    assert std.tolist() == [2.5] * 3  # more than half the scale would say nothing


def test_agreement_probabilities_by_hand():
    head = make_head("agreement", slope=np.log(3.0), offset=-2 * np.log(3.0))
    probability, std = head.predict(np.array([[3, 1], [3, 0], [3, 2]], np.float32))  # raw 2, 3, 1: log-odds 0, 1, -1
    np.testing.assert_allclose(probability, [1 / 2, 3 / 4, 1 / 4], rtol=1e-12)
    assert std[0] == pytest.approx(1 / 4 * np.log(3) * 0.4)
    extreme, std = make_head("agreement", slope=1e6).predict(FEATURES)
    assert np.all((extreme > 0) & (extreme < 1))
    assert np.all(std <= 0.5)


def test_features_of_layers_and_pieces_are_read_in_order():
    score, _ = make_head().predict(FEATURES.reshape(3, 1, 2, 1))  # (N, layers, pieces, D)
    assert score.tolist() == [2.5, 5.0, 0.0]


def test_features_of_another_model_are_refused():
    with pytest.raises(ModelError, match=r"'mine' expects 2 features but the model gives 3: .*\(tiny\)"):
        make_head().predict(np.zeros((4, 3), np.float32))


def test_a_head_comes_back_bit_for_bit(tmp_path):
    draw = np.random.default_rng(0)
    head = make_head(
        "agreement",
        weights=draw.normal(size=7).astype(np.float32),
        feature_mean=draw.normal(size=7).astype(np.float32),
        feature_std=draw.uniform(1, 2, 7).astype(np.float32),
        directions=draw.normal(size=(7, 3)).astype(np.float16).T,  # not contiguous
        direction_variances=draw.uniform(size=3).astype(np.float32),
        bias=0.1 + 0.2,
        residual_std=1 / 3,
        threshold=0.37,
        layers=(4, 9),
    )
    path = tmp_path / "deep" / "head.safetensors"
    save_head(head, path)
    again = load_head(path)
    for field in dataclasses.fields(head):
        before, after = getattr(head, field.name), getattr(again, field.name)
        if isinstance(before, np.ndarray):
            assert (after.dtype, after.shape) == (before.dtype, before.shape)
            assert after.tobytes() == np.ascontiguousarray(before).tobytes()
        else:
            assert (after, type(after)) == (before, type(before)), field.name
    features = draw.normal(size=(5, 7)).astype(np.float32)
    for one, other in zip(head.predict(features), again.predict(features), strict=True):
        assert one.tobytes() == other.tobytes()
    assert [item.name for item in path.parent.iterdir()] == ["head.safetensors"]  # no scratch file is left
    save_head(again, tmp_path / "twice.safetensors")
    assert load_head(tmp_path / "twice.safetensors").metadata == head.metadata


def test_the_file_is_safetensors_with_a_json_header_and_no_pickle(tmp_path):
    path = tmp_path / "head.safetensors"
    save_head(make_head(), path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    assert {entry["dtype"] for entry in tensors.values()} <= {"F32", "F16"}  # numbers only: nothing that can run
    assert len(data) == 8 + length + max(entry["data_offsets"][1] for entry in tensors.values())
    assert json.loads(header["__metadata__"]["metadata"])["command"] == "naïve ‹x›"


@pytest.mark.parametrize("which", ["missing", "folder", "empty", "text", "torn", "pickle"])
def test_a_file_that_is_no_head_is_refused(tmp_path, which):
    path = tmp_path / "head.safetensors"
    save_head(make_head(), path)
    data = path.read_bytes()
    path.unlink()
    if which == "folder":
        path.mkdir()
    elif which != "missing":
        contents = {"empty": b"", "text": b"hello there, this is no head", "torn": data[:-3], "pickle": b"\x80\x04N."}
        path.write_bytes(contents[which])
    with pytest.raises(ModelError) as caught:
        load_head(path)
    assert str(caught.value).startswith(f"{path}: cannot be loaded as a reward head (")


def test_every_torn_beginning_of_a_head_is_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    save_head(make_head(), path)
    data = path.read_bytes()
    for size in range(0, len(data), 29):
        path.write_bytes(data[:size])
        with pytest.raises(ModelError):
            load_head(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "is not a comity reward head"),
        ({"format": "comity-head-0"}, "is not a comity reward head"),
        ({"format": "comity-head-1"}, "cannot be loaded as a reward head"),
        ({"format": "comity-head-1", "settings": "{", "metadata": "{}"}, "cannot be loaded as a reward head"),
        ({"format": "comity-head-1", "settings": '{"layers": [1]}', "metadata": "{}"}, "cannot be loaded"),
    ],
)
def test_foreign_safetensors_are_refused(tmp_path, metadata, message):
    path = tmp_path / "other.safetensors"
    save_file({"weights": np.zeros(2, np.float32)}, path, metadata=metadata)
    with pytest.raises(ModelError, match=message):
        load_head(path)


@pytest.mark.parametrize("kind", ["agency", "agreement"])
def test_shipped_heads_of_a_pair_share_no_layer(kind):
    training, heldout = (load_shipped_head(kind, which) for which in ("training", "heldout"))
    assert (training.kind, training.name) == (kind, "training")
    assert (heldout.kind, heldout.name) == (kind, "heldout")
    assert (training.metadata["rows_part"], heldout.metadata["rows_part"]) == ("larger", "smaller")
    assert all(abs(one - other) >= 2 for one in training.layers for other in heldout.layers)
