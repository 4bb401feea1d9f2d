"""Every figure: its words say what is drawn, its bytes repeat, its colors and sizes keep it legible."""

import base64
import functools
import re
import struct
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from routing_cases import random_trace

from gptoss_jax.routing import figures, metrics
from gptoss_jax.routing.figures.drawing import ink_on, near

TRACE = random_trace(48, 3, 8, 2)
T, L, E = 48, 3, 8
LABELS = ["math" if t % 2 else "code" for t in range(T)]
RNG = np.random.default_rng(0)
SHARE = metrics.load(TRACE).value
EFFECT = np.where(metrics.load(TRACE).count > 6, RNG.random((L, E)) * 0.1, 0.0)
COACT = metrics.coactivation(TRACE)
SIMILAR = metrics.row_similarity(RNG.normal(size=(E, 5)))
INFO = metrics.domain_information(TRACE, LABELS, resamples=10)
DS = metrics.domain_specialization(TRACE, LABELS, resamples=10)
JSD = metrics.domain_divergence(TRACE, LABELS, resamples=5)
COMMITTEE = metrics.standing_committee(TRACE, LABELS, resamples=0)
FLOW = metrics.flow(TRACE, resamples=0)
PARTS = metrics.by_part(TRACE, resamples=0)
BALANCE = metrics.balance(TRACE)
FLIPS = metrics.flips_by_margin(TRACE, metrics.join({"": random_trace(48, 3, 8, 2)})[0], bins=3)
RATE = RNG.random((L, 3))
TOP = metrics.first_choice(TRACE)
ATTENTION = np.tril(RNG.random((6, 6)) + 0.1) / 8
SINK = 1 - ATTENTION.sum(1)
CODES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
SCALES = np.bincount([120, 121, 121, 124], minlength=256)
LARGEST = RNG.random(30) + 0.1
ERRORS = LARGEST * RNG.uniform(0, 0.25, 30)

DRAW = {
    "load_map": lambda: figures.load_map(SHARE, T),
    "mass_map": lambda: figures.mass_map(metrics.mass(TRACE).value, T),
    "part_maps": lambda: figures.part_maps(PARTS.load, PARTS.names, PARTS.tokens),
    "token_layer_map": lambda: figures.token_layer_map(TOP.weight, TOP.expert),
    "token_expert_map": lambda: figures.token_expert_map(metrics.layer_weights(TRACE, 1), 1),
    "coactivation_map": lambda: figures.coactivation_map(COACT.lift[1], metrics.neighbor_order(COACT.jaccard[1]), 1, T),
    "similarity_map": lambda: figures.similarity_map(SIMILAR, metrics.neighbor_order(SIMILAR), "router rows"),
    "ablation_map": lambda: figures.ablation_map(EFFECT),
    "load_against_effect": lambda: figures.load_against_effect(SHARE, EFFECT),
    "layer_spread": lambda: figures.layer_spread(metrics.gate_entropy(TRACE).value, "gate entropy", (0, 1)),
    "layer_values": lambda: figures.layer_values(
        INFO.value, "information, nats", T, (), INFO.baseline, INFO.baseline_range, INFO.interval
    ),
    "balance_panels": lambda: figures.balance_panels(*BALANCE[:5], E, 2, T),
    "flip_maps": lambda: figures.flip_maps({"bfloat16": RATE}, FLIPS.edges, FLIPS.count),
    "committee_map": lambda: figures.committee_map(COMMITTEE.members, COMMITTEE.mass, 0.5),
    "specialization_map": lambda: figures.specialization_map(
        DS.value[1], DS.names, np.array([24, 24]), 2, 1, DS.baseline[1], DS.baseline_range[:, 1]
    ),
    "divergence_map": lambda: figures.divergence_map(JSD.value[1], JSD.names, 1, JSD.baseline[1]),
    "flow_map": lambda: figures.flow_map(FLOW.joint[1], *metrics.strongest_links(FLOW.joint[1], 3), 1, T),
    "attribution_map": lambda: figures.attribution_map(RNG.normal(size=(L, 2)), TRACE.experts[0], "token 7"),
    "logit_lens_map": lambda: figures.logit_lens_map(
        np.tile([[0.1], [0.4], [0.9]], 4), np.array([[5] * 4, [0, 0, 1, 2], [0] * 4])
    ),
    "attention_map": lambda: figures.attention_map(ATTENTION, SINK, "Layer 0, head 1"),
    "head_map": lambda: figures.head_map(RNG.random((L, 4)), "sink mass", [True, False, True], (0, 1)),
    "code_points": lambda: figures.code_points(CODES, np.arange(16)),
    "scale_histogram": lambda: figures.scale_histogram(SCALES),
    "block_errors": lambda: figures.block_errors(LARGEST, ERRORS),
}
drawn = pytest.mark.parametrize("name", DRAW)


