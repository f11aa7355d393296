"""The reward head: ridge regression on pooled hidden states, stored as one safetensors file without pickle."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from comity.errors import ModelError
from comity.judges.labels import Kind

FORMAT = "comity-head-1"
HIGHEST_SCORE = 5.0
_ARRAYS = ("weights", "feature_mean", "feature_std", "directions", "direction_variances")


@dataclass(frozen=True, slots=True)
class RewardHead:
    """A fitted judge head with F = layers x pieces x D features.

    The raw value of a row with standardised features z (F,) is weights @ z + bias. An agency score is
    slope * raw + offset, clipped to 0..5; an agreement probability is sigmoid(slope * raw + offset) (Platt 1999), and
    `threshold` is the probability from which it counts as agreed. The posterior variance of the raw value (relative to
    the noise) uses `directions` (R, F), the leading eigenvectors of the training features, with their posterior
    variances (R,); `prior_variance` holds in every other direction. `residual_std` is the cross-validated standard
    deviation of raw errors at the mean posterior variance `mean_variance`. `error_by_score` says for agency how large
    errors are at equally spaced scores from 0 to 5, as a multiple of `residual_std`; empty means equally large.
    """

    kind: Kind
    name: str
    model: str
    layers: tuple[int, ...]
    pooling: str
    weights: NDArray[np.float32]
    bias: float
    feature_mean: NDArray[np.float32]
    feature_std: NDArray[np.float32]
    directions: NDArray[np.float16]
    direction_variances: NDArray[np.float32]
    prior_variance: float
    residual_std: float
    mean_variance: float
    slope: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    error_by_score: tuple[float, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    def predict(self, features_NF: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return calibrated scores (N,) and their standard deviations (N,), both in the unit of the score.

        Raise ModelError when the features do not have the head's F.
        """
        raw_N, std_N = self.predict_raw(features_NF)
        linear_N = self.slope * raw_N + self.offset
        if self.kind == "agency":
            score_N = np.clip(linear_N, 0.0, HIGHEST_SCORE)
            if self.error_by_score:
                places = np.linspace(0, HIGHEST_SCORE, len(self.error_by_score))
                std_N = std_N * np.interp(score_N, places, self.error_by_score)
            return score_N, np.minimum(abs(self.slope) * std_N, HIGHEST_SCORE / 2)
        probability_N = 1 / (1 + np.exp(-np.clip(linear_N, -30, 30)))
        # The delta method; a probability's standard deviation is at most one half.
        return probability_N, np.minimum(probability_N * (1 - probability_N) * abs(self.slope) * std_N, 0.5)

    def predict_raw(self, features_NF: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return raw values (N,) of the regression and the standard deviations (N,) of a label around them."""
        features_NF = features_NF.reshape(len(features_NF), -1)
        if features_NF.shape[1] != len(self.weights):
            raise ModelError(
                f"head {self.name!r} expects {len(self.weights)} features but the model gives {features_NF.shape[1]}: "
                f"use the model it was fitted on ({self.model}), or calibrate a head for this one"
            )
        z_NF = (features_NF - self.feature_mean) / self.feature_std
        raw_N = z_NF.astype(np.float64) @ self.weights.astype(np.float64) + self.bias
        return raw_N, self.residual_std * np.sqrt(self.posterior_variance(z_NF) / self.mean_variance)

    def posterior_variance(self, z_NF: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the posterior variance (N,) of raw values of standardised features, relative to the noise."""
        along_NR = z_NF.astype(np.float64) @ self.directions.astype(np.float64).T
        rest_N = np.maximum((z_NF.astype(np.float64) ** 2).sum(1) - (along_NR**2).sum(1), 0)
        variance_N: NDArray[np.float64] = (
            1 + along_NR**2 @ self.direction_variances.astype(np.float64) + rest_N * self.prior_variance
        )
        return variance_N


def save_head(head: RewardHead, path: Path) -> None:
    """Write a head as one safetensors file with its settings and figures as JSON in the file's header."""
    plain = {
        name: getattr(head, name)
        for name in RewardHead.__dataclass_fields__
        if name not in _ARRAYS and name != "metadata"
    }
    header = {
        "format": FORMAT,
        "settings": json.dumps(plain),
        "metadata": json.dumps(head.metadata, ensure_ascii=False, sort_keys=True),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    save_file({name: np.ascontiguousarray(getattr(head, name)) for name in _ARRAYS}, scratch, metadata=header)
    scratch.chmod(0o644)
    scratch.replace(path)


def load_head(path: Path) -> RewardHead:
    """Read a head; raise ModelError when the file is missing, damaged or something else."""
    try:
        with safe_open(path, framework="numpy") as stream:
            header = stream.metadata() or {}
            if header.get("format") != FORMAT:
                raise ModelError(
                    f"{path}: is not a comity reward head; give a file written by `comity judge calibrate`"
                )
            settings = json.loads(header["settings"])
            arrays = {name: stream.get_tensor(name) for name in _ARRAYS}
            metadata = json.loads(header["metadata"])
        for name in ("layers", "error_by_score"):
            settings[name] = tuple(settings.get(name, ()))
        return RewardHead(**settings, **arrays, metadata=metadata)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: cannot be loaded as a reward head ({error}); calibrate it again with `comity judge calibrate`"
        ) from error
