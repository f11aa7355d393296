"""Scoreable games of LLM-Deliberation (Abdelnabi et al. 2024) as transfer cases with exact scores.

A game is a folder: `config.txt` names the parties (name, file, role, attitude, model), `global_instructions.txt` the
situation, `individual_instructions/ATTITUDE/FILE.txt` what each wants, `scores_files/FILE.txt` the worth of each
option, one line an issue, and in the last line the least total that the party accepts. Each stakeholder keeps `scores`
(issue to option to points), `threshold`, `role` and `attitude`, so that a deal such as A1,B2,C3,D4,E5 needs no judge.
"""

import re
from pathlib import Path
from string import ascii_uppercase

from comity.errors import DataError
from comity.scenarios.rows import Row

Scores = dict[str, dict[str, int]]
_PLACE = re.compile(r"#([A-Z])(\d+|_MAX)_NUM")


def import_games(path: Path) -> list[Row]:
    """Return one transfer row for a game's folder, or for each game in a folder of games; raise DataError."""
    if not path.is_dir():
        raise DataError(f"--input {path}: is no folder; give a game's folder, with config.txt in it")
    folders = [path] if (path / "config.txt").is_file() else sorted(p.parent for p in path.glob("*/config.txt"))
    if not folders:
        raise DataError(f"--input {path}: neither it nor a folder in it has config.txt; give a game's folder")
    return [_read_game(folder) for folder in folders]


def _read_game(folder: Path) -> Row:
    parties = [line.split(",") for line in _read(folder / "config.txt").splitlines() if line.strip()]
    stakeholders = []
    for number, party in enumerate(parties, 1):
        if len(party) < 4:
            raise DataError(
                f"{folder / 'config.txt'}, party number {number}: has {len(party)} fields; "
                "write name, file, role, attitude and model with commas"
            )
        stakeholders.append(_read_party(folder, *(word.strip() for word in party[:4])))
    return {
        "id": f"game-{folder.resolve().name}",
        "title": folder.resolve().name,
        "situation": " ".join(_read(folder / "global_instructions.txt").split()),
        "stakeholders": stakeholders,
        "initial_deal": _read(folder / "initial_deal.txt").strip(),
    }


def _read_party(folder: Path, name: str, file: str, role: str, attitude: str) -> Row:
    scores, threshold = _read_scores(folder / "scores_files" / f"{file}.txt")
    place = folder / "individual_instructions" / attitude / f"{file}.txt"
    text = _PLACE.sub(lambda match: _fill_score(match, scores, place), _read(place))
    return {
        "name": name,
        "interests": f"{' '.join(text.split())} You accept no deal worth less than {threshold} points to you.",
        "secret": True,
        "scores": scores,
        "threshold": threshold,
        "role": role,
        "attitude": attitude,
    }


def _read_scores(path: Path) -> tuple[Scores, int]:
    lines = [line for line in _read(path).splitlines() if line.strip()]
    try:
        numbers = [[int(word) for word in line.split(",")] for line in lines]
    except ValueError as error:
        raise DataError(f"{path}: holds no numbers ({error}); write one line of scores an issue") from error
    if len(numbers) < 2 or len(numbers[-1]) != 1:
        raise DataError(f"{path}: has no threshold in its last line; write the least acceptable total there")
    *issues, (threshold,) = numbers
    return {
        letter: {f"{letter}{option}": points for option, points in enumerate(line, 1)}
        for letter, line in zip(ascii_uppercase, issues, strict=False)
    }, threshold


def _fill_score(match: re.Match[str], scores: Scores, place: Path) -> str:
    letter, option = match.groups()
    try:
        return str(max(scores[letter].values()) if option == "_MAX" else scores[letter][letter + option])
    except KeyError:
        raise DataError(f"{place}: names {match.group()}, which the party's scores file does not have") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); a game needs this file") from error
