"""Training: the network equals the model, a run stopped or killed goes on with the same numbers, bad input is named."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptoss_jax import checkpoint
from gptoss_jax.nano import export, metrics, network, optimizer, state, train, vocabulary
from gptoss_jax.nano.batches import Batches
from gptoss_jax.nano.plan import PRESETS, Plan, TrainError
from gptoss_jax.nano.rendering import Codec

PLAN = Plan(preset="tiny", rows=2, length=96, text_share=0.0, warmup=2, steps=6, fall=3, tile=16)
ARGUMENTS = "--preset tiny --rows 2 --length 96 --text-share 0 --warmup 2 --steps 6 --fall 3 --tile 16"
LINE = ARGUMENTS.split()


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A small vocabulary of single bytes."""
    found = tmp_path_factory.mktemp("nano")
    vocabulary.tokenizer([bytes([i]) for i in range(256)]).save(found)
    return found


@pytest.fixture(scope="session")
def batches(folder) -> Batches:
    return Batches({}, Codec(folder), PLAN.rows, PLAN.length, 0, 0, PLAN.dialog_weight, PLAN.seed)


@pytest.fixture
def begin():
    return optimizer.begin(PLAN)


def noisy(config, seed: int = 0) -> network.Params:
    """Random weights, biases, scales and sinks."""
    rng = np.random.default_rng(seed)
    small = ("bias", "sinks", "scale")
    shift = lambda name, v: v + 0.1 * rng.normal(size=v.shape).astype(np.float32) * name.endswith(small)
    return {name: jnp.asarray(shift(name, v)) for name, v in network.init(config, seed).items()}


def test_network_equals_the_model():
    config = dataclasses.replace(PRESETS["tiny"], sliding_window=16)
    params = noisy(config)
    model = export.to_model(params, config)
    tokens = np.random.default_rng(1).integers(0, 4117, (2, 64)).astype(np.int32)
    segments = np.zeros((2, 64), np.int32)
    segments[1, 40:], segments[1, 60:] = 1, -1
    run = jax.jit(lambda: network.forward(network.quantized(params), tokens, segments, config, tile=16))
    logits = np.asarray(run().logits)
    assert np.abs(logits[0] - np.asarray(model(tokens[0]))).max() < 1e-4
    # conversations packed into one row do not see each other
    assert np.abs(logits[1, :40] - np.asarray(model(tokens[1, :40]))).max() < 1e-4
    assert np.abs(logits[1, 40:60] - np.asarray(model(tokens[1, 40:60]))).max() < 1e-4


