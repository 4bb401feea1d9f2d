"""How alike two experts are: by the router's rows, by their weights, by what they do."""

import numpy as np

from gptoss_jax.routing.metrics.inputs import MetricError


def _finite(array: np.ndarray, name: str, ndim: int) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim < ndim:
        raise MetricError(f"{name} needs at least {ndim} axes, not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise MetricError(f"{name} hold {int((~np.isfinite(array)).sum())} values that are not finite")
    return array


def row_similarity(rows: np.ndarray) -> np.ndarray:
    """Cosine between the rows of each matrix (definition 19): router weights [L, E, D], or flat expert weights [E, P].

    Expert weights compared this way are *not* invariant under a reordering of the hidden units, which changes nothing
    in what the expert computes; `functional_similarity` is.

    Args:
      rows: [..., E, D].

    Returns:
      [..., E, E] in -1 .. 1, diagonal 1; 0 against a row of zeros.
    """
    rows = _finite(rows, "rows", 2)
    norm = np.sqrt(np.einsum("...ed,...ed->...e", rows, rows, dtype=np.float64))
    unit = rows / np.where(norm > 0, norm, 1)[..., None]
    return (unit @ unit.swapaxes(-1, -2)).clip(-1, 1)


def functional_similarity(outputs: np.ndarray) -> np.ndarray:
    """Mean cosine of two experts' outputs on the same inputs (definition 19).

    Args:
      outputs: [E, T, D], every expert run on the same T inputs, routed there or not.

    Returns:
      [E, E] in -1 .. 1.
    """
    outputs = _finite(outputs, "outputs", 3)
    return row_similarity(outputs.swapaxes(0, 1)).mean(0)
