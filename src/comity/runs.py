"""The run directory and its only writer.

    RUN/
      config.json              every setting, the seed, the commit and the versions of the libraries
      metrics.jsonl            one row a step; `step` counts from 1; keys are `area/quantity`
      negotiations/            step-000001.jsonl ...: one row a dialogue (see `negotiation_row`)
      checkpoint-N/            adapter, optimiser, random state after step N (see training/checkpoint.py)
      evaluation/              before.jsonl, after.jsonl (negotiation rows), results.json
      summary.json             the figures of a finished demo
      report.html              written by `comity report`

Rows are appended with one write and flushed to disk; on resume, rows and files after the checkpoint are dropped.
"""

import dataclasses
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comity.config import ClusterConfig, TrainConfig, to_plain
from comity.errors import RunError
from comity.negotiation.protocol import rounds_played
from comity.scenarios.rows import Row, write_rows
from comity.types import Completion, Judged, Negotiation

FREE_IN_CLUSTER = tuple(
    f"cluster.{item.name}" for item in dataclasses.fields(ClusterConfig) if item.name != "max_staleness"
)
"""Where the parts of a run live may change on resume; how old the policy that speaks may be may not."""


def describe_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings of a run as it records them; the human ratings carry a hash of what they are.

    With other ratings in the same file a run would go on with another reward, so it refuses to resume.
    """
    plain = to_plain(config)
    if config.judges.human != "none":
        path = Path(config.judges.human)
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise RunError(f"judges.human {path}: cannot be read ({error.strerror}); give a JSONL file") from error
        plain["judges"]["human"] = f"{path} sha256:{digest}"
    return plain


def create_run(run: Path, config: dict[str, Any], resume: bool) -> None:
    """Make or reopen a run directory.

    Raise RunError when it holds another run, or on resume when its settings differ in more than the number of steps,
    where it lies, how models behind addresses are reached and what they may cost.
    """
    check_run(run, config, resume)
    if not (run / "config.json").exists():
        write_json(run / "config.json", {"settings": config, "commit": find_commit(), "versions": _versions()})


def check_run(run: Path, config: dict[str, Any], resume: bool) -> None:
    """Raise RunError where `create_run` would; nothing is written."""
    path = run / "config.json"
    if path.exists() and not resume:
        raise RunError(f"run {run} exists: add --resume to continue it, or choose another --run")
    if not path.exists():
        return
    content = read_json(path)
    before = content.get("settings") if isinstance(content, dict) else None
    if not isinstance(before, dict):
        raise RunError(f"{path}: was not written by comity (no settings); choose another --run")
    # What an older version did not know was as it is by default now.
    different = sorted(_differences(_add_defaults(before, to_plain(TrainConfig()), config), config))
    if different:
        key = different[0]
        raise RunError(
            f"run {run} was started with another {key}: resume with the same settings, or choose another --run"
        )


def read_json(path: Path) -> Any:
    """Return a JSON file's content; raise RunError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); give a run directory written by comity") from error
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error}); delete it or choose another run") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    scratch.write_text(text, encoding="utf-8", errors="backslashreplace")  # a lone surrogate becomes a JSON escape
    scratch.replace(path)


def append_metrics(run: Path, row: dict[str, float]) -> None:
    """Append one step's metrics and flush them to disk."""
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Return the metrics rows of a run, [] before its first step; a torn last line is left out."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def truncate_run(run: Path, step: int) -> None:
    """Drop what was written after `step`, so that a resumed run writes it anew."""
    kept = [row for row in read_metrics(run) if row["step"] <= step]
    write_rows(run / "metrics.jsonl", kept)
    for path in (run / "negotiations").glob("step-*.jsonl"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()


def write_negotiations(run: Path, step: int, rows: Sequence[Row]) -> None:
    """Write the dialogues of one step."""
    write_rows(run / "negotiations" / f"step-{step:06d}.jsonl", rows)


def read_negotiations(path: Path) -> list[Row]:
    """Return the negotiation rows of one file; raise RunError when it is missing or damaged."""
    try:
        # Not splitlines(), which also splits at characters that JSON texts may hold, such as U+2028.
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); give a run directory written by comity") from error
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error}); delete it or choose another run") from error


TokenText = Callable[[int], str]
"""The text of one token id."""


