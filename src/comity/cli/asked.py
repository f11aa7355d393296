"""The judges that `comity judge audit` and `attack` ask: opened once each, closed together, and what they have cost."""

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from comity.cli.judging import build_asked
from comity.cli.spending import describe_spend
from comity.config import EvaluateConfig, ScoreConfig

if TYPE_CHECKING:
    from rich.console import Console

    from comity.engines.local import LocalEngine
    from comity.judges.labels import Kind
    from comity.judges.named import JudgeSources
    from comity.types import AgencyJudge, AgreementJudge, PreferenceJudge


class AskedJudges:
    """Builds judges by name; what they need is closed with `opened`, and their bills are booked under `run`."""

    def __init__(self, opened: ExitStack, config: ScoreConfig, run: str) -> None:
        self._opened, self._config, self._run = opened, config, run
        self._sources: dict[str, JudgeSources] = {}
        self._base: LocalEngine | None = None

    def build(self, kind: "Kind", name: str, repeat: int = 0) -> "AgreementJudge | AgencyJudge":
        """Return a judge by kind, name and number of the ask; both embedded heads share one base model."""
        from comity.judges.audit_run import EMBEDDED_JUDGES
        from comity.judges.embedded import build_agency_judge, build_agreement_judge, load_shipped_head

        if name not in EMBEDDED_JUDGES:
            return build_asked(self._open(name), kind, name, repeat)
        head = load_shipped_head(kind, "training" if name == EMBEDDED_JUDGES[0] else "heldout")
        limit = self._config.judges.copy_limit
        if kind == "agency":
            return build_agency_judge(self._load_base(), head, limit)
        return build_agreement_judge(self._load_base(), head, limit)

    def build_preference(self, name: str) -> "PreferenceJudge":
        """Return the judge that compares two answers: by the prompt for it, of a head by its scores of both."""
        from comity.judges.preference import prefer_by_score

        if answers_prompts(name):
            return self._open(name).build_preference(name)
        judge = self.build("agency", name)
        return prefer_by_score(judge, EvaluateConfig().tie_margin)  # type: ignore[arg-type]  # of kind agency

    def print_spend(self, console: "Console") -> None:
        """Print what each judge behind an address has cost."""
        from comity.cli.progress import print_line

        for spend in [spend for opened in self._sources.values() for spend in opened.read_spend()]:
            print_line(console, describe_spend(spend))

    def _open(self, name: str) -> "JudgeSources":
        from comity.judges.named import open_sources

        if name not in self._sources:
            config = self._config
            self._sources[name] = open_sources([name], config.judges.to_judges(name), {}, config.access, self._run)
            self._opened.enter_context(closing(self._sources[name]))
        return self._sources[name]

    def _load_base(self) -> "LocalEngine":
        from comity.engines.local import LocalEngine
        from comity.engines.models import EMBEDDED, load_model, load_tokenizer

        if self._base is None:
            self._base = LocalEngine(load_model(EMBEDDED), load_tokenizer(EMBEDDED))
        return self._base


def answers_prompts(name: str) -> bool:
    """Return whether a judge is a model that is given prompts, and no head nor one that asks a head first."""
    from comity.judges.audit_run import EMBEDDED_JUDGES
    from comity.judges.named import place_judge

    return name not in EMBEDDED_JUDGES and place_judge(name) in ("local", "external")
