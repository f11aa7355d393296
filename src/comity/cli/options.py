"""Settings on the command line: one option for each field of a settings dataclass, its help from the docstrings."""

import argparse
import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from comity.config import load_config
from comity.errors import ConfigError

Settings = TypeVar("Settings")
PREFIX = "setting:"
"""What the names of settings begin with in the parsed arguments."""
SHORT = {"max_spend": "access.max_spend", "cluster": "cluster.kind", "address": "cluster.address"}
"""Settings that are typed at the command line more than written down, without and with their table."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError instead of printing the usage."""
        raise ConfigError(f"{message}; see `{self.prog} --help`")


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One setting: its dotted key, type, default and explanation."""

    key: str
    hint: Any
    default: Any
    text: str

    @property
    def metavar(self) -> str:
        """Return the type in words of the command line."""
        if typing.get_origin(self.hint) is Literal:
            return "{" + ",".join(map(str, typing.get_args(self.hint))) + "}"
        if typing.get_origin(self.hint) is tuple:
            return "WORD,WORD"
        names = {int: "INTEGER", float: "NUMBER", bool: "[true|false]", Path: "PATH"}
        hint = typing.get_args(self.hint)[0] if isinstance(self.hint, types.UnionType) else self.hint
        return names.get(hint, "TEXT")

    @property
    def help(self) -> str:
        """Return the explanation with the default."""
        value = self.default
        if isinstance(value, tuple):
            value = ",".join(value) or "none"
        shown = str(value).lower() if isinstance(value, bool | None) else str(value) or "empty"
        return f"{self.text} (default: {shown})".strip().replace("%", "%%")


def add_settings(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Add `--config` and one option for each setting of a dataclass, grouped by table."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with settings; options win over it")
    for prefix, settings in _tables(kind(), ""):
        title = f"[{prefix.rstrip('.')}]" if prefix else "settings"
        group = parser.add_argument_group(title, (inspect.getdoc(type(settings)) or "").split("\n")[0])
        for option in _options(settings, prefix):
            group.add_argument(
                f"--{option.key}",
                dest=PREFIX + option.key,
                metavar=option.metavar,
                help=option.help,
                default=argparse.SUPPRESS,
            )


def read_settings(kind: type[Settings], arguments: argparse.Namespace, unknown: Sequence[str] = ()) -> Settings:
    """Build settings from the parsed arguments; `unknown` are those no option took, named in the ConfigError."""
    overrides = {key.removeprefix(PREFIX): value for key, value in vars(arguments).items() if key.startswith(PREFIX)}
    for place, word in enumerate(unknown):
        if not word.startswith("--"):
            continue
        key, _, value = word.removeprefix("--").partition("=")
        # The settings know best what is near an unknown name.
        load_config(kind, None, {key: value or "".join(unknown[place + 1 : place + 2])})
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is not expected here: give settings as --key value")
    return load_config(kind, arguments.config, overrides)


def join_values(words: Sequence[str], kind: type[Any]) -> list[str]:
    """Write each setting among the words as `--key=value`.

    A bare `--flag` becomes `--flag=true`, `-` in keys becomes `_`, and values may begin with a minus sign. A setting of
    several words takes all that follow up to the next option: `--models a=x b=y`. Those in SHORT need no table before.
    """
    flags = {option.key: option.hint is bool for option in all_options(kind)}
    lists = {option.key for option in all_options(kind) if typing.get_origin(option.hint) is tuple}
    joined: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.removeprefix("--").partition("=")
        key = _full_key(name.replace("-", "_"), flags)
        if not word.startswith("--") or key not in flags:
            joined.append(word)
        elif equals:
            joined.append(f"--{key}={word.partition('=')[2]}")
        elif flags[key]:
            follows = bool(rest) and rest[0].lower() in ("true", "false")
            joined.append(f"--{key}={rest.pop(0) if follows else 'true'}")
        elif rest and not rest[0].startswith("--"):
            values = [rest.pop(0)]
            while key in lists and rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            joined.append(f"--{key}={','.join(values)}")
        else:
            raise ConfigError(f"--{key} has no value: give --{key} VALUE")
    return joined


def _full_key(key: str, known: Collection[str]) -> str:
    if key in known or key not in SHORT:
        return key
    return next((full for full in known if full.endswith(SHORT[key])), key)


def all_options(kind: type[Any]) -> list[Option]:
    """Return every setting of a dataclass and of the tables in it."""
    return [option for prefix, settings in _tables(kind(), "") for option in _options(settings, prefix)]


def _tables(settings: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    yield prefix, settings
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _tables(value, f"{prefix}{field.name}.")


def _options(settings: Any, prefix: str) -> Iterator[Option]:
    hints = typing.get_type_hints(type(settings))
    texts = attribute_docstrings(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if not dataclasses.is_dataclass(value):
            yield Option(prefix + field.name, hints[field.name], value, texts.get(field.name, ""))


def attribute_docstrings(kind: type[object]) -> dict[str, str]:
    """Return the text that stands under each field of a class, in one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    texts: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(text, ast.Expr):
            continue
        if isinstance(field.target, ast.Name) and isinstance(text.value, ast.Constant):
            texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts
