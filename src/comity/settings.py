"""Settings from a TOML file and overrides into frozen dataclasses; a wrong one is named with its mend in one line."""

import dataclasses
import difflib
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from comity.errors import ConfigError

Settings = TypeVar("Settings")


def load_config(kind: type[Settings], path: Path | None, overrides: dict[str, Any] | None = None) -> Settings:
    """Build settings from a TOML file and dotted overrides; raise ConfigError with the key, the value and the mend."""
    values = {} if path is None else read_settings_file(path)
    for key, value in (overrides or {}).items():
        _put(values, key, value)
    return build(kind, values)


def read_settings_file(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the plain values of a TOML file laid over those of the file that its key `extends` names, if it has one.

    `above` are the files that extend this one. Raise ConfigError for a missing or damaged file and for a circle.
    """
    if not path.is_file():
        raise ConfigError(f"--config {path}: no such file; give a TOML file such as configs/demo.toml")
    if path.resolve() in above:
        raise ConfigError(f"--config {path} extends itself through {len(above)} files: take one `extends` out")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is not valid TOML ({error}): mend that place") from error
    if "extends" not in values:
        return values
    base = read_settings_file(path.parent / str(values.pop("extends")), (*above, path.resolve()))
    return _lay_over(base, values)


def _lay_over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    joined = dict(base)
    for key, value in values.items():
        below = joined.get(key)
        joined[key] = _lay_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return joined


def build(kind: type[Settings], values: dict[str, Any], prefix: str = "") -> Settings:
    """Turn nested plain values into a settings dataclass, checking every key and type."""
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    names = [f.name for f in fields]
    defaults = {f.name: f.default_factory for f in fields if f.default_factory is not dataclasses.MISSING}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(names)}"
            raise ConfigError(f"unknown setting {prefix}{key} = {value!r}: {hint}")
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            # A table that names some settings leaves the others at this table's own defaults.
            value = to_plain(defaults[key]()) | value
        arguments[key] = _convert(value, hints[key], prefix + key)
    return kind(**arguments)


def to_plain(settings: Any) -> dict[str, Any]:
    """Return settings as nested plain values that `build` reads back."""
    plain: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            value = to_plain(value)
        elif isinstance(value, Path):
            value = str(value)
        elif isinstance(value, tuple):
            value = list(value)
        plain[item.name] = value
    return plain


def _convert(value: Any, hint: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{name} = {value!r}: expected a table [{name}] of settings")
        return build(typing.cast(type, hint), value, name + ".")
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _convert_choice(value, typing.get_args(hint), name)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ConfigError(f"{name} = {value!r}: expected a list of words")
        return tuple(str(item).strip() for item in items if str(item).strip())
    if origin in (types.UnionType, typing.Union):
        return None if value in (None, "none") else _convert(value, typing.get_args(hint)[0], name)
    return _convert_scalar(value, hint, name)


def _convert_choice(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    for choice in choices:
        if (value == choice and type(value) is type(choice)) or value == str(choice):
            return choice
    raise ConfigError(f"{name} = {value!r}: choose among {', '.join(map(str, choices))}")


def _convert_scalar(value: Any, hint: Any, name: str) -> Any:
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}[hint]
    try:
        if hint is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if (hint is int and isinstance(value, float)) or (hint in (int, float) and isinstance(value, bool)):
            raise ValueError
        if hint in (str, Path) and not isinstance(value, str | Path):
            raise ValueError
        return hint(value)
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{name} = {value!r}: expected {wanted}") from None


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *tables, last = dotted.replace("-", "_").split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--{dotted} {value}: {table} is a single setting, not a table")
    values[last] = value
