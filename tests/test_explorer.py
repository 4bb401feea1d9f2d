"""The explorer's file, without a browser: what is packed comes back, nothing becomes markup, bad input is refused."""

import base64
import dataclasses
import hashlib
import html as html_module
import json
import os
import re
import subprocess
import sys
import time
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from explorer_cases import HOSTILE, hostile, large, planted, routed

from gptoss_jax.routing.explorer import SCRIPTS, STYLES, explorer
from gptoss_jax.routing.metrics import margins
from gptoss_jax.tracing import Trace, TraceError


class Elements(HTMLParser):
    """Names of the elements and attributes that a browser would see."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def payload(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def inflated(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


@pytest.mark.parametrize("experts", [8, 256, 300])
def test_the_numbers_in_the_page_are_the_traces(experts):
    trace = planted(layers=3, experts=experts, chosen=3)
    data = payload(explorer(trace).html)
    packed = data["traces"][0]
    ids = np.frombuffer(inflated(packed["experts"]), "u1" if experts <= 256 else "<u2")
    np.testing.assert_array_equal(ids.reshape(trace.experts.shape), trace.experts)
    planes = np.frombuffer(inflated(packed["weights"]), np.uint8).reshape(4, -1)
    weights = np.ascontiguousarray(planes.T).view("<f4").reshape(trace.weights.shape)
    np.testing.assert_array_equal(weights, trace.weights)
    margin = np.frombuffer(inflated(packed["margin"]), "<i2").reshape(trace.experts.shape[:2])
    np.testing.assert_array_equal(margin, np.rint(margins(trace).of_set.astype(float) * 1000))
    assert data["ids"] == trace.tokens.tolist() and data["text"] == list(trace.token_text)
    assert [data["roles"]["names"][i] for i in data["roles"]["index"]] == list(trace.roles)
    assert [data["channels"]["names"][i] for i in data["channels"]["index"]] == list(trace.channels)
    assert data["generated"] == "".join(str(int(flag)) for flag in trace.generated)
    assert data["special"] == "".join(str(int(flag)) for flag in trace.special)


def test_a_trace_of_ids_alone_has_no_weights_to_show():
    trace = dataclasses.replace(planted(layers=3, experts=8, chosen=3), has_weights=False)
    packed = payload(explorer(trace).html)["traces"][0]
    assert packed["weights"] is None
    assert len(inflated(packed["experts"])) == trace.experts.size
    both = payload(explorer(dataclasses.replace(trace, has_weights=True), trace).html)["traces"]
    assert [one["weights"] is None for one in both] == [False, True]


def test_margins_that_cannot_be_stored_are_capped_or_missing():
    z = np.zeros((3, 1, 4), np.float32)
    z[0, 0] = [100, 90, 1, 0]
    z[1, 0, 2:] = -np.inf  # masked experts: the set cannot change
    z[2, 0] = [-np.inf, -np.inf, -np.inf, -np.inf]
    trace = Trace(np.arange(3), np.tile([0, 1], (3, 1, 1)), np.full((3, 1, 2), 0.5), 4, router_logits=z)
    packed = payload(explorer(trace).html)["traces"][0]
    assert np.frombuffer(inflated(packed["margin"]), "<i2").tolist() == [32766, 32766, -32768]


def test_token_text_never_becomes_markup():
    plain, nasty = explorer(planted(layers=3, experts=8, chosen=2)), explorer(hostile())
    for page in (plain, nasty):
        seen = Elements(page.html)
        assert seen.tags.count("script") == 2 and "img" not in seen.tags
        assert not [name for name in seen.attributes if name.startswith("on")], "inline handlers"
    assert Elements(plain.html).tags == Elements(nasty.html).tags
    data = re.search(r'id="data">(.*?)</script>', nasty.html, re.S)[1]
    assert not set("<>&\u2028\u2029") & set(data) and data.isascii()
    assert payload(nasty.html)["text"] == list(HOSTILE)
    assert "<title>Experts of &lt;img src=x" in nasty.html
    nasty.html.encode("utf-8")  # no lone surrogate outside the escapes


def test_the_page_is_alone_and_its_policy_names_its_own_script():
    page = explorer(planted(layers=2, experts=8)).html
    assert not re.findall(r"(?:src|href)=\"(?!#)[^\"]*\"|url\(|@import|https?://", page.split('id="data"')[0])
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    script = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    for code, kind in ((script, "script-src"), (style, "style-src")):
        digest = hashlib.sha256(code.encode()).digest()
        assert f"{kind} 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
    assert not re.search(r"transition|animation|@keyframes", style), "nothing moves, so nothing must be stilled"


def test_modules_are_small_and_all_of_them_are_in_the_page():
    from importlib.resources import files

    folder = files("gptoss_jax.routing") / "page"
    assert sorted(file.name for file in folder.iterdir()) == sorted([*SCRIPTS, *STYLES, "page.html"])
    for name in (*SCRIPTS, *STYLES):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 300 and max(map(len, lines)) <= 120, name


def test_the_largest_trace_is_written_in_two_seconds_and_two_megabytes(tmp_path):
    trace = large()
    times = []
    for _ in range(2):
        start = time.perf_counter()
        path = explorer(trace).save(tmp_path / "large.html")
        times.append(time.perf_counter() - start)
    assert min(times) < 2 and path.stat().st_size < 2_000_000, (times, path.stat().st_size)


def test_saving_is_atomic(tmp_path, monkeypatch):
    page = explorer(planted(layers=2, experts=8))
    path = page.save(tmp_path / "page.html")
    assert path.read_text(encoding="utf-8") == page.html and [p.name for p in tmp_path.iterdir()] == ["page.html"]

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        explorer(hostile()).save(path)
    assert path.read_text(encoding="utf-8") == page.html and [p.name for p in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(FileNotFoundError, match="create it first"):
        page.save(tmp_path / "missing" / "page.html")


def test_a_notebook_shows_the_page_in_a_frame_or_a_link(tmp_path):
    page = explorer(hostile())
    frame = page._repr_mimebundle_()["text/html"]
    assert html_module.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == page.html
    assert Elements(frame).tags == ["iframe"] and "title=" in frame and "allow-same-origin" not in frame
    link = page.link(tmp_path / "a&b.html")
    assert (tmp_path / "a&b.html").exists()
    assert len(link._repr_html_()) < 1000 and set(Elements(link._repr_html_()).tags) == {"p", "a", "br"}
    assert "20 tokens, 3 layers" in repr(link) and "save(path)" in repr(page)


def test_bad_input_is_refused_by_name():
    trace = planted(layers=3, experts=8, chosen=2, model="one")
    with pytest.raises(TypeError, match=r"trace must be a Trace, not str; read a file with Trace\.load"):
        explorer("trace.npz")
    with pytest.raises(TypeError, match="other must be a Trace, not dict"):
        explorer(trace, {})
    with pytest.raises(TraceError, match="needs a layer and an expert per token"):
        explorer(Trace(np.arange(2), np.zeros((2, 0, 2)), np.zeros((2, 0, 2)), 4))
    for fields, message in (
        ({"layers": 4}, "'one' and 'two' have 3 and 4 layers"),
        ({"experts": 16}, "8 and 16 experts;"),
        ({"chosen": 3}, "2 and 3 experts per token"),
        ({"repeat": 2}, "205 and 410 tokens"),
    ):
        with pytest.raises(TraceError, match=message):
            explorer(trace, planted(**{"layers": 3, "experts": 8, "chosen": 2, "model": "two", **fields}))
    swapped = trace.tokens.copy()
    swapped[7] += 1
    with pytest.raises(TraceError, match=f"ids {trace.tokens[7]} and {swapped[7]} at position 7"):
        explorer(trace, routed(trace.router_logits, 2, tokens=swapped))


def test_importing_the_explorer_does_not_import_jax():
    code = "import sys, gptoss_jax.routing.explorer; sys.exit('jax' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
