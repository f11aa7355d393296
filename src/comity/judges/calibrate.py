"""Fit a reward head: choose by cross-validation on training rows, fit on all of them, test on held-out rows.

Two heads are fitted of each kind. The training head gives rewards. The held-out head never trains anything: it reads
other layers and was fitted on other dilemmas, so that a policy that fools one need not fool the other.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from comity.engines.local import LocalEngine
from comity.engines.models import EMBEDDED
from comity.errors import DataError, ModelError
from comity.judges.features import TEMPLATES, extract_features
from comity.judges.head import RewardHead, save_head
from comity.judges.labels import Kind, Label
from comity.judges.metrics import Array, best_threshold, measure
from comity.judges.reliability import measure_asking, measure_reliability
from comity.judges.selection import PIECES, Choice, choose_settings, solve_ridge, standardise
from comity.prompts import hash_template

LAYERS = (8, 10, 12, 14, 16, 18, 20)
DEPTH = 30
"""Candidate layers of a model of this depth, the embedded one's; another model has those as deep in proportion."""
LARGER_SHARE = 0.65
"""The share of training dilemmas that the training head sees; the held-out head sees the rest."""
RANK = 96
"""How many directions of the training features keep their own posterior variance."""
FEWEST_DILEMMAS = 16
SCORE_PLACES = 11
"""Scores from 0 to 5 at which a head keeps how large its errors are."""
SCORE_WIDTH = 0.5
"""How far around such a score errors count: the standard deviation of a normal weight, in points."""

RowsPart = Literal["all", "larger", "smaller"]


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """The pooled hidden states (N, layers, pieces, D) of labelled rows, read once for every candidate."""

    kind: Kind
    rows: tuple[Label, ...]
    layers: tuple[int, ...]
    blocks_NLPD: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CalibrateOptions:
    """What tells two heads of one kind apart, and what their metadata should say."""

    name: str = "training"
    model: str = EMBEDDED
    rows_part: RowsPart = "all"
    """`larger` and `smaller` split the training rows by dilemma, about 65 to 35."""
    exclude_layers_near: tuple[int, ...] = ()
    """Layers that the head must not read, nor their neighbours."""
    command: str = ""


def calibrate(
    kind: Kind,
    engine: LocalEngine,
    rows: Sequence[Label],
    out: Path,
    seed: int = 0,
    options: CalibrateOptions = CalibrateOptions(),
) -> RewardHead:
    """Fit one head on labelled rows and write it; its `metadata` holds the figures."""
    head = fit_head(read_features(kind, engine, rows), seed, options)
    save_head(head, out)
    return head


def calibrate_pair(
    kind: Kind, engine: LocalEngine, rows: Sequence[Label], folder: Path, seed: int = 0, model: str = EMBEDDED
) -> tuple[RewardHead, RewardHead]:
    """Fit and write `KIND_training.safetensors` and `KIND_heldout.safetensors` from one reading of the rows."""
    table = read_features(kind, engine, rows)
    command = f"calibrate_pair({kind!r}, seed={seed}, model={model!r})"
    training = fit_head(table, seed, CalibrateOptions("training", model, "larger", (), command))
    second = CalibrateOptions("heldout", model, "smaller", training.layers, command)
    heldout = fit_head(table, seed, second)
    for head in (training, heldout):
        save_head(head, folder / f"{kind}_{head.name}.safetensors")
    return training, heldout


def read_features(kind: Kind, engine: LocalEngine, rows: Sequence[Label]) -> FeatureTable:
    """Encode the rows once and keep every piece of every candidate layer; raise DataError without any row."""
    if not rows:
        raise DataError(f"calibrate {kind}: no row has a label; label rows first")
    layers = candidate_layers(engine.model.config.get_text_config().num_hidden_layers)
    blocks_NLPD = extract_features(engine, kind, [row.item for row in rows], layers, PIECES[kind])
    return FeatureTable(kind, tuple(rows), layers, blocks_NLPD)


def candidate_layers(count: int) -> tuple[int, ...]:
    """Return the layers that a head may read of a model with `count`: those of LAYERS, scaled to its depth."""
    return tuple(sorted({max(1, round(layer * count / DEPTH)) for layer in LAYERS}))


