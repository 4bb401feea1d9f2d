"""Outputs of the lessons: three digits, aligned tables, figures that are the same bytes twice and have alt text."""

import numpy as np
import pytest

from gptoss_jax.course import display


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (-0.0, "0"),
        (20914757184, "2.09e+10"),
        (128, "128"),
        (True, "True"),
        ("word", "word"),
        (float("nan"), "nan"),
        (np.float32(1 / 3), "0.333"),
        (np.array([[1.0, 2.5], [0.00012345, 1e6]]), "[[1, 2.5], [0.000123, 1e+06]]"),
    ],
)
def test_sig3(value, text):
    assert display.sig3(value) == text


def test_sig3_takes_bfloat16_and_jax_arrays():
    import jax.numpy as jnp

    assert display.sig3(jnp.asarray([1.0, 0.5], jnp.bfloat16)) == "[1, 0.5]"
    assert display.sig3(jnp.float32(2 / 3)) == "0.667"


def test_sig3_hides_rounding_of_another_processor():
    x = np.float32(0.7312468)
    assert display.sig3(x) == display.sig3(np.nextafter(x, np.float32(2)))


def test_show_shapes(capsys):
    display.show_shapes(x_TD=np.zeros((5, 8), np.float32), n=np.zeros(3, int))
    assert capsys.readouterr().out == "x_TD  float32  [5, 8]\nn     int64    [3]\n"


def test_table(capsys):
    display.table([("a", 1.23456, "x"), ("long", 20, "y")], header=("part", "value", "note"))
    out = capsys.readouterr().out.splitlines()
    assert out == ["part  value  note", "a      1.23  x", "long     20  y"]


def _figure(seed=0):
    fig, ax = display.figure(2, 1)
    ax.imshow(np.random.default_rng(seed).random((3, 4)))
    return fig


def test_a_figure_is_the_same_bytes_twice_and_carries_no_metadata():
    one, two = display.png_of(_figure()), display.png_of(_figure())
    assert one == two != display.png_of(_figure(1))
    assert b"tEXt" not in one and b"Matplotlib" not in one and b"pHYs" not in one
    assert display.strip_png(one) == one


def test_figures_use_cividis():
    assert _figure().axes[0].images[0].get_cmap().name == "cividis"


def test_strip_png_refuses_other_files():
    with pytest.raises(ValueError, match="not a PNG"):
        display.strip_png(b"GIF89a")


def test_show_gives_alt_text_and_summary(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kw: shown.append((data, kw)))
    display.show(_figure(), alt="Heat map of noise", summary="Nothing stands out")
    (data, options), out = shown[0], capsys.readouterr().out
    assert options["metadata"] == {"image/png": {"alt": "Heat map of noise"}}
    assert data["text/plain"] == "Figure: Heat map of noise" and data["image/png"].startswith(display.PNG_SIGNATURE)
    assert out == "Nothing stands out\n"


def test_show_needs_alt_text():
    with pytest.raises(ValueError, match="alt text"):
        display.show(_figure(), alt=" ")
