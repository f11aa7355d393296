"""Human ratings as a share of the reward: a head is fitted on them and speaks beside the judge.

People rate few answers and never those of the step that is being played, so what they said reaches new answers through
a head on the frozen base model, fitted as `comity judge calibrate` fits its heads.
"""

from collections.abc import Sequence
from pathlib import Path

from comity.engines.local import LocalEngine
from comity.errors import DataError
from comity.judges.embedded import build_agency_judge
from comity.judges.head import RewardHead
from comity.judges.labels import Label, read_labels
from comity.types import AgencyJudge, Answer, Verdict

HUMAN_HEAD = "human"


def read_human_ratings(path: Path) -> list[Label]:
    """Return the rated answers of a file that the viewer exported, or of any label file of kind agency.

    Raise DataError for a bad row, or when the rows of part train are too few or all the same.
    """
    from comity.judges.calibrate import FEWEST_DILEMMAS

    labels = read_labels("agency", path)
    rated = [label for label in labels if label.part == "train"]
    dilemmas, scores = len({label.dilemma_id for label in rated}), len({label.target for label in rated})
    if dilemmas < FEWEST_DILEMMAS or scores < 2:
        raise DataError(
            f"judges.human {path}: has {len(rated)} training rows on {dilemmas} dilemmas with {scores} different "
            f"scores; rate answers to {FEWEST_DILEMMAS} dilemmas or more, not all alike, and export training rows"
        )
    return labels


def fit_human_head(engine: LocalEngine, labels: Sequence[Label]) -> RewardHead:
    """Fit a head on human ratings; the same ratings give the same head. Its metadata holds the figures of the fit."""
    # Imported here: runs without human ratings need no library that fits.
    from comity.judges.calibrate import CalibrateOptions, fit_head, read_features

    return fit_head(read_features("agency", engine, labels), 0, CalibrateOptions(HUMAN_HEAD))


def build_human_judge(engine: LocalEngine, path: Path, copy_limit: float) -> AgencyJudge:
    """Return the judge that a file of human ratings makes; copies score 0, as with the other heads."""
    return build_agency_judge(engine, fit_human_head(engine, read_human_ratings(path)), copy_limit)


def mix_human_ratings(judge: AgencyJudge, human: AgencyJudge, share: float) -> AgencyJudge:
    """Return a judge whose score is to this share that of the human ratings, and to the rest that of the judge."""

    def mixed(answers: Sequence[Answer]) -> list[Verdict]:
        return [_mix(one, other, share) for one, other in zip(judge(answers), human(answers), strict=True)]

    return mixed


def _mix(judge: Verdict, human: Verdict, share: float) -> Verdict:
    name, prompt = f"{judge.judge} + {human.judge}", f"{judge.template_hash}+{human.template_hash}"
    said = f" ({judge.text})" if judge.text else ""
    if judge.score is None or human.score is None:
        return Verdict(name, prompt, None, f"{judge.judge} unscored{said}")
    text = f"{judge.judge} {judge.score:.3f}{said}, human ratings {human.score:.3f} with a share of {share:g}"
    spread = None
    if judge.uncertainty is not None and human.uncertainty is not None:
        # The two errors are taken as independent.
        spread = (((1 - share) * judge.uncertainty) ** 2 + (share * human.uncertainty) ** 2) ** 0.5
    return Verdict(name, prompt, (1 - share) * judge.score + share * human.score, text, uncertainty=spread)
