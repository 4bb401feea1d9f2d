"""Errors of the Harmony format, and the reading of JSON that says where it is wrong."""

import json
from typing import Any


class HarmonyError(RuntimeError):
    """Tokens that are no Harmony messages, or messages that have no Harmony form."""


class FormError(ValueError):
    """JSON or a value of the wrong form; the message begins with the path, such as ``messages[2].content[0].text``."""


_WORDS = {str: "a string", bool: "true or false", dict: "an object", list: "a list"}


def load_object(payload: str, path: str) -> dict[str, Any]:
    """Parses JSON that must be an object."""
    try:
        raw = json.loads(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormError(f"{path}: not JSON ({error})") from None
    return expect(raw, dict, path)


def expect(value: Any, kind: type, path: str) -> Any:
    """Returns `value` if it is of that kind, and names the path if not."""
    if not isinstance(value, kind):
        raise FormError(f"{path}: expected {_WORDS[kind]}, found {_describe(value)}")
    return value


def field(raw: dict[str, Any], name: str, kind: type, path: str) -> Any:
    """A field that must be there."""
    if name not in raw:
        raise FormError(f"{path}.{name}: missing; expected {_WORDS[kind]}")
    return expect(raw[name], kind, f"{path}.{name}")


def optional(raw: dict[str, Any], name: str, kind: type, path: str, default: Any = None) -> Any:
    """A field that may be absent (then the default counts) or null (then None does)."""
    value = raw.get(name, default)
    return value if value is None else expect(value, kind, f"{path}.{name}")


def choice(enum: Any, value: Any, path: str) -> Any:
    """A member of an enumeration of strings."""
    try:
        return enum(value)
    except ValueError:
        options = ", ".join(repr(member.value) for member in enum)
        raise FormError(f"{path}: expected one of {options}, found {_describe(value)}") from None


def _describe(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
