"""JSON schema to the TypeScript-like text in which gpt-oss reads the arguments of a function.

Equal, quirks included, to openai-harmony 0.0.8 (src/encoding.rs, json_schema_to_typescript). Only these keywords count:
oneOf, type, properties, required, items, enum, nullable, default, title, description and examples. Everything else
(anyOf, allOf, $ref, const, minimum, format, ...) is passed over, and what is left without a type becomes ``any``.
"""

import json
import math
from decimal import Decimal
from typing import Any

from gptoss_jax.harmony.forms import FormError

MAX_DEPTH = 128
"""Levels of nesting, as in the JSON reader of openai-harmony (serde_json)."""

MAX_NODES = 100_000
"""Values in one schema; a schema whose parts share sub-schemas can grow exponentially when written out."""


def check_schema(schema: Any, path: str) -> None:
    """Refuses what has no finite JSON form: cycles, absurd depth or size, and values that are not JSON.

    Raises:
      FormError: with the path of the offending value.
    """
    count = 0
    stack: list[tuple[Any, str, int]] = [(schema, path, 1)]
    while stack:
        value, at, depth = stack.pop()
        count += 1
        if count > MAX_NODES:
            raise FormError(f"{path}: more than {MAX_NODES:,} values when written out; does the schema share parts?")
        if isinstance(value, dict | list | tuple):
            if depth > MAX_DEPTH:
                raise FormError(f"{at[:200]}: nested deeper than {MAX_DEPTH} levels; does the schema contain itself?")
            if isinstance(value, dict):
                for key, item in value.items():
                    if not isinstance(key, str):
                        raise FormError(f"{at}: key {key!r} is no string")
                    stack.append((item, f"{at}.{key}", depth + 1))
            else:
                stack += ((item, f"{at}[{i}]", depth + 1) for i, item in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            raise FormError(f"{at}: {value} has no JSON form")
        elif not (value is None or isinstance(value, str | int | float)):
            raise FormError(f"{at}: {type(value).__name__} has no JSON form")


def to_typescript(schema: Any, indent: str = "") -> str:
    """The type of one schema. Lines after the first begin with `indent`, one-line types have none."""
    if isinstance(variants := _get(schema, "oneOf"), list):
        return "".join(f"\n{indent} | {_variant(v, indent)}{_comment(_notes(v, bare=False))}" for v in variants)
    kind = _get(schema, "type")
    if isinstance(kind, list) and (names := [name for name in kind if isinstance(name, str)]):
        return " | ".join("number" if name == "integer" else name for name in names)
    match kind:
        case "object":
            return _object(schema, indent)
        case "string":
            enum = _get(schema, "enum")
            options = [f'"{value}"' for value in enum if isinstance(value, str)] if isinstance(enum, list) else []
            return " | ".join(options) or "string"
        case "number" | "integer":
            return "number"
        case "boolean":
            return "boolean"
        case "array":
            # No parentheses around unions: an array of "p" or "q" reads  "p" | "q"[]
            return f"{to_typescript(schema['items'], indent)}[]" if "items" in schema else "Array<any>"
    return "any"


def _object(schema: dict[str, Any], indent: str) -> str:
    description = _get(schema, "description")
    out = f"{indent}// {description}\n" if isinstance(description, str) else ""
    properties = _get(schema, "properties")
    required = _get(schema, "required")
    required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    body = ""
    for name, value in properties.items() if isinstance(properties, dict) else ():
        body += _property(name, value, name in required, indent)
    return f"{out}{{\n{body}{indent}}}"


def _property(name: str, schema: Any, required: bool, indent: str) -> str:
    lines = []
    title, description = _get(schema, "title"), _get(schema, "description")
    examples, variants = _get(schema, "examples"), _get(schema, "oneOf")
    has_variants = isinstance(schema, dict) and "oneOf" in schema
    if isinstance(title, str):
        lines += [f"// {title}", "//"]
    if isinstance(description, str) and not has_variants:
        lines.append(f"// {description}")
    if isinstance(examples, list) and examples:
        lines.append("// Examples:")
        lines += [f'// - "{example}"' for example in examples if isinstance(example, str)]

    key = f"{name}{'' if required else '?'}:"
    if isinstance(variants, list):
        first = _get(variants[0], "description") if variants else None
        above = isinstance(description, str) and first != description
        if above:
            lines.append(f"// {description}")
        lines += [f"// {note}" for note in _default(schema, bare=True)]
        lines.append(key)
        for i, variant in enumerate(variants):
            hidden = (i == 0 and above) or _get(variant, "description") == description
            notes = _default(variant, bare=True) if hidden else _notes(variant, bare=True)
            lines.append(f" | {_variant(variant, indent)}{_comment(notes)}")
        lines.append(",")
    else:
        value = _or_null(to_typescript(schema, indent + "    "), schema)
        notes = [] if has_variants else _default(schema, bare=True)
        lines.append(f"{key} {value},{_comment(notes)}")
    return "".join(f"{indent}{line}\n" for line in lines)


def _variant(schema: Any, indent: str) -> str:
    return _or_null(to_typescript(schema, indent + "   "), schema)


def _or_null(text: str, schema: Any) -> str:
    return f"{text} | null" if _get(schema, "nullable") is True and "null" not in text else text


def _comment(notes: list[str]) -> str:
    return f" // {' '.join(notes)}" if notes else ""


def _notes(schema: Any, bare: bool) -> list[str]:
    description = _get(schema, "description")
    return [description, *_default(schema, bare)] if isinstance(description, str) else _default(schema, bare)


def _default(schema: Any, bare: bool) -> list[str]:
    """``default: ...``: a string of a non-enum in quotes but not escaped, a string of an enum bare, the rest as JSON.

    At the top level (`bare` False) the string of an enum is written as JSON instead.
    """
    if not (isinstance(schema, dict) and "default" in schema):
        return []
    default, enum = schema["default"], schema.get("enum")
    if isinstance(default, str) and not (isinstance(enum, list) and enum):
        return [f'default: "{default}"']
    return [f"default: {default if isinstance(default, str) and bare else compact_json(default)}"]


def _get(schema: Any, key: str) -> Any:
    return schema.get(key) if isinstance(schema, dict) else None


def compact_json(value: Any) -> str:
    """JSON without blanks and with numbers as serde_json writes them: ``1e20``, ``0.00001``, big integers as floats."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(key)}:{compact_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(compact_json, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        value = float(value)
    if isinstance(value, float):
        text = repr(value)
        return f"{Decimal(text):f}" if text.endswith("e-05") else text.replace("e+", "e").replace("e-0", "e-")
    return json.dumps(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
