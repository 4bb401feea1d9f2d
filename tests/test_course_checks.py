"""The checks are checked: every exercise meets right and wrong answers, and each wrong one gets its own hint."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gptoss_jax.course import build, checks, source
from gptoss_jax.course.checks.grading import COMMON, CheckFailed, Exercise, Student

MUTANTS = Path(__file__).parent / "mutants"
LESSONS = [source.read(path) for path in build.sources()]


def _answers(number):
    path = MUTANTS / f"lesson_{number}.py"
    if not path.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"mutants_{number}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ANSWERS


ANSWERS = {lesson.number: _answers(lesson.number) for lesson in LESSONS}
RIGHT = [(n, name, i) for n, all_ in ANSWERS.items() for name, a in all_.items() for i in range(len(a["right"]))]
WRONG = [(n, name, hint) for n, all_ in ANSWERS.items() for name, a in all_.items() for hint in a["wrong"]]
BLIND = [(n, name, i) for n, all_ in ANSWERS.items() for name, a in all_.items() for i in range(len(a["blind"]))]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
def test_every_exercise_has_a_check_and_mutants(lesson):
    named = {task.name for task in lesson.tasks}
    assert set(checks.exercises(lesson.number)) == named
    assert set(ANSWERS[lesson.number]) == named
    for name, answers in ANSWERS[lesson.number].items():
        assert len(answers["wrong"]) >= 3, name
        assert answers["right"] and answers["blind"], name
        own = set(checks.exercises(lesson.number)[name].hints)
        tried = set(answers["wrong"]) | {hint for hint, _ in answers["blind"]}
        assert own <= tried, f"{name}: hints that no wrong answer tries: {own - tried}"


@pytest.mark.parametrize(("number", "name", "which"), RIGHT)
def test_right_answers_pass(number, name, which):
    failure = checks.verdict(number, name, ANSWERS[number][name]["right"][which])
    assert failure is None, failure


@pytest.mark.parametrize(("number", "name", "hint"), WRONG)
def test_wrong_answers_get_their_hint(number, name, hint):
    failure = checks.verdict(number, name, ANSWERS[number][name]["wrong"][hint])
    assert failure is not None, "a wrong answer passes"
    assert failure.hint == hint, failure


@pytest.mark.parametrize(("number", "name", "which"), BLIND)
def test_answers_written_without_the_check_are_caught(number, name, which):
    hint, answer = ANSWERS[number][name]["blind"][which]
    failure = checks.verdict(number, name, answer)
    assert failure is not None, "a wrong answer passes"
    assert failure.hint == hint, failure


def _student(answer, **hints):
    return Student(Exercise("99", "demo", hints, lambda student: None), answer)


def _hint(action):
    with pytest.raises(CheckFailed) as caught:
        action()
    return caught.value.hint


def test_call_turns_slips_into_hints():
    x = np.ones(3)

    def change(a):
        a[0] = 5
        return a

    assert _hint(lambda: _student(lambda a: None).call(x)) == "returns-nothing"
    assert _hint(lambda: _student(lambda a: ...).call(x)) == "not-written"
    assert _hint(lambda: _student(lambda a: a @ np.ones((4, 4))).call(x)) == "raises"
    assert _hint(lambda: _student(change).call(x)) == "changed-input"
    assert _hint(lambda: _student(None).call(x)) == "returns-nothing"
    assert _hint(lambda: _student(3).call(x)) == "not-a-function"
    assert _hint(lambda: _student(...)) == "not-written"
    assert _student(lambda a: a.sum()).call(np.ones(3)) == 3


@pytest.mark.parametrize(
    ("got", "want", "hint"),
    [
        ([1, 2], [1, 3], "wrong-values"),
        ([1, 2, 3], [1, 2], "wrong-shape"),
        ([[1, 2]], [1, 2], "wrong-shape"),
        ([1, np.nan], [1.0, 2.0], "not-finite"),
        ("ab", "ac", "wrong-values"),
        (["a"], "a", "wrong-type"),
        ("a", [1], "wrong-type"),
        ([[1], [2, 3]], [1, 2], "wrong-type"),
        ({1: 2}, [1], "wrong-type"),
        ([7, 7], [1, 2], "sevens"),
        (1 + 1e-3, 1.0, "wrong-values"),
    ],
)
def test_equal_names_the_difference(got, want, hint):
    student = _student(None, sevens="all sevens")
    assert _hint(lambda: student.equal(got, want, {"sevens": [7, 7]})) == hint


def test_equal_accepts_rounding_and_bfloat16():
    import ml_dtypes

    student = _student(None)
    student.equal(1 + 1e-6, 1.0)
    student.equal(np.ones(3, ml_dtypes.bfloat16), np.ones(3))
    student.equal("a", "a")
    student.equal([np.nan], [np.nan])


def test_a_mistake_that_changes_nothing_here_is_passed_over():
    student = _student(None, same="no", other="yes")
    assert _hint(lambda: student.equal([2.0], [1.0], {"same": [1.0], "other": [2.0]})) == "other"


def test_hints_never_show_the_right_value():
    with pytest.raises(CheckFailed) as caught:
        _student(None).equal([0.5, 0.25], [0.5, 0.123456])
    assert "0.25" in str(caught.value)
    assert "0.123" not in str(caught.value)


def test_a_failure_is_shown_without_a_traceback():
    failure = CheckFailed("demo", "raises", "it stops")
    assert failure._render_traceback_() == ["✗ demo: it stops", "  (hint: raises)"]


def test_unknown_names_are_named():
    with pytest.raises(AttributeError, match="predict_shapes"):
        checks.Checks("00").no_such_exercise  # noqa: B018
    with pytest.raises(KeyError, match="no hint 'nonsense'"):
        _student(None).fail("nonsense")
    assert dir(checks.Checks("00")) == sorted(checks.exercises("00"))


def test_registering_twice_or_redefining_a_common_hint_is_refused():
    with pytest.raises(ValueError, match="two exercises"):
        checks.exercise("00", "rowwise", {})(lambda student: None)
    with pytest.raises(ValueError, match="common hint"):
        checks.exercise("98", "x", {next(iter(COMMON)): "text"})(lambda student: None)


def test_a_lesson_without_checks_has_none():
    assert checks.exercises("97") == {}


def test_grading_is_the_same_every_time(capsys):
    check = checks.Checks("00").rowwise
    check(ANSWERS["00"]["rowwise"]["right"][0])
    first = capsys.readouterr().out
    check(ANSWERS["00"]["rowwise"]["right"][0])
    assert capsys.readouterr().out == first == "✓ rowwise: correct on 5 random cases\n"