def image(drawing, ax=0, index=0):
    """What a reader sees: the array behind the pixels, NaN where nothing is drawn."""
    return np.ma.filled(np.ma.masked_invalid(drawing.figure.axes[ax].images[index].get_array().astype(float)), np.nan)


def at(array, where):
    return tuple(int(i) for i in np.unravel_index(where, array.shape))


def test_every_public_figure_is_drawn_here():
    functions = {n for n in figures.__all__ if callable(getattr(figures, n)) and n[0].islower()}
    assert functions == set(DRAW) | {"token_text", "top_token_table", "lens_table"}


@functools.cache
def drawing_of(name):
    return DRAW[name]()


@drawn
def test_words_bytes_palettes_and_the_notebook(name):
    a = drawing_of(name)
    assert a.summary in a.alt
    assert len(a.alt) > len(a.summary)
    assert a.summary.endswith(".")
    assert "\n" not in a.alt
    assert "nan" not in a.summary.lower()
    assert len(a.summary) < 400
    data, metadata = a._repr_mimebundle_()
    assert metadata == {"image/png": {"alt": a.alt}}
    assert data["text/plain"] == a.summary
    raw = base64.b64decode(data["image/png"])
    if name not in ("attribution_map", "head_map"):  # drawn from fresh random numbers
        b = DRAW[name]()
        assert b.png() == raw
        assert (a.alt, a.summary) == (b.alt, b.summary)
    chunks, i = [], 8
    while i < len(raw):
        size, kind = struct.unpack(">I4s", raw[i : i + 8])
        chunks.append(kind)
        i += 12 + size
    assert set(chunks) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}  # no tEXt: no software, no date
    for ax in a.figure.axes:
        for drawn_image in ax.images:
            assert drawn_image.get_cmap().name in ("cividis", "PuOr")
    assert a.figure.get_facecolor() == (1, 1, 1, 1)


@pytest.mark.parametrize("name", ["load_map", "mass_map"])
def test_summary_of_load_and_mass(name):
    d = drawing_of(name)
    ratio = image(d)
    layer, e = at(ratio, np.nanargmax(ratio))
    of = {"load_map": "choices", "mass_map": "weight"}[name]
    dead = int(np.isnan(ratio).sum() + (ratio == 0).sum())
    idle = f"{dead} of 24 experts served no token" if dead else "every expert served a token"
    assert d.summary == (
        f"Over 48 tokens, the busiest expert is {e} of layer {layer} with {near(ratio[layer, e])} times an even share "
        f"of its layer's {of}; {idle}."
    )
    np.testing.assert_allclose(np.nansum(ratio, -1) / E, 1)
    printed = [text.get_text() for text in d.figure.axes[0].child_axes[0].get_yticklabels()]
    assert printed == [f"{np.nanargmax(row)}: ×{np.nanmax(row):.1f}" for row in ratio]


