"""The one tool of the built-in model: integer arithmetic, read by a parser and never by the interpreter."""

import ast
import json
import operator

MAX_LENGTH = 200
MAX_VALUE = 10**30
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


class CalculatorError(ValueError):
    """An expression that the calculator refuses, and why."""


def calculate(expression: str) -> str:
    """The value of an expression of integers, ``+ - * //`` and parentheses, as decimal text."""
    if len(expression) > MAX_LENGTH:
        raise CalculatorError(f"expression of {len(expression)} characters; at most {MAX_LENGTH}")
    try:
        return str(_value(ast.parse(expression.strip(), mode="eval").body))
    except (SyntaxError, ValueError, RecursionError, ZeroDivisionError, MemoryError) as error:
        raise CalculatorError(f"cannot compute {expression!r}: {error}") from None


def answer_call(arguments: str) -> str:
    """What the tool sends back for the JSON arguments of a call, a readable error included."""
    try:
        fields = json.loads(arguments)
        return calculate(str(fields["expr"]))
    except (json.JSONDecodeError, KeyError, TypeError):
        return 'error: expected {"expr": "..."}'
    except CalculatorError as error:
        return f"error: {error}"


def _value(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        value = node.value
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = -_value(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        value = OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    else:
        raise ValueError(f"{type(node).__name__} is not allowed; use integers, + - * // and parentheses")
    if abs(value) > MAX_VALUE:
        raise ValueError(f"a value beyond {MAX_VALUE:.0e}")
    return value
