"""What the name of a judge means, and the judge behind it.

    comity/embedded          the shipped heads
    head:PATH                a head that `comity judge calibrate` wrote: its folder, or one file
    a folder, hf/NAME        a local model that answers the judges' prompts
    PROVIDER/MODEL           a model behind an address, by its Inspect name (openai/..., anthropic/..., vllm/...)
    any other name           a local model by its Hugging Face name
    HEAD+NAME                the head first, and NAME for the rows that it is unsure of (see `cascade`)

Some providers and some organisations on Hugging Face share a name, such as openai and google: `hf/openai/NAME` is the
local model. Several names with commas between them judge together, see `ensemble`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from comity.access import ModelAccess, Spend, open_access
from comity.access.provider import PROVIDERS
from comity.config import AccessConfig, JudgeConfig
from comity.engines.encoders import load_reader
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.errors import ConfigError
from comity.judges.cascade import PassedOn, ask_first
from comity.judges.embedded import (
    EMBEDDED_JUDGE,
    build_agency_judge,
    build_agreement_judge,
    shipped_head,
    shipped_heads,
)
from comity.judges.ensemble import combine_agency_judges, combine_agreement_judges
from comity.judges.head import RewardHead, load_head
from comity.judges.labels import Kind
from comity.judges.llm import (
    Ask,
    ask_access,
    ask_responder,
    expected_agency_judge,
    prompted_agency_judge,
    prompted_agreement_judge,
)
from comity.judges.preference import prompted_preference_judge
from comity.judges.reliability import is_doubtful
from comity.judges.satisfaction import prompted_satisfaction_judge
from comity.types import AgencyJudge, AgreementJudge, PreferenceJudge, Sampling, SatisfactionJudge, Verdict

HUGGING_FACE = "hf/"
HEAD_FILE = "head:"
THEN = "+"
Place = Literal["embedded", "head", "local", "external"]
Head = Literal["training", "heldout"]


def place_judge(name: str) -> Place:
    """Return where a judge runs (of a cascade its first); raise ConfigError for a name of ours that there is not."""
    first, _ = split_cascade(name)
    if first == EMBEDDED_JUDGE:
        return "embedded"
    if first.startswith(HEAD_FILE):
        return "head"
    if first.startswith("comity/"):
        raise ConfigError(f"judge {first!r} is unknown: the shipped one is {EMBEDDED_JUDGE}")
    if Path(name).is_dir() or name.startswith(HUGGING_FACE):
        return "local"
    return "external" if "/" in name and name.split("/")[0] in PROVIDERS else "local"


def split_names(setting: str) -> tuple[str, ...]:
    """Return the judges that a setting names, in order."""
    return tuple(name.strip() for name in setting.split(","))


def split_cascade(name: str) -> tuple[str, str | None]:
    """Return the head that is asked first and the judge for what it is unsure of; only a head has one."""
    first, then, other = name.partition(THEN)
    is_head = first == EMBEDDED_JUDGE or first.startswith(HEAD_FILE)
    if not is_head or not then:
        return name, None
    if not other or place_judge(other) in ("embedded", "head"):
        raise ConfigError(f"judge {name!r} passes rows on to {other!r}: name a model after the {THEN}")
    return first, other


def list_judges(settings: Iterable[str]) -> tuple[str, ...]:
    """Return every judge that settings name, both of a cascade, each once."""
    names = [name for setting in settings for name in split_names(setting)]
    parts = [part for name in names for part in split_cascade(name) if part is not None]
    return tuple(dict.fromkeys(parts))


def find_head(name: str, kind: Kind, which: Head) -> Path:
    """Return the file of the head that a judge's name means."""
    if name == EMBEDDED_JUDGE:
        return shipped_head(kind, which)
    path = Path(name.removeprefix(HEAD_FILE))
    return path / f"{kind}_{which}.safetensors" if path.is_dir() else path


def hash_heads(settings: JudgeConfig) -> str:
    """Return the SHA-256 of the shipped heads and of every other head that the settings name."""
    watching = [settings.heldout_judge] if settings.heldout else []
    names = [name for name in list_judges([settings.agreement, settings.agency, *watching]) if name != EMBEDDED_JUDGE]
    heads: tuple[Head, ...] = ("training", "heldout")
    kinds: tuple[Kind, ...] = ("agency", "agreement")
    named = {
        find_head(name, kind, which)
        for name in names if place_judge(name) == "head" for kind in kinds for which in heads
    }  # fmt: skip
    paths = [*shipped_heads(), *sorted(path for path in named if path.is_file())]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


