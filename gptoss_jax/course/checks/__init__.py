"""Graded exercises: `lesson.check.name(your_function)` passes, or fails with a named hint.

Each lesson's exercises live in `lesson_NN.py`, which registers them with `exercise`. A grader calls the learner's
function on random instances and compares; what it compares with is never printed. The same registry lets the tests
feed every check with wrong solutions and ask which hint comes out.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from gptoss_jax.course.checks.grading import COMMON, CheckFailed, Exercise, Student

__all__ = ["COMMON", "CheckFailed", "Checks", "Exercise", "Student", "exercise", "exercises", "verdict"]

_REGISTRY: dict[str, dict[str, Exercise]] = {}


def exercise(lesson: str, name: str, hints: Mapping[str, str]) -> Callable[[Callable[[Student], None]], Exercise]:
    """Register the decorated grader as `lesson`'s exercise `name`.

    Args:
      lesson: two digits.
      name: of the exercise, an identifier; in the notebook ``lesson.check.<name>``.
      hints: named hints, ``{"forgot-the-bias": "what to look at"}``. A hint asks or points; it never gives the answer.
    """

    def register(grade: Callable[[Student], None]) -> Exercise:
        known = _REGISTRY.setdefault(lesson, {})
        if name in known:
            raise ValueError(f"lesson {lesson} has two exercises called {name!r}")
        if clash := COMMON.keys() & hints.keys():
            raise ValueError(f"exercise {name!r} redefines the common hint {sorted(clash)[0]!r}")
        known[name] = Exercise(lesson, name, dict(hints), grade)
        return known[name]

    return register


def exercises(lesson: str) -> dict[str, Exercise]:
    """The lesson's exercises by name; empty for a lesson without any."""
    module = f"{__name__}.lesson_{lesson}"
    if lesson not in _REGISTRY and importlib.util.find_spec(module):
        importlib.import_module(module)
    return _REGISTRY.get(lesson, {})


def verdict(lesson: str, name: str, answer: Any) -> CheckFailed | None:
    """Grade `answer`: None if it passes, else the failure with its hint."""
    try:
        exercises(lesson)[name].run(answer)
    except CheckFailed as failure:
        return failure
    return None


class Checks:
    """`lesson.check`: one method an exercise; prints a line if the answer passes, raises `CheckFailed` if not."""

    def __init__(self, lesson: str) -> None:
        self._lesson = lesson

    def __getattr__(self, name: str) -> Callable[[Any], None]:
        known = exercises(self._lesson)
        if name not in known:
            raise AttributeError(
                f"lesson {self._lesson} has no exercise {name!r}; it has: {', '.join(known) or 'none'}"
            )
        task = known[name]

        def check(answer: Any) -> None:
            cases = task.run(answer)
            print(f"✓ {name}: correct" + (f" on {cases} random cases" if cases else ""))

        return check

    def __dir__(self) -> list[str]:
        return list(exercises(self._lesson))