def negotiation_row(
    judged: Judged,
    advantage: float | None = None,
    token_text: TokenText | None = None,
    reread: Sequence[NDArray[np.float32]] = (),
) -> Row:
    """Return one dialogue as a plain row.

    Keys: scenario, dilemma, tier, domain, personas (list), sample, ending, rounds, messages [{seat, text, finish,
    tokens}], checks [{round, agreed, probability, reason}], completion (text or null), reward (0-5, 0 without
    agreement, null when unscored), score (judge's CA score of the completion or null), uncertainty, reasons,
    heldout_agreed, heldout_score, advantage, policy_version (the training step after which the policy was what spoke
    for seat 0; null when it spoke as several). With `token_text` each message that a local engine sampled has `sampled`
    {ids, texts, logprobs}, and the joint answer `completion_sampled`. `reread` adds to each, in order, `new_logprobs`:
    those of the policy after the step (see `training/reread.py`).
    """
    negotiation = judged.negotiation
    completion = negotiation.completion
    scored = judged.verdicts[0] if judged.verdicts else None
    texts = [turn.completion for turn in negotiation.turns] + ([completion] if completion else [])
    stored = [
        {} if token_text is None else {"sampled": _sampled(text, token_text, reread[place : place + 1])}
        for place, text in enumerate(texts)
    ]
    sampled = {"completion_sampled": stored[-1]["sampled"]} if completion and token_text else {}
    return {
        "scenario": negotiation.scenario.id,
        "dilemma": negotiation.scenario.dilemma,
        "tier": negotiation.scenario.tier,
        "domain": negotiation.scenario.domain,
        "personas": [persona.objective for persona in negotiation.scenario.personas],
        "sample": negotiation.sample,
        "ending": negotiation.ending,
        "rounds": rounds_played(negotiation),
        "messages": [
            {
                "seat": turn.seat,
                "text": turn.completion.text,
                "finish": turn.completion.finish,
                "tokens": len(turn.completion.token_ids),
                **tokens,
            }
            for turn, tokens in zip(negotiation.turns, stored, strict=False)
        ],
        "checks": [
            {"round": c.round, "agreed": c.agreed, "probability": c.probability, "reason": c.reason}
            for c in negotiation.checks
        ],
        "completion": completion.text if completion else None,
        "reward": judged.reward,
        "score": scored.score if scored else None,
        "uncertainty": scored.uncertainty if scored else None,
        "reasons": [v.text for v in judged.verdicts if v.text],
        "heldout_agreed": judged.heldout_agreed,
        "heldout_score": judged.heldout_score,
        "advantage": advantage,
        "policy_version": _find_version(negotiation),
        **sampled,
    }


def _find_version(negotiation: Negotiation) -> int | None:
    versions = {turn.completion.policy_version for turn in negotiation.turns if turn.seat == 0}
    return versions.pop() if len(versions) == 1 else None


def _sampled(
    completion: Completion, token_text: TokenText, reread: Sequence[NDArray[np.float32]]
) -> dict[str, list[Any]]:
    ids = completion.token_ids.tolist()
    sampled = {"ids": ids, "texts": [token_text(token) for token in ids], "logprobs": _rounded(completion.logprobs)}
    return sampled | ({"new_logprobs": _rounded(reread[0])} if reread else {})


def _rounded(logprobs: NDArray[np.float32]) -> list[float]:
    # Four decimals of a natural logarithm: a probability to a hundredth of a per cent of itself.
    return [round(value, 4) for value in logprobs.tolist()]


def _add_defaults(before: dict[str, Any], defaults: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    joined = before | {key: defaults[key] for key in after if key not in before and key in defaults}
    for key, value in before.items():
        tables = (defaults.get(key), after.get(key))
        if isinstance(value, dict) and isinstance(tables[0], dict) and isinstance(tables[1], dict):
            joined[key] = _add_defaults(value, tables[0], tables[1])
    return joined


def _differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> set[str]:
    free = {
        "run", "resume", "optimization.steps", "optimization.token_budget", "save_every", "keep_checkpoints",
        "trackers", "process_timeout_seconds", "access", "judges.max_unscored_share", "judges.parted",
        "judges.parted_steps", "judges.parted_errors", "store_tokens", "rollouts", *FREE_IN_CLUSTER,
    }  # fmt: skip
    found: set[str] = set()
    for key in before.keys() | after.keys():
        old, new, name = before.get(key), after.get(key), prefix + key
        if name in free:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found |= _differences(old, new, name + ".")
        elif old != new:
            found.add(name)
    return found


def find_commit() -> str | None:
    """Return the commit that the working directory stands at, None outside a repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in ("comity", "torch", "transformers", "peft", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
