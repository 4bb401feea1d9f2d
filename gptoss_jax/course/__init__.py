"""The course: what a lesson's cells call, the graded exercises, and the tools that build the notebooks.

`source` reads a lesson, `products` makes its notebooks, `build` executes them, `checks` grades the exercises,
`style` measures the lessons and `guide` writes the instructor's matrix.
"""

from gptoss_jax.course.display import figure, show, show_shapes, sig3, table
from gptoss_jax.course.lesson import Lesson, LessonError, data, start

__all__ = ["Lesson", "LessonError", "data", "figure", "show", "show_shapes", "sig3", "start", "table"]
