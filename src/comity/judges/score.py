"""Judge the rows of a file: `comity judge score`."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from comity.judges.labels import ITEM_FIELDS, Kind, to_item
from comity.scenarios.rows import Row, read_rows, write_rows
from comity.types import AgencyJudge, AgreementJudge, Answer, RoundEnding, Verdict


def score_file(
    kind: Kind,
    source: Path,
    output: Path,
    judge: AgreementJudge | AgencyJudge,
    again: Sequence[AgreementJudge | AgencyJudge] = (),
) -> list[Row]:
    """Judge every row of `source`, write all to `output` and return them; other fields of a row are kept.

    `again` is the same judge, to be asked anew: the rows then stand once for each ask and gain its number, `repeat`.

    Agency rows {"id", "dilemma", "answer"} gain `score` (0 to 5 or null). Agreement rows {"id", "dilemma", "persona_a",
    "persona_b", "message_a", "message_b"} gain `agreed` (true, false or null). Both gain `reason` where the judge gives
    one. Raise DataError for a bad row.
    """
    rows = read_rows(source, ITEM_FIELDS[kind])
    items, scored = [to_item(kind, row) for row in rows], []
    for repeat, one in enumerate((judge, *again)):
        number = {"repeat": repeat} if again else {}
        verdicts = judge_items(kind, items, one)
        scored += [_join(kind, row, verdict) | number for row, verdict in zip(rows, verdicts, strict=True)]
    write_rows(output, scored)
    return scored


def judge_items(
    kind: Kind, items: Sequence[Answer | RoundEnding], judge: AgreementJudge | AgencyJudge
) -> Sequence[Verdict]:
    """Return one verdict an item from a judge of this kind."""
    if kind == "agency":
        return cast(AgencyJudge, judge)([item for item in items if isinstance(item, Answer)])
    return cast(AgreementJudge, judge)([item for item in items if isinstance(item, RoundEnding)])


def _join(kind: Kind, row: Row, verdict: Verdict) -> Row:
    found: Row = {"score": verdict.score} if kind == "agency" else {"agreed": verdict.agreed}
    if verdict.text:
        found["reason"] = verdict.text
    return row | found