def fit_head(table: FeatureTable, seed: int, options: CalibrateOptions) -> RewardHead:
    """Choose settings, fit and test one head; raise DataError when the rows are too few."""
    kind = table.kind
    layers = [layer for layer in table.layers if all(abs(layer - x) >= 2 for x in options.exclude_layers_near)]
    if not layers:
        raise ModelError(
            f"calibrate {kind}: no layer is left for the head {options.name!r}: choose a deeper model, or fit "
            "one head with --single"
        )
    places = [table.layers.index(layer) for layer in layers]
    train = [
        i for i, row in enumerate(table.rows) if row.part == "train" and in_part(row.dilemma_id, options.rows_part)
    ]
    test = [i for i, row in enumerate(table.rows) if row.part == "heldout"]
    groups = [(row.dilemma_id, row.author if row.source == "written" else "") for row in (table.rows[i] for i in train)]
    target_N = np.array([table.rows[i].target for i in train])
    dilemmas = len({dilemma for dilemma, _ in groups})
    if dilemmas < FEWEST_DILEMMAS or len(set(target_N)) < 2:
        raise DataError(
            f"calibrate {kind}: {len(train)} training rows on {dilemmas} dilemmas are too few; "
            f"label rows with different scores on at least {FEWEST_DILEMMAS} dilemmas"
        )
    with threadpool_limits(limits=1):  # the solves are small: more threads would only wait for each other
        choice = choose_settings(kind, table.blocks_NLPD[train][:, places], layers, target_N, groups, seed)
    features = _select(table, choice)
    head = _fit(kind, features[train], target_N, choice, options)
    calibrated_N = _apply_calibration(head, choice.raw_N)
    figures: dict[str, Any] = {"cross_validation": measure(kind, calibrated_N, target_N, head.threshold)}
    if choice.author_figure is not None:
        figures["author_left_out"] = {"spearman" if kind == "agency" else "auc": choice.author_figure}
    held_out = [table.rows[i] for i in test]
    figures |= _test(head, held_out, features[test])
    if held_out:
        truth_N = np.array([row.target for row in held_out])
        head.metadata["reliability"] = measure_reliability(head, features[test], truth_N)
        head.metadata["asking"] = measure_asking(head, features[test], truth_N)
    head.metadata.update(
        template_hash=hash_template(TEMPLATES[kind]),
        rows_train=len(train),
        rows_heldout=len(test),
        rows_part=options.rows_part,
        strength=choice.strength,
        seed=seed,
        command=options.command,
        figures=figures,
    )
    return head


def _test(head: RewardHead, rows: Sequence[Label], features_NF: NDArray[np.float32]) -> dict[str, Any]:
    # Figures on held-out rows: all, and those of each source where both have some.
    if not rows:
        return {}
    score_N, _ = head.predict(features_NF)
    truth_N = np.array([row.target for row in rows])
    figures = {"heldout_rows": measure(head.kind, score_N, truth_N, head.threshold)}
    sources = sorted({row.source for row in rows})
    for source in sources if len(sources) > 1 else ():
        of_source = np.array([row.source == source for row in rows])
        figures[f"heldout_{source}"] = measure(head.kind, score_N[of_source], truth_N[of_source], head.threshold)
    return figures


def in_part(dilemma_id: str, part: RowsPart) -> bool:
    """Return whether a dilemma belongs to a part of the training rows; its id alone decides."""
    draw = int.from_bytes(hashlib.sha256(dilemma_id.encode()).digest()[:4], "big") / 2**32
    return part == "all" or (draw < LARGER_SHARE) == (part == "larger")


def describe_head(head: RewardHead) -> str:
    """Return a head's settings and figures in one line."""
    figures = "; ".join(
        f"{name} " + " ".join(f"{key} {value:.3f}" for key, value in values.items())
        for name, values in head.metadata.get("figures", {}).items()
    )
    settings = f"layers {list(head.layers)} {head.pooling} on {head.metadata['rows_train']} rows"
    return f"{head.kind} {head.name}: {settings}; {figures}"


def _select(table: FeatureTable, choice: Choice) -> NDArray[np.float32]:
    pieces = PIECES[table.kind].split("+")
    layers = [table.layers.index(layer) for layer in choice.layers]
    chosen = [pieces.index(piece) for piece in choice.pooling.split("+")]
    return table.blocks_NLPD[:, layers][:, :, chosen].reshape(len(table.rows), -1)


