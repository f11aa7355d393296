"""Play one dialogue in the terminal, message by message, with the judges' words."""

import dataclasses
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from comity.config import AccessConfig, JudgeConfig, ModelConfig, NegotiationConfig
from comity.errors import ConfigError
from comity.negotiation.protocol import advance, pending, start
from comity.types import Check, Completion, Judged, Negotiation, Persona, Request, Scenario

if TYPE_CHECKING:
    from comity.engines.local import LocalEngine
    from comity.judges.panel import Panel

AUTO = "auto"
SEATS = (("A", "cyan"), ("B", "magenta"))
"""Name and colour of each seat."""


@dataclass(frozen=True)
class NegotiateConfig:
    """Let two personas negotiate one dilemma, live."""

    a: str = ""
    """The goal of seat A, the policy's."""
    b: str = ""
    """The goal of seat B."""
    seed: int = 0
    threads: int = 0
    """CPU threads; 0 lets the libraries choose."""
    model: ModelConfig = field(default_factory=lambda: ModelConfig(adapter=AUTO))
    negotiation: NegotiationConfig = field(default_factory=NegotiationConfig)
    judges: JudgeConfig = field(default_factory=JudgeConfig)
    access: AccessConfig = field(default_factory=AccessConfig)

    def __post_init__(self) -> None:
        for name in ("seed", "threads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: choose 0 or more")


def negotiate_live(dilemma: str, config: NegotiateConfig, console: Console) -> Judged:
    """Play a dialogue and print each message, check and verdict as soon as it is there; return it judged."""
    for name, text in (("dilemma", dilemma), ("--a", config.a), ("--b", config.b)):
        if not text.strip():
            raise ConfigError(f"{name} is empty: write `comity negotiate DILEMMA --a GOAL --b GOAL`")
    scenario = Scenario("live", dilemma, "everyday", (Persona("A", config.a), Persona("B", config.b)), "test")
    with console.status("loading"):
        engine, panel = _load(config)
    console.print(Text(f"Dilemma: {printable(dilemma)}", style="bold"))
    for (name, colour), persona in zip(SEATS, scenario.personas, strict=True):
        console.print(Text(f"{name} wants: {printable(persona.objective)}", style=colour))
    with closing(panel):
        ended = _play(start(scenario), config, engine, panel, console)
        judged = panel.judge([ended])[0]
    _print_verdict(judged, console)
    return judged


def _load(config: NegotiateConfig) -> "tuple[LocalEngine, Panel]":
    import torch

    from comity.engines.local import LocalEngine
    from comity.engines.models import EMBEDDED, load_tokenizer
    from comity.judges.panel import build_panel
    from comity.training.policy import load_policy

    if config.threads:
        torch.set_num_threads(config.threads)
    model = config.model
    if model.adapter == AUTO:
        model = dataclasses.replace(model, adapter="warm-start" if model.name == EMBEDDED else "none")
    engine = LocalEngine(load_policy(model), load_tokenizer(model.name), model.thinking)
    return engine, build_panel(config.judges, engine, model, config.access, "negotiate")


def _play(
    state: Negotiation, config: NegotiateConfig, engine: "LocalEngine", panel: "Panel", console: Console
) -> Negotiation:
    rules = config.negotiation
    # A joint answer is written without agreement too, as in evaluation, so that there is one to read.
    while (awaited := pending(state, rules, config.seed, always_complete=True)) is not None:
        if isinstance(awaited, Request):
            with console.status("writing"):
                reply = engine([awaited])[0]
            state = advance(state, reply, rules)
            _print_message(awaited, reply, console)
            continue
        verdict = panel.agreement([awaited])[0]
        state = advance(state, Check(0, verdict.agreed, verdict.text, verdict.score), rules)
        _print_check(state.checks[-1], console)
    return state


def _print_message(request: Request, reply: Completion, console: Console) -> None:
    text = printable(reply.text) + (" …" if reply.finish == "length" else "")
    if request.target == "summary":
        console.print(Text.assemble(("\nJoint answer: ", "bold"), text))
        return
    name, colour = SEATS[0 if request.target == "seat_0" else 1]
    console.print(Text.assemble((f"\n{name}: ", f"bold {colour}"), (text, colour)))


def _print_check(check: Check, console: Console) -> None:
    word = {True: "agreed", False: "not agreed", None: "no verdict"}[check.agreed]
    colour = {True: "green", False: "yellow", None: "red"}[check.agreed]
    sure = "" if check.probability is None else f" (probability of agreement {check.probability:.2f})"
    reason = f": {printable(check.reason)}" if check.reason else ""
    console.print(Text(f"  judge, round {check.round}: {word}{sure}{reason}", style=f"italic {colour}"))


def _print_verdict(judged: Judged, console: Console) -> None:
    if judged.negotiation.ending == "no_agreement":
        console.print(Text("They did not agree: in training this dialogue earns 0.", style="yellow"))
    score = judged.verdicts[0] if judged.verdicts else None
    if score is None or score.score is None:
        console.print(Text("Collective Agency: unscored", style="red"))
        return
    spread = "" if score.uncertainty is None else f" ± {score.uncertainty:.1f}"
    held_out = "" if judged.heldout_score is None else f"; held-out judge {judged.heldout_score:.1f}"
    reason = f" ({printable(score.text)})" if score.text else ""
    console.print(Text(f"Collective Agency: {score.score:.1f}{spread} of 5{reason}{held_out}", style="bold green"))


def printable(text: str) -> str:
    """Return the text without control characters: what a model writes must not steer the terminal."""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n").strip()
