"""How an answer is graded: `Student` wraps it, calls it, and turns each way of being wrong into a named hint."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

COMMON = {
    "not-written": "nothing is here yet. Replace the line with the three dots by your own code.",
    "returns-nothing": "it returns None. Are the three dots replaced, and does every path end with `return`?",
    "not-a-function": "hand over the function itself, without calling it: no parentheses after its name.",
    "raises": "it stops with {detail}.",
    "wrong-type": "it returns {detail}.",
    "wrong-shape": "the result has the wrong shape: {detail}.",
    "not-finite": "the result holds NaN or infinity. Which operation could overflow or divide by zero?",
    "changed-input": "it changes its argument. Work on a copy: the caller still needs the original.",
    "wrong-values": "shape and type are right, the values are not: {detail}. Work the smallest case by hand.",
}


class CheckFailed(AssertionError):
    """An answer that does not pass. Notebooks show the hint without a traceback.

    Attributes:
      exercise: its name.
      hint: name of the hint, the same for every answer with that mistake.
      text: what the learner reads.
    """

    def __init__(self, exercise: str, hint: str, text: str) -> None:
        super().__init__(f"{exercise}: {text} [{hint}]")
        self.exercise, self.hint, self.text = exercise, hint, text

    def _render_traceback_(self) -> list[str]:
        return [f"✗ {self.exercise}: {self.text}", f"  (hint: {self.hint})"]


@dataclasses.dataclass(frozen=True)
class Exercise:
    """A registered exercise.

    Attributes:
      lesson: two digits.
      name: identifier, unique in the lesson.
      hints: its own named hints; those of `COMMON` apply everywhere.
      grade: looks at a `Student`; returns if all is well.
    """

    lesson: str
    name: str
    hints: dict[str, str]
    grade: Callable[["Student"], None]

    def run(self, answer: Any) -> int:
        """Grade `answer`; the number of random cases it was tried on. Raises CheckFailed."""
        student = Student(self, answer)
        self.grade(student)
        return student.cases


class Student:
    """The answer under test.

    Attributes:
      answer: what was handed to the check: a function, or a value.
      rng: random numbers for the instances, the same in every run of this exercise.
      cases: calls so far.
    """

    def __init__(self, exercise: Exercise, answer: Any) -> None:
        self.exercise, self.answer, self.cases = exercise, answer, 0
        self.rng = np.random.default_rng(zlib.crc32(f"{exercise.lesson}/{exercise.name}".encode()))
        if answer is Ellipsis:
            self.fail("not-written")

    def fail(self, hint: str, detail: str = "") -> NoReturn:
        """Raise `CheckFailed` with a named hint; its text may hold ``{detail}``."""
        hints = COMMON | self.exercise.hints
        if hint not in hints:
            raise KeyError(f"exercise {self.exercise.name!r} has no hint {hint!r}; it has: {', '.join(hints)}")
        raise CheckFailed(self.exercise.name, hint, hints[hint].replace("{detail}", detail))

    def expect(self, condition: Any, hint: str, detail: str = "") -> None:
        """Fail with `hint` unless `condition` holds."""
        if not condition:
            self.fail(hint, detail)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The learner's function on one instance. Arrays may not be changed; exceptions become the hint ``raises``."""
        if not callable(self.answer):
            self.fail("returns-nothing" if self.answer is None else "not-a-function")
        before = [np.array(a) if isinstance(a, np.ndarray) else a for a in args]
        self.cases += 1
        try:
            result = self.answer(*args, **kwargs)
        except Exception as error:
            shapes = ", ".join(str(list(a.shape)) for a in args if hasattr(a, "shape"))
            where = f" on arrays of shape {shapes}" if shapes else ""
            self.fail("raises", f"{type(error).__name__}: {error}{where}")
        for old, new in zip(before, args, strict=True):
            if isinstance(new, np.ndarray) and not np.array_equal(old, new, equal_nan=old.dtype.kind in "fc"):
                self.fail("changed-input")
        if result is Ellipsis:
            self.fail("not-written")
        if result is None:
            self.fail("returns-nothing")
        return result

    def equal(
        self,
        got: Any,
        want: Any,
        mistakes: Mapping[str, Any] | None = None,
        *,
        rtol: float = 1e-4,
        atol: float = 1e-6,
    ) -> None:
        """Fail unless `got` equals `want`; where it equals the outcome of a known mistake, with that mistake's hint.

        Args:
          got: the learner's array, number, string or (nested) sequence.
          want: the right one.
          mistakes: hint name -> what that mistake would give on this instance. A mistake whose outcome equals
            `want` here says nothing and is passed over.
          rtol, atol: tolerance of floating-point comparison.
        """
        if _same(got, want, rtol, atol):
            return
        for hint, outcome in (mistakes or {}).items():
            if _same(got, outcome, rtol, atol) and not _same(outcome, want, rtol, atol):
                self.fail(hint)
        if isinstance(want, str | bytes):
            kind = type(want).__name__
            self.expect(isinstance(got, type(want)), "wrong-type", f"{type(got).__name__} instead of {kind}")
            self.fail("wrong-values", f"yours is {got!r}")
        try:
            ours, theirs = np.asarray(want), np.asarray(got)
        except ValueError:
            self.fail("wrong-type", "nested sequences of unequal lengths")
        if theirs.dtype.kind not in "biufcV":
            self.fail("wrong-type", f"{type(got).__name__} instead of numbers")
        if ours.shape != theirs.shape:
            self.fail("wrong-shape", f"{list(theirs.shape)} instead of {list(ours.shape)}")
        theirs, ours = theirs.astype(np.float64), ours.astype(np.float64)
        if not np.isfinite(theirs).all() and np.isfinite(ours).all():
            self.fail("not-finite")
        wrong = np.argwhere(~np.isclose(theirs, ours, rtol=rtol, atol=atol, equal_nan=True))
        at = tuple(int(i) for i in wrong[0])
        place = f"at index {list(at)} yours is" if at else "yours is"
        self.fail("wrong-values", f"{place} {theirs[at]:.6g} ({len(wrong)} of {max(ours.size, 1)} differ)")


def _same(a: Any, b: Any, rtol: float, atol: float) -> bool:
    if isinstance(b, str | bytes) or isinstance(a, str | bytes):
        return type(a) is type(b) and a == b
    try:
        x, y = np.asarray(a), np.asarray(b)
        if x.shape != y.shape or x.dtype.kind not in "biufcV" or y.dtype.kind not in "biufcV":
            return False
        return bool(np.allclose(x.astype(np.float64), y.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True))
    except (TypeError, ValueError):
        return False