def _fit(
    kind: Kind, features_NF: NDArray[np.float32], target_N: Array, choice: Choice, options: CalibrateOptions
) -> RewardHead:
    mean_F, std_F = standardise(features_NF)
    z_NF = ((features_NF - mean_F) / std_F).astype(np.float64)
    width = z_NF.shape[1]
    dual_N = solve_ridge(z_NF @ z_NF.T / width, target_N - target_N.mean(), choice.strength)
    directions_RF, variances_R = _posterior(z_NF, choice.strength)
    slope, offset, threshold = _calibration(kind, choice, target_N)
    head = RewardHead(
        kind=kind,
        name=options.name,
        model=options.model,
        layers=choice.layers,
        pooling=choice.pooling,
        weights=(z_NF.T @ dual_N / width).astype(np.float32),
        bias=float(target_N.mean()),
        feature_mean=mean_F,
        feature_std=std_F,
        directions=directions_RF,
        direction_variances=variances_R,
        prior_variance=1 / (choice.strength * width),
        residual_std=float(np.sqrt(((choice.raw_N - target_N) ** 2).mean())),
        mean_variance=1.0,
        slope=slope,
        offset=offset,
        threshold=threshold,
    )
    if kind == "agency":
        head = replace(head, error_by_score=_measure_errors(head, choice, target_N))
    # Variances of rows that were fitted are too small, so the mean comes from a fifth that was not.
    left = np.arange(len(z_NF)) % 5 == 0
    directions_RF, variances_R = _posterior(z_NF[~left], choice.strength)
    partial = replace(head, directions=directions_RF, direction_variances=variances_R)
    return replace(head, mean_variance=float(partial.posterior_variance(z_NF[left].astype(np.float32)).mean()))


def _posterior(z_NF: Array, strength: float) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    # A weight has the prior variance 1 / (strength * F) relative to the noise; rows with the eigenvalue e along an
    # eigenvector of the Gram matrix shrink it to 1 / ((strength + e) * F).
    width = z_NF.shape[1]
    eigenvalues, vectors = np.linalg.eigh(z_NF @ z_NF.T / width)
    known = int((eigenvalues > 1e-9 * eigenvalues[-1]).sum())  # the rest is rounding: centring, or rows beyond F
    top = slice(len(eigenvalues) - min(RANK, known), None)
    directions_RF = (vectors[:, top].T @ z_NF) / np.sqrt(eigenvalues[top] * width)[:, None]
    return directions_RF.astype(np.float16), (1 / ((strength + eigenvalues[top]) * width)).astype(np.float32)


def _calibration(kind: Kind, choice: Choice, target_N: Array) -> tuple[float, float, float]:
    raw_M, target_M = _left_out(choice, target_N)
    if kind == "agency":
        slope, offset = np.polyfit(raw_M, target_M, 1)
        return float(slope), float(offset), 0.5
    platt = LogisticRegression(C=1e6).fit(raw_M[:, None], target_M > 0.5)
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    return slope, offset, best_threshold(1 / (1 + np.exp(-(slope * raw_M + offset))), target_M)


def _measure_errors(head: RewardHead, choice: Choice, target_N: Array) -> tuple[float, ...]:
    # Left-out values in the middle of the scale are wrong by more than those at its ends.
    raw_M, target_M = _left_out(choice, target_N)
    score_M = _apply_calibration(head, raw_M)
    squares_M = (score_M - target_M) ** 2
    weight_PM = np.exp(-0.5 * ((np.linspace(0, 5, SCORE_PLACES)[:, None] - score_M) / SCORE_WIDTH) ** 2)
    # A little of the error on the whole, so that scores which no row comes near have one too.
    local_P = (weight_PM @ squares_M + squares_M.mean()) / (weight_PM.sum(1) + 1)
    return tuple(float(value) for value in np.sqrt(local_P / squares_M.mean()))


def _left_out(choice: Choice, target_N: Array) -> tuple[Array, Array]:
    # Values for unseen dilemmas and for an unseen author count alike, so that probabilities are not overconfident.
    known = ~np.isnan(choice.author_raw_N)
    return np.concatenate([choice.raw_N, choice.author_raw_N[known]]), np.concatenate([target_N, target_N[known]])


def _apply_calibration(head: RewardHead, raw_N: Array) -> Array:
    linear_N = head.slope * raw_N + head.offset
    return np.clip(linear_N, 0, 5) if head.kind == "agency" else 1 / (1 + np.exp(-linear_N))