@dataclass(frozen=True)
class JudgeSources:
    """What judges are made of: the frozen bases of heads, local models and open models behind addresses.

    `bases` are engines by the name of their model; one that a head needs and that is not there is loaded.
    `passed_on` counts the rows of each cascade, by what it judges. `repeat` numbers the ask of a model behind an
    address: with another number the same prompt is asked, and paid for, anew.
    """

    settings: JudgeConfig
    bases: dict[str, LocalEngine] = field(default_factory=dict)
    local: dict[str, LocalEngine] = field(default_factory=dict)
    external: dict[str, ModelAccess] = field(default_factory=dict)
    passed_on: dict[str, PassedOn] = field(default_factory=dict)
    repeat: int = 0

    def build_agreement(self, setting: str, head: Head = "training") -> AgreementJudge:
        """Return the agreement judge of one name or several; `head` says which of a pair of heads."""
        judges = [self._agreement(name, head) for name in split_names(setting)]
        return judges[0] if len(judges) == 1 else combine_agreement_judges(judges, self.settings.combine)

    def build_agency(self, setting: str, head: Head = "training") -> AgencyJudge:
        """Return the Collective Agency judge of one name or several; `head` says which of a pair of heads."""
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

    def load_base(self, model: str) -> LocalEngine:
        """Return the frozen base that heads on this model read, loading it when it is not in memory."""
        if model not in self.bases:
            self.bases[model] = LocalEngine(load_reader(model), load_tokenizer(model, for_chat=False))
        return self.bases[model]

    def _agreement(self, name: str, which: Head) -> AgreementJudge:
        if place_judge(name) not in ("embedded", "head"):
            return prompted_agreement_judge(self._ask(name, "agreement"), name)
        first, other = split_cascade(name)
        head = load_head(find_head(first, "agreement", which))
        judge = build_agreement_judge(self.load_base(head.model), head, self.settings.copy_limit, first)
        if other is None:
            return judge
        return ask_first(judge, self._agreement(other, which), self._doubt(head), self._count("agreement", which))

    def _agency(self, name: str, which: Head) -> AgencyJudge:
        if name in self.local and self.settings.local_scores == "expected":
            return expected_agency_judge(self.local[name].weigh_options, name)
        if place_judge(name) not in ("embedded", "head"):
            return prompted_agency_judge(self._ask(name, "agency"), name)
        first, other = split_cascade(name)
        head = load_head(find_head(first, "agency", which))
        judge = build_agency_judge(self.load_base(head.model), head, self.settings.copy_limit, first)
        if other is None:
            return judge
        return ask_first(judge, self._agency(other, which), self._doubt(head), self._count("agency", which))

    def _doubt(self, head: RewardHead) -> Callable[[Verdict], bool]:
        share = self.settings.ask_share
        is_doubtful(head, Verdict("", "", None), share)  # a head that cannot tell is refused before it judges
        return lambda verdict: is_doubtful(head, verdict, share)

    def _count(self, kind: Kind, which: Head) -> PassedOn:
        return self.passed_on.setdefault(kind if which == "training" else f"heldout_{kind}", PassedOn())

    def _ask(self, name: str, setting: str) -> Ask:
        if name in self.external:
            settings = self.settings
            sampling = Sampling(settings.temperature, settings.top_p, settings.reply_tokens)
            return partial(ask_access, self.external[name], sampling, self.repeat)
        if name not in self.local:
            raise ConfigError(f"judges.{setting} is {name!r}, which answers no prompts: name a model")
        return partial(ask_responder, self.local[name])


def open_sources(
    names: Iterable[str], settings: JudgeConfig, bases: Mapping[str, LocalEngine], access: AccessConfig, run: str
) -> JudgeSources:
    """Open what the named judges need; `bases` are models already in memory, which heads on them then read."""
    places = {name: place_judge(name) for name in sorted(list_judges(names))}
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
        opened.pop_all()
    return JudgeSources(settings, dict(bases), local, external)


def _load(name: str) -> LocalEngine:
    return LocalEngine(load_model(name), load_tokenizer(name))