def test_summary_of_parts():
    d = drawing_of("part_maps")
    ratio = np.stack([image(d, p) for p in range(4)])
    p, layer, e = at(ratio, np.nanargmax(ratio))
    title = d.figure.axes[p].get_title(loc="left")
    assert repr(title.split(",")[0]) in d.summary
    assert f"expert {e} of layer {layer} has {near(ratio[p, layer, e])} times an even share" in d.summary


def test_summary_of_token_maps():
    d = drawing_of("token_layer_map")
    means = image(d).mean(1)
    assert f"lowest in layer {means.argmin()} ({near(means.min())})" in d.summary
    assert f"highest in layer {means.argmax()} ({near(means.max())})" in d.summary
    d = drawing_of("token_expert_map")
    total = np.nansum(image(d), 0)
    assert f"{(total > 0).sum()} of 8 experts serve the 48 tokens, and expert {total.argmax()} carries" in d.summary
    assert f"{near(100 * total.max() / total.sum())} %" in d.summary


def test_summary_of_pairs():
    d = drawing_of("coactivation_map")
    ids = [int(t.get_text()) for t in d.figure.axes[0].get_xticklabels()]
    lift = image(d)
    a, b = at(lift, np.nanargmax(lift))
    low, high = sorted((ids[a], ids[b]))
    assert f"experts {low} and {high} meet {near(lift[a, b])} times as often as chance" in d.summary
    assert f"; {int((lift < 1e-6).sum()) // 2} pair" in d.summary
    assert COACT.lift[1, low, high] == lift[a, b]
    d = drawing_of("similarity_map")
    ids = [int(t.get_text()) for t in d.figure.axes[0].get_xticklabels()]
    cosine = image(d)
    np.fill_diagonal(cosine, -2)
    a, b = at(cosine, cosine.argmax())
    low, high = sorted((ids[a], ids[b]))
    assert f"experts {low} and {high}, cosine {near(cosine[a, b])}" in d.summary


def test_summary_of_causes():
    d = drawing_of("ablation_map")
    effect = image(d)
    layer, e = at(effect, np.nanargmax(effect))
    idle = int((~(effect > 0)).sum())
    assert (
        f"misses expert {e} of layer {layer} most (KL divergence: {near(effect[layer, e])}); {idle} of 24" in d.summary
    )
    d = drawing_of("load_against_effect")
    x, y = np.array(d.figure.axes[0].collections[0].get_offsets()).T
    assert f"{near(x.max())} times an even share) has effect {near(y[x.argmax()])}" in d.summary
    layer, e = divmod(int(y.argmax()), E)
    assert f"the strongest, {near(y.max())}, is {e} of layer {layer}" in d.summary
    same = figures.load_against_effect(SHARE, SHARE)
    assert "is also the one with the largest effect" in same.summary
    d = drawing_of("attribution_map")
    value = image(d)
    cells = np.array([t.get_text() for t in d.figure.axes[0].texts]).reshape(value.shape)
    for where, verb in ((value.argmax(), "adds most"), (value.argmin(), "takes most away")):
        layer, x = at(value, where)
        expert, part = cells[layer, x].split(": ")
        assert re.search(rf"[Ee]xpert {expert} of layer {layer} {verb}.*\({re.escape(part)}\)", d.summary)


def test_summary_of_heads_and_lens():
    d = drawing_of("head_map")
    value = image(d)
    layer, head = at(value, value.argmax())
    assert f"head {head} of layer {layer}, {near(value.max())}, and {near(value.mean())} on average" in d.summary
    assert f"({near(value[[0, 2]].mean())} in sliding layers, {near(value[1].mean())} in the others)" in d.summary
    assert [t.get_text() for t in d.figure.axes[0].get_yticklabels()] == ["0 w", "1", "2 w"]
    d = drawing_of("logit_lens_map")
    ranks = np.array([int(t.get_text()) for t in d.figure.axes[0].texts]).reshape(3, 4)
    leads = (ranks == 0).mean(1)
    layer = int(np.argmax(leads >= 0.5))
    assert f"layer {layer}, the final token already leads at {near(100 * leads[layer])} % of 4 positions" in d.summary
    d = drawing_of("attention_map")
    sink, weights = image(d, 0)[:, 0], image(d, 1)
    np.testing.assert_allclose(np.nansum(weights, 1) + sink, 1)
    assert f"{near(100 * sink.mean())} % of the attention on average and most at position {sink.argmax()}" in d.summary


