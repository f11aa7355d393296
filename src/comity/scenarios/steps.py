"""The rows that a training run draws from, and the scenarios of one of its steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from comity.config import TrainConfig
from comity.scenarios.load import (
    draw_scenarios,
    load_dilemmas,
    load_persona_pairs,
    load_questions,
    relate_personas,
)
from comity.scenarios.rows import Row
from comity.types import Scenario


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What a run negotiates (alone: answers), between whom, and the questions that are mixed in."""

    dilemmas: Sequence[Row]
    pairs: Sequence[Row]
    questions: Sequence[Row] = ()


def load_training_rows(config: TrainConfig) -> TrainingRows:
    """Return the rows that the settings name; raise DataError for a bad row or an empty split."""
    questions = [] if config.questions == "none" else load_questions(config.questions)
    return TrainingRows(
        dilemmas=questions if replaces_dilemmas(config) else load_dilemmas(config.dilemmas, "train"),
        pairs=relate_personas(load_persona_pairs(config.personas), config.personas_relation),
        questions=questions if config.question_share else (),
    )


def replaces_dilemmas(config: TrainConfig) -> bool:
    """Tell whether questions stand in the place of dilemmas, which are then not read."""
    return config.solo and config.questions != "none"


def draw_step(config: TrainConfig, rows: TrainingRows, step: int) -> list[Scenario]:
    """Return the scenarios of a step, which counts from 1: those that are negotiated, then the questions."""
    count = config.optimization.scenarios_per_step
    asked = count_questions(count, config.question_share)
    told = count - asked
    return [
        *draw_scenarios(rows.dilemmas, rows.pairs, (step - 1) * told, told, config.seed, config.solo),
        *draw_scenarios(rows.questions, rows.pairs, (step - 1) * asked, asked, config.seed, solo=True),
    ]


def count_questions(scenarios: int, share: float) -> int:
    """Return how many of a step's scenarios are questions: the share, rounded, but never none nor all of several."""
    if not share:
        return 0
    return min(max(round(share * scenarios), 1), max(scenarios - 1, 1))
