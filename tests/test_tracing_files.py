"""The file of a trace: what comes back, how large it is, and what a file that is not one says."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from gptoss_jax.tracing import FORMAT_VERSION, Trace, TraceError

FIELDS = "tokens experts weights num_experts router_logits generated token_text roles channels special model "
FIELDS += "checkpoint_hash dtype package_version has_weights"


def make(T=7, L=3, E=8, X=4, seed=0, logits=True):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(T, L, E)).astype(np.float32) * 2
    ids = np.argsort(-z, axis=-1, kind="stable")[..., :X]
    top = np.take_along_axis(z, ids, -1)
    w = np.exp(top - top.max(-1, keepdims=True))
    return Trace(
        tokens=rng.integers(0, 200_000, T),
        experts=ids,
        weights=w / w.sum(-1, keepdims=True),
        num_experts=E,
        router_logits=z if logits else None,
        logits=rng.normal(size=(T, 5)),
        generated=np.arange(T) > T // 2,
        token_text=tuple(["é", "\\xf0", "</script>", "\n", "", "日本", '"'][i % 7] for i in range(T)),
        roles=("user",) * T,
        channels=("final",) * T,
        special=np.arange(T) == 0,
        model="nano",
        checkpoint_hash="ab" * 32,
        dtype="float32",
        package_version="0.1.0",
    )


def same(a, b, skip=()):
    for name in FIELDS.split():
        if name not in skip:
            x, y = getattr(a, name), getattr(b, name)
            assert type(x) is type(y), name
            assert np.array_equal(x, y), name
            if isinstance(x, np.ndarray):
                assert x.dtype == y.dtype, name


@pytest.mark.parametrize("sizes", [(7, 3, 8, 4), (1, 1, 1, 1), (0, 2, 4, 2), (5, 2, 300, 4), (3, 2, 256, 8)])
def test_everything_but_the_vocabulary_logits_comes_back_bit_for_bit(tmp_path, sizes):
    trace = make(*sizes)
    path = trace.save(tmp_path / "t.npz")
    loaded = Trace.load(path)
    same(trace, loaded)
    assert loaded.logits is None
    assert [p.name for p in tmp_path.iterdir()] == ["t.npz"]


def test_the_same_trace_gives_the_same_bytes(tmp_path):
    a, b = make().save(tmp_path / "a.npz"), make().save(tmp_path / "b")
    assert b.name == "b"  # the path is taken as it is
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize(("X", "error"), [(4, 1e-5), (8, 1.4e-5), (1, 0.0)])
def test_compact_keeps_ids_exactly_and_weights_closely(tmp_path, X, error):
    trace = make(64, 6, 32, X)
    loaded = Trace.load(trace.save(tmp_path / "t.npz", compact=True))
    same(trace, loaded, skip=("weights", "router_logits"))
    assert loaded.router_logits is None
    assert np.abs(loaded.weights - trace.weights).max() <= error
    assert np.abs(loaded.weights.sum(-1) - 1).max() < 1e-6
    assert (np.diff(loaded.weights) <= 0).all()


def test_compact_keeps_weights_that_do_not_sum_to_one_exactly(tmp_path):
    trace = make()
    weights = trace.weights.copy()
    weights[0, 0, 0] = 0  # an expert zeroed without renormalizing
    trace = Trace(trace.tokens, trace.experts, weights, trace.num_experts)
    assert np.array_equal(Trace.load(trace.save(tmp_path / "t.npz", compact=True)).weights, weights)


def test_compact_512_tokens_of_the_120b_take_at_most_200_kib(tmp_path):
    size = make(512, 36, 128, 4).save(tmp_path / "t.npz", compact=True).stat().st_size
    assert size <= 200 * 1024, size


def test_router_logits_of_masked_experts_survive_and_nan_does_not(tmp_path):
    trace = make()
    z = trace.router_logits.copy()
    z[0, 0, 0] = -np.inf
    again = Trace(trace.tokens, trace.experts, trace.weights, 8, router_logits=z)
    assert np.array_equal(Trace.load(again.save(tmp_path / "t.npz")).router_logits, z)
    z[0, 0, 1] = np.nan
    with pytest.raises(TraceError, match="router_logits hold 1 NaN"):
        Trace(trace.tokens, trace.experts, trace.weights, 8, router_logits=z)
    w = trace.weights.copy()
    w[0, 0, 0] = np.nan
    with pytest.raises(TraceError, match="weights hold 1 values that are not finite"):
        Trace(trace.tokens, trace.experts, w, 8)


def edit_meta(path, **changes):
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(arrays["meta"].tobytes()) | changes
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "No such file"),
        (lambda p: p.write_bytes(b""), "not a trace"),
        (lambda p: p.write_bytes(b"hello"), "not a trace"),
        (lambda p: p.write_bytes(p.read_bytes()[:-30]), "not a trace"),
        (lambda p: np.save(p.open("wb"), np.arange(3)), "not a trace"),
        (lambda p: np.savez(p, a=1), "not a gptoss-jax trace: an .npz with a"),
        (lambda p: np.savez(p, meta=np.frombuffer(b"{}", np.uint8)), "not a gptoss-jax trace"),
        (lambda p: np.savez(p, meta=np.frombuffer(b"{", np.uint8)), "damaged trace"),
        (lambda p: np.savez(p, meta=np.array([{}], object)), "damaged trace"),
        (lambda p: edit_meta(p, format_version=FORMAT_VERSION + 1), f"format version {FORMAT_VERSION + 1}"),
        (lambda p: edit_meta(p, format_version=None), "format version None"),
        (lambda p: edit_meta(p, num_experts=2), "lies outside"),
        (lambda p: edit_meta(p, num_experts="x"), "damaged trace"),
        (lambda p: edit_meta(p, roles=["user"]), "roles has 1 entries"),
        (lambda p: edit_meta(p, roles=None), "damaged trace"),
        (lambda p: edit_meta(p, shape=[1, 2, 3]), "were written"),
    ],
)
def test_a_file_that_is_no_trace_says_so_and_names_itself(tmp_path, damage, message):
    path = make().save(tmp_path / "t.npz")
    damage(path)
    with pytest.raises(TraceError, match=message) as caught:
        Trace.load(path)
    assert str(path) in str(caught.value)


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path):
    trace = make(3, 1, 4, 2)
    path = trace.save(tmp_path / "t.npz")
    good = path.read_bytes()
    noticed = 0
    for i in range(0, len(good), 7):
        path.write_bytes(good[:i] + bytes([good[i] ^ 0x55]) + good[i + 1 :])
        try:
            same(trace, Trace.load(path))
        except TraceError:
            noticed += 1
    assert noticed > len(good) / 7 / 2


def test_a_missing_member_is_damage(tmp_path):
    path = make().save(tmp_path / "t.npz")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "u.npz", "w") as target:
        for name in source.namelist():
            if name != "weights.npy":
                target.writestr(name, source.read(name))
    with pytest.raises(TraceError, match="damaged trace"):
        Trace.load(tmp_path / "u.npz")


def test_saving_where_one_cannot_leaves_nothing_behind(tmp_path):
    with pytest.raises(TraceError, match="cannot write the trace"):
        make().save(tmp_path / "none" / "t.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TraceError, match="cannot write the trace"):
        make().save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_reading_a_trace_does_not_import_jax(tmp_path):
    path = make().save(tmp_path / "t.npz")
    code = f"import sys, gptoss_jax as gj; gj.Trace.load({str(path)!r}); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