def test_summary_of_layers():
    d = drawing_of("layer_values")
    lines = {line.get_gid(): line.get_xdata() for line in d.figure.axes[0].lines}
    value, baseline = np.asarray(lines["value"]), np.asarray(lines["baseline"])
    layer = int(value.argmax())
    assert (
        f"information is highest in layer {layer}: {near(value[layer])}, against {near(baseline[layer])}" in d.summary
    )
    bars = d.figure.axes[0].collections
    chance, interval = (np.array([s[:, 0] for s in c.get_segments()]) for c in bars)
    outside = ((interval[:, 0] > chance[:, 1]) | (interval[:, 1] < chance[:, 0])).sum()
    assert f"; {outside} of 3 lie outside the 95 % of chance" in d.summary
    d = drawing_of("layer_spread")
    medians = [np.median(column) for column in metrics.gate_entropy(TRACE).value.T]
    assert f"lowest in layer {np.argmin(medians)} ({near(min(medians))})" in d.summary
    d = drawing_of("balance_panels")
    points = {line.get_gid(): np.asarray(line.get_xdata()) for ax in d.figure.axes for line in ax.lines}
    effective = points["effective experts"]
    assert f"layer {effective.argmin()} is the least even: its load is worth {near(effective.min())} of 8" in d.summary
    assert f"{points['experts without a token'].sum()} expert" in d.summary


def test_summary_of_flips_and_committees():
    d = drawing_of("flip_maps")
    rate = image(d)
    first, last = ((rate[:, b] * FLIPS.count[:, b]).sum() / FLIPS.count[:, b].sum() for b in (0, 2))
    assert (
        f"bfloat16 changes {near(100 * first)} % of the sets with the smallest margins and {near(100 * last)} %"
        in d.summary
    )
    d = drawing_of("committee_map")
    standing = (image(d) == 2).sum(1)
    assert f"layer {standing.argmax()} has the most standing members, {standing.max()}" in d.summary


def test_summary_of_domains_and_flow():
    d = drawing_of("specialization_map")
    value = image(d) * 2 / E
    row, e = at(value, np.nanargmax(value))
    assert f"expert {e} serves {near(100 * value[row, e])} % of the 24 tokens of {DS.names[row]!r}" in d.summary
    dots = len(d.figure.axes[0].collections[-1].get_offsets())
    assert f"; {dots} of 16 shares lie outside" in d.summary
    d = drawing_of("divergence_map")
    assert f"{near(image(d)[0, 1])} nats where shuffled labels give {near(image(d, 1)[0, 1])}" in d.summary
    d = drawing_of("flow_map")
    ratio = image(d, 1)
    joint = ratio * np.outer(FLOW.joint[1].sum(1), FLOW.joint[1].sum(0))
    rows, columns, folded = metrics.strongest_links(FLOW.joint[1], 3)
    a, b = at(folded[:-1, :-1], folded[:-1, :-1].argmax())
    passed = joint[rows[a], columns[b]]
    share = passed / np.nansum(joint[rows[a]])
    assert f"from expert {rows[a]} to expert {columns[b]}, {near(100 * passed)} %, {near(share)} of what" in d.summary


