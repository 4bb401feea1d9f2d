"""Right and wrong answers to the exercises of lesson 09."""

import numpy as np


def _difference(ours, theirs):
    return np.abs(np.asarray(ours) - np.asarray(theirs))


def _by_loop(ours, theirs, bound):
    for entry in range(1, len(ours)):
        if _difference(ours, theirs)[entry].max() > bound:
            return entry - 1
    return -1


def _no_sound_model(ours, theirs, bound):
    return max(_by_loop(ours, theirs, bound), 0)


def _mean(ours, theirs, bound):
    wrong = np.flatnonzero(_difference(ours, theirs).mean((1, 2)) > 10 * bound)
    return int(wrong[0]) - 1 if len(wrong) else -1


def _any_difference(ours, theirs, bound):
    wrong = np.flatnonzero(_difference(ours, theirs).max((1, 2)) > 0)
    exceeded = (_difference(ours, theirs) > bound).any()
    return max(int(wrong[0]) - 1, 0) if exceeded else -1


ANSWERS = {
    "block": {
        "right": [lambda x, attend, serve: (lambda y: serve(y) + y)(attend(x) + x)],
        "wrong": {
            "no-residual": lambda x, attend, serve: serve(attend(x)),
            "parallel": lambda x, attend, serve: x + attend(x) + serve(x),
            "experts-first": lambda x, attend, serve: (lambda y: y + attend(y))(x + serve(x)),
            "one-half-missing": lambda x, attend, serve: x + attend(x),
            "added-twice": lambda x, attend, serve: x + (lambda y: y + serve(y))(x + attend(x)),
            "returns-nothing": lambda x, attend, serve: None,
        },
        "blind": [("raises", lambda x, attend, serve: x + attend + serve)],
    },
    "first_wrong_layer": {
        "right": [_by_loop],
        "wrong": {
            "largest-not-first": lambda ours, theirs, bound: (
                int(_difference(ours, theirs).max((1, 2)).argmax()) - 1
                if (_difference(ours, theirs) > bound).any()
                else -1
            ),
            "off-by-one": lambda ours, theirs, bound: (lambda found: -1 if found == -1 else found + 1)(
                _by_loop(ours, theirs, bound)
            ),
            "false-alarm": _any_difference,
            "sound-model": _no_sound_model,
            "averaged-away": _mean,
        },
        "blind": [("raises", lambda ours, theirs: 0)],
    },
}