def test_experts_in_tiles_have_the_gradient_of_the_definition():
    config = PRESETS["tiny"]
    params = noisy(config)
    rng = np.random.default_rng(2)
    layer = {name: value[0] for name, value in params.items() if name.startswith("blocks.mlp.experts")}
    x = jnp.asarray(rng.normal(size=(40, config.hidden_size)), jnp.float32)
    routing = network.choose(jnp.asarray(rng.normal(size=(40, 32)), jnp.float32), 4)
    goal = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    def dense(layer, x):
        hidden = jnp.einsum("td,efd->etf", x, layer[network.GATE_UP]) + layer[network.GATE_UP + "_bias"][:, None]
        out = jnp.einsum("etf,edf->etd", network.swiglu(hidden), layer[network.DOWN])
        out = out + layer[network.DOWN + "_bias"][:, None]
        weights = (jax.nn.one_hot(routing.experts, 32) * routing.weights[..., None]).sum(1)
        return jnp.sum(jnp.einsum("te,etd->td", weights, out) * goal)

    tiled = lambda layer, x: jnp.sum(network.experts_in_tiles(layer, x, routing, config, 16) * goal)
    for a, b in zip(*(jax.tree.leaves(jax.jit(jax.grad(f, (0, 1)))(layer, x)) for f in (dense, tiled)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_the_rate_rises_stays_and_falls():
    plan = Plan(rate=1.0, warmup=4, steps=20, fall=10, floor=0.1)
    rates = [float(plan.learning_rate(step)) for step in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and set(rates[4:11]) == {1.0}
    assert rates[15] == pytest.approx(0.55) and rates[20] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert float(Plan(warmup=1, steps=300).learning_rate(299)) == pytest.approx(3e-3)


def test_padding_is_never_routed():
    experts = jnp.full((6, 4), 32).at[:2].set(jnp.arange(8).reshape(2, 4))
    tiles = network.lay_out(experts, 32, 4)
    assert (np.asarray(tiles.pair) < 24).sum() == 8
    assert (np.asarray(tiles.slot)[2:] == len(tiles.pair)).all()


def test_straight_through_rounds_forward_and_not_backward():
    weight = jnp.linspace(-1, 1, 64).reshape(1, 64)
    gradient = jax.grad(lambda w: jnp.sum(network.fake_quantize(w) * 3.0))(weight)
    assert (np.asarray(gradient) == 3).all()
    np.testing.assert_array_equal(network.fake_quantize(weight), export.mxfp4.quantize(weight).dequantize(jnp.float32))


def test_a_stopped_run_goes_on_with_the_same_numbers(tmp_path, batches, begin):
    copy = lambda: jax.tree.map(jnp.copy, begin)
    whole = train.run(PLAN, batches, copy(), _folder(tmp_path / "whole"))
    half, out = optimizer.begin(PLAN), _folder(tmp_path / "half")
    step = optimizer.make_step(PLAN)
    for number in range(2):
        half, _ = step(half, batches.make(number))
    state.save(out, half, dataclasses.asdict(PLAN))
    resumed = train.run(PLAN, batches, train.first_state(PLAN, out, None, None), out)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (out / metrics.FIGURE).stat().st_size > 10_000
    assert metrics.read(out)["step"].tolist() == [6]


def test_ctrl_c_saves_and_gives_the_keyboard_back(tmp_path, batches, begin, monkeypatch):
    real = optimizer.make_step(PLAN)

    def interrupted(now, batch):
        if int(now.step) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(now, batch)

    monkeypatch.setattr(optimizer, "make_step", lambda plan: interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    try:
        train.run(PLAN, batches, begin, tmp_path)
        assert int(state.restore(tmp_path)[0].step) == 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    finally:
        signal.signal(signal.SIGINT, before)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_batch_depends_on_its_number_alone(batches):
    once, again = batches.make(5), batches.make(5)
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(once.tokens, batches.make(6).tokens)
    weights = once.weights.reshape(-1)
    assert weights[once.wanted].sum() == weights.sum() > 0
    assert ((once.segments >= 0) | (once.weights == 0)).all()


def test_a_drill_asks_for_nothing_but_what_can_be_copied(batches):
    drill = dataclasses.replace(batches, repeat_rows=1).make(3)
    tokens, learned = drill.tokens[0], drill.weights[0] > 0
    period = int(np.argmax(learned)) + 1  # position t predicts token t + 1
    assert 8 <= period <= PLAN.length // 4 and learned[period - 1 :].all()
    np.testing.assert_array_equal(tokens[period:], tokens[:-period])
    assert len(set(tokens[:period].tolist())) > 4
    assert drill.segments[0].tolist() == [0] * PLAN.length


@pytest.mark.slow
def test_a_killed_run_keeps_its_last_good_state(tmp_path, folder, batches):
    """Killed without warning while it saves after every step: what is left are the numbers of a run left in peace."""
    script = (
        "import sys; from pathlib import Path; from gptoss_jax.nano import train, state; "
        "out = Path(sys.argv[1]); real = train.run; "
        "train.run = lambda *a, **k: real(*a, **{**k, 'save_every': 0}); "
        "sys.exit(train.main(sys.argv[2:]))"
    )
    line = [sys.executable, "-c", script, str(tmp_path), "--out", str(tmp_path), "--tokenizer", str(folder), *LINE]
    line[line.index("--steps") + 1] = "100000"
    child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (tmp_path / state.BEFORE).exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    saved, fields = state.restore(tmp_path)
    assert int(saved.step) >= 2, child.stderr.read()
    plan = Plan(**fields)
    step, peaceful = optimizer.make_step(plan), optimizer.begin(plan)
    for number in range(int(saved.step)):
        peaceful, _ = step(peaceful, batches.make(number))
    resumed = train.first_state(plan, tmp_path, None, None)
    for a, b in zip(jax.tree.leaves(peaceful), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def _refusal(capsys, *line: object) -> str:
    assert train.main([str(part) for part in line]) == 1
    text = capsys.readouterr().err
    assert text.startswith("gptoss-jax train: ") and text.count("\n") == 1
    return text


def test_changed_numbers_are_named(tmp_path, folder, begin, capsys):
    state.save(tmp_path, begin._replace(step=np.int32(2)), dataclasses.asdict(PLAN))
    text = _refusal(capsys, "--out", tmp_path, "--tokenizer", folder, *LINE, "--rate", 0.1)
    assert "rate 0.003 -> 0.1" in text
    saved = train.first_state(dataclasses.replace(PLAN, steps=9, fall=0), tmp_path, None, None)
    assert int(saved.step) == 2  # the end may move while the rate is level
    state.save(tmp_path, begin._replace(step=np.int32(5)), dataclasses.asdict(PLAN))
    with pytest.raises(TrainError, match="fall 3 -> 0"):
        train.first_state(dataclasses.replace(PLAN, fall=0), tmp_path, None, None)


def test_a_damaged_state_points_to_the_one_before(tmp_path, folder, begin, capsys):
    fields = dataclasses.asdict(PLAN)
    state.save(tmp_path, begin._replace(step=np.int32(1)), fields)
    state.save(tmp_path, begin._replace(step=np.int32(2)), fields)
    path = tmp_path / state.FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    for damage in (bytes(data), bytes(data[:1000]), b""):
        path.write_bytes(damage)
        text = _refusal(capsys, "--out", tmp_path, "--tokenizer", folder, *LINE)
        assert "damaged" in text and "goes back to step 1" in text
    os.replace(tmp_path / state.BEFORE, path)
    assert int(state.restore(tmp_path)[0].step) == 1


def test_a_full_disk_leaves_the_last_state(tmp_path, begin, monkeypatch):
    fields = dataclasses.asdict(PLAN)
    state.save(tmp_path, begin, fields)
    before = (tmp_path / state.FILE).read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(state.np, "savez", full)
    with pytest.raises(TrainError, match=r"step 3 cannot be saved: the disk is full.*untouched"):
        state.save(tmp_path, begin._replace(step=np.int32(3)), fields)
    assert (tmp_path / state.FILE).read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--preset huge", "preset 'huge' is none of nano, mini, tiny"),
        ("--steps 5 --fall 9", "fall must lie in 0 .. steps = 5, not 9"),
        ("--preset tiny --rows 0", "rows must be at least 1"),
        ("--preset tiny --text-share 2", "text_share must lie in 0 .. 1"),
        ("--preset tiny --rows 2 --text-share 0.5 --repeat-rows 2", "repeat_rows must lie in 0 .. 1"),
        ("--preset tiny", "--corpus is missing"),
        ("--preset tiny --text-share 0 --from nowhere", "nowhere: no such file"),
        ("--preset tiny --text-share 0 --init nowhere", "nowhere"),
        ("--preset tiny --corpus nowhere", "nowhere"),
    ],
)
def test_bad_arguments(tmp_path, folder, capsys, line, message):
    assert message in _refusal(capsys, "--out", tmp_path / "run", "--tokenizer", folder, *line.split())


def test_weights_of_a_checkpoint_are_a_beginning(tmp_path, folder):
    params = noisy(PRESETS["tiny"])
    tokenizer = Codec(folder).tokenizer
    export.export(params, PRESETS["tiny"], tokenizer, tmp_path / "weights")
    (tmp_path / "weights" / "README.md").write_text("card")
    export.export(params, PRESETS["tiny"], tokenizer, tmp_path / "weights")
    assert (tmp_path / "weights" / "README.md").read_text() == "card"
    now = train.first_state(PLAN, tmp_path / "run", None, tmp_path / "weights")
    for name, value in export.rounded(params).items():
        np.testing.assert_array_equal(value, now.params[name])
    with pytest.raises(TrainError, match="choose its preset"):
        train.first_state(dataclasses.replace(PLAN, preset="nano"), tmp_path / "run", None, tmp_path / "weights")
    model, own = checkpoint.load(tmp_path / "weights", dtype="float32")
    assert own is not None and own.special_tokens == tokenizer.special_tokens
    assert model.config.num_tokens == tokenizer.n_vocab