def test_summary_of_formats():
    d = drawing_of("code_points")
    heights = [bar.get_height() for bar in d.figure.axes[0].patches]
    assert (
        f"{near(heights[0] + heights[8])} % are zero and {near(heights[7] + heights[15])} % use the largest"
        in d.summary
    )
    assert "different numbers, from -6 to 6" in figures.code_points(CODES).summary
    d = drawing_of("scale_histogram")
    bars = {round(b.get_x() + 0.4): b.get_height() for b in d.figure.axes[0].patches}
    most = max(bars, key=bars.get)
    assert (
        f"{int(sum(bars.values()))} blocks use 3 scales from 2^{min(bars)} to 2^{max(bars)}, most often 2^{most}"
        in d.summary
    )
    d = drawing_of("block_errors")
    x, y = next(line for line in d.figure.axes[0].lines if line.get_gid() == "blocks").get_data()
    assert (
        f"{near(100 * np.median(y / x))} % of the block's largest value in the median and {near(100 * max(y / x))} %"
        in d.summary
    )


def test_36_layers_of_128_experts_have_room_for_every_cell_and_label():
    rng = np.random.default_rng(0)
    load = rng.dirichlet(np.ones(128), 36)
    d = figures.load_map(load, 4096)
    ax = d.figure.axes[0]
    box = ax.get_window_extent()
    assert box.width / 128 >= 5  # pixels a cell
    assert box.height / 36 >= 14
    for axis in (ax.xaxis, ax.yaxis):
        boxes = [t.get_window_extent() for t in axis.get_ticklabels()]
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    width, height = struct.unpack(">II", d.png()[16:24])
    assert width <= 1300
    assert height <= 1100
    assert len(d.png()) < 200_000


@pytest.mark.parametrize("name", ["load_map", "ablation_map", "part_maps"])
def test_one_layer_of_one_expert_is_drawn(name):
    one = {
        "load_map": lambda: figures.load_map(np.ones((1, 1)), 1),
        "ablation_map": lambda: figures.ablation_map(np.zeros((1, 1))),
        "part_maps": lambda: figures.part_maps(np.ones((1, 1, 1)), ["all"], np.array([1])),
    }
    assert one[name]().png()


def test_colors_keep_their_contrast():
    for name in ("cividis", "PuOr"):
        for value in np.linspace(0, 1, 101):
            rgb = mpl.colormaps[name](value)[:3]
            linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
            luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
            ink = {"#000000": 0.0, "#ffffff": 1.0}[ink_on(rgb)]
            assert (max(ink, luminance) + 0.05) / (min(ink, luminance) + 0.05) >= 4.5
    lightness = [sum(mpl.colormaps["cividis"](v)[:3]) for v in np.linspace(0, 1, 30)]
    assert (np.diff(lightness) > 0).all()


