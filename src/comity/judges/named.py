"""What the name of a judge means, and the judge behind it.

    comity/embedded          the shipped heads
    a folder, hf/NAME        a local model that answers the judges' prompts
    PROVIDER/MODEL           a model behind an address, by its Inspect name (openai/..., anthropic/..., vllm/...)
    any other name           a local model by its Hugging Face name

Some providers and some organisations on Hugging Face share a name, such as openai and google: `hf/openai/NAME` is the
local model. Several names with commas between them judge together, see `ensemble`.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from comity.access import ModelAccess, Spend, open_access
from comity.access.provider import PROVIDERS
from comity.config import AccessConfig, JudgeConfig
from comity.engines.local import LocalEngine
from comity.engines.models import EMBEDDED, load_model, load_tokenizer
from comity.errors import ConfigError
from comity.judges.embedded import EMBEDDED_JUDGE, build_agency_judge, build_agreement_judge, load_shipped_head
from comity.judges.ensemble import combine_agency_judges, combine_agreement_judges
from comity.judges.llm import Ask, ask_access, ask_responder, prompted_agency_judge, prompted_agreement_judge
from comity.judges.preference import prompted_preference_judge
from comity.judges.satisfaction import prompted_satisfaction_judge
from comity.types import AgencyJudge, AgreementJudge, PreferenceJudge, SatisfactionJudge

HUGGING_FACE = "hf/"
Place = Literal["embedded", "local", "external"]
Head = Literal["training", "heldout"]


def place_judge(name: str) -> Place:
    """Return where a judge runs; raise ConfigError for a name of ours that there is not."""
    if name == EMBEDDED_JUDGE:
        return "embedded"
    if name.startswith("comity/"):
        raise ConfigError(f"judge {name!r} is unknown: the shipped one is {EMBEDDED_JUDGE}")
    if Path(name).is_dir() or name.startswith(HUGGING_FACE):
        return "local"
    return "external" if "/" in name and name.split("/")[0] in PROVIDERS else "local"


def split_names(setting: str) -> tuple[str, ...]:
    """Return the judges that a setting names, in order."""
    return tuple(name.strip() for name in setting.split(","))


@dataclass(frozen=True)
class JudgeSources:
    """What judges are made of: the frozen base of the heads, local models and open models behind addresses."""

    settings: JudgeConfig
    base: LocalEngine | None = None
    local: dict[str, LocalEngine] = field(default_factory=dict)
    external: dict[str, ModelAccess] = field(default_factory=dict)

    def build_agreement(self, setting: str, head: Head = "training") -> AgreementJudge:
        """Return the agreement judge of one name or several; `head` says which of the shipped ones."""
        judges = [self._agreement(name, head) for name in split_names(setting)]
        return judges[0] if len(judges) == 1 else combine_agreement_judges(judges, self.settings.combine)

    def build_agency(self, setting: str, head: Head = "training") -> AgencyJudge:
        """Return the Collective Agency judge of one name or several; `head` says which of the shipped ones."""
        judges = [self._agency(name, head) for name in split_names(setting)]
        return judges[0] if len(judges) == 1 else combine_agency_judges(judges, self.settings.combine)

    def read_spend(self) -> list[Spend]:
        """Return what this run spent on its judges so far, in every process."""
        return [spend for access in self.external.values() for spend in access.read_spend()]

    def close(self) -> None:
        """Close the connections of judges behind addresses."""
        for access in self.external.values():
            access.close()

    def build_satisfaction(self, name: str) -> SatisfactionJudge:
        """Return the judge of how far an answer serves one side."""
        return prompted_satisfaction_judge(self._ask(name, "satisfaction"), name)

    def build_preference(self, name: str) -> PreferenceJudge:
        """Return the judge of which of two answers is better."""
        return prompted_preference_judge(self._ask(name, "preference"), name)

    def _agreement(self, name: str, head: Head) -> AgreementJudge:
        if name != EMBEDDED_JUDGE:
            return prompted_agreement_judge(self._ask(name, "agreement"), name)
        assert self.base is not None
        return build_agreement_judge(self.base, load_shipped_head("agreement", head), self.settings.copy_limit)

    def _agency(self, name: str, head: Head) -> AgencyJudge:
        if name != EMBEDDED_JUDGE:
            return prompted_agency_judge(self._ask(name, "agency"), name)
        assert self.base is not None
        return build_agency_judge(self.base, load_shipped_head("agency", head), self.settings.copy_limit)

    def _ask(self, name: str, setting: str) -> Ask:
        if name in self.external:
            return partial(ask_access, self.external[name], self.settings.reply_tokens)
        if name not in self.local:
            raise ConfigError(f"judges.{setting} is {name!r}, which answers no prompts: name a model")
        return partial(ask_responder, self.local[name])


def open_sources(
    names: Iterable[str], settings: JudgeConfig, base: LocalEngine | None, access: AccessConfig, run: str
) -> JudgeSources:
    """Open what the named judges need; `base` spares loading the base of the heads when it is already in memory."""
    places = {name: place_judge(name) for name in sorted(set(names))}
    outside = [name for name, place in places.items() if place == "external"]
    if len(outside) > 1 and access.max_spend is not None and access.cache == "none":
        raise ConfigError(
            f"access.max_spend is {access.max_spend} for {len(outside)} judges, but access.cache is 'none': "
            "name a file as access.cache, in which they share one cap"
        )
    with ExitStack() as opened:
        # A missing key is found in a moment, a model is loaded in minutes.
        external = {name: opened.enter_context(open_access(name, access, run)) for name in outside}
        local = {name: _load(name.removeprefix(HUGGING_FACE)) for name, place in places.items() if place == "local"}
        if base is None and "embedded" in places.values():
            base = _load(EMBEDDED)
        opened.pop_all()
    return JudgeSources(settings, base, local, external)


def _load(name: str) -> LocalEngine:
    return LocalEngine(load_model(name), load_tokenizer(name))