class Reader(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.spans, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "span" and "tabindex" in dict(attrs):
            self.spans.append(dict(attrs))
            self.text.append("")

    def handle_data(self, data):
        if self.text:
            self.text[-1] += data


NASTY = [
    "<b>",
    "</script><img src=x onerror=alert(1)>",
    '"',
    "a\n",
    "\t",
    "",
    "日本",
    "\\xf0",
    "\u200b",
    "&amp;",
    " $x$",
]


def test_token_text_has_one_reachable_labeled_span_a_token_and_no_markup_of_theirs():
    n = len(NASTY)
    ids = np.tile([3, 1], (n, 1))
    m = figures.token_text(NASTY, np.linspace(0, 1, n), ids, np.tile([0.75, 0.25], (n, 1)), "gate entropy")
    page = Reader(m.html)
    assert len(page.spans) == n
    assert set(page.tags) <= {"div", "span", "br"}
    shown = [*NASTY]
    shown[3], shown[4], shown[5], shown[8] = "a⏎", "⇥", "∅", "\\u{200b}"
    assert page.text == shown
    for t, span in enumerate(page.spans):
        assert span["tabindex"] == "0"
        assert (
            span["title"]
            == span["aria-label"]
            == (f"token {t} {shown[t]}: gate entropy {near(t / (n - 1))}; experts 3 (0.75), 1 (0.25)")
        )
        assert re.search(r"background:#[0-9a-f]{6};color:#(000000|ffffff)", span["style"])
    assert (
        m.summary == f"Of {n} tokens, token {n - 1} (' $x$') has the highest gate entropy, 1.0, and the mean is 0.50."
    )
    assert m._repr_mimebundle_() == {"text/html": m.html, "text/plain": m.summary}


def test_tables_have_headers_counts_and_escaped_tokens():
    top = metrics.top_tokens(TRACE, 0, 0, min_count=2, n=3)
    m = figures.top_token_table(("</td><script>", *top.text[1:]), top.ids, top.score, top.together, top.count, 0, 0)
    assert "<script>" not in m.html
    assert m.html.count('scope="col"') == 4
    assert m.html.count('scope="row"') == 3
    assert f"{top.together[0]} of {top.count[0]}" in m.html
    assert m.summary.startswith("At layer 0, expert 0, '</td><script>' stands out most")
    empty = figures.top_token_table((), *[np.zeros(0)] * 4, 0, 5)
    assert empty.summary == "At layer 0, expert 5, no token occurs often enough."
    lens = figures.lens_table([["<i>", "b"], ["c", "b"], ["c", "b"]], np.full((3, 2), 0.5), ["x", "\n"])
    assert "<i>" not in lens.html
    assert "after ⏎" in unescape(lens.html)
    assert lens.summary == "The last word is settled from layer 0 on at half of 2 positions."


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.load_map(np.zeros((0, 8)), 0), r"share is empty, \[0, 8\]: nothing to draw"),
        (lambda: figures.load_map(np.zeros(8), 1), r"share needs 2 axes, not \[8\]"),
        (lambda: figures.load_map(np.full((1, 2), np.nan), 1), "share holds 2 values that are not finite"),
        (lambda: figures.token_layer_map(np.zeros((2, 3)), np.zeros((3, 2), int)), "value .* and expert .* differ"),
        (lambda: figures.part_maps(np.ones((2, 1, 1)), ["a"], [1]), "one entry for each of 2 parts"),
        (lambda: figures.layer_values(np.ones((2, 3)), "x", 1), "series names 0 of 2 rows"),
        (lambda: figures.flip_maps({}, np.zeros(2), np.zeros((1, 1))), "rates is empty"),
        (
            lambda: figures.coactivation_map(np.ones((2, 2)), np.arange(3), 0, 1),
            r"lift \[2, 2\] and order \[3\] differ",
        ),
        (lambda: figures.load_against_effect(SHARE, SHARE * np.nan), "no finite value"),
        (lambda: figures.scale_histogram(np.zeros(256)), "at least one scale"),
        (lambda: figures.code_points(np.zeros(15)), "16 codes"),
        (lambda: figures.token_text(["a"], np.zeros(2), np.zeros((2, 1), int)), "one entry a token"),
        (lambda: figures.token_text([], np.zeros(0), np.zeros((0, 1), int)), "value is empty"),
    ],
)
def test_arrays_that_cannot_be_drawn_are_named(call, message):
    with pytest.raises(figures.FigureError, match=message):
        call()


def test_saving_writes_the_same_bytes(tmp_path):
    d = drawing_of("load_map")
    assert d.save(tmp_path / "load.png").read_bytes() == d.png()
    assert [p.name for p in tmp_path.iterdir()] == ["load.png"]


def test_a_notebook_shows_the_picture():
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    d = drawing_of("load_map")
    data, metadata = formatter.format(d)
    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == d.summary
    assert metadata["image/png"]["alt"] == d.alt


def test_figures_leave_pyplot_and_its_settings_alone():
    code = "import matplotlib as m; a = dict(m.rcParams); import numpy as np; from gptoss_jax.routing import figures; "
    code += "figures.load_map(np.eye(2), 2).png(); import sys; assert a == dict(m.rcParams); "
    code += "assert 'jax' not in sys.modules; import matplotlib.pyplot as plt; assert not plt.get_fignums()"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
