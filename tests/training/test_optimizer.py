"""Precision, learning rate, weight decay and the weight average do what their params say."""

import keras
import numpy as np
import pytest
from keras import ops

from emotion_detection.model.architectures import build
from emotion_detection.training import optimizer
from emotion_detection.training.optimizer import LearningRate, compile_for, resolve_precision

STEPS = 100


def rates(train, steps=STEPS, **changes):
    rate = LearningRate(train.model_copy(update={"learning_rate": 0.5, **changes}), steps)
    return np.array([float(ops.convert_to_numpy(rate(step))) for step in range(steps)])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_the_warm_up_is_a_line_to_the_peak(params, schedule):
    rate = rates(params.train, schedule=schedule, warmup=0.2)
    np.testing.assert_allclose(rate[:20], 0.5 * np.arange(1, 21) / 20, rtol=1e-5)
    assert rate.max() == rate[19] == 0.5


@pytest.mark.parametrize(("schedule", "middle", "end"), [("constant", 1, 1), ("cosine", 0.5, 0), ("one_cycle", 0.5, 0)])
def test_after_the_warm_up_each_schedule_has_its_shape(params, schedule, middle, end):
    rate = rates(params.train, schedule=schedule, warmup=0.2) / 0.5
    assert rate[60] == pytest.approx(middle, abs=1e-5)  # half-way from 20 to 100
    assert rate[-1] == pytest.approx(end, abs=0.02)
    assert (rate > 0).all()  # the last step teaches, too
    assert (np.diff(rate[19:]) <= 1e-6).all()


def test_cosine_and_one_cycle_differ_at_a_quarter(params):
    assert rates(params.train, schedule="cosine", warmup=0.2)[40] == pytest.approx(0.25 * (1 + np.cos(np.pi / 4)))
    assert rates(params.train, schedule="one_cycle", warmup=0.2)[40] == pytest.approx(0.5 * 0.75)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_without_a_warm_up_the_first_step_has_the_peak(params, schedule):
    assert rates(params.train, schedule=schedule, warmup=0.0)[0] == 0.5
    assert rates(params.train, steps=1, schedule=schedule, warmup=0.0).tolist() == [0.5]


CPU_FLAGS = {
    "flags\t\t: fpu sse avx2 avx512_bf16 avx512_vnni\n": "mixed_bfloat16",
    "flags\t\t: fpu amx_bf16 amx_tile\n": "mixed_bfloat16",
    "flags\t\t: fpu sse avx2 avx512f\n": "float32",
    "flags\t\t: fpu sse avx512_bf16_not_quite\n": "float32",
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Sets the system, the text of /proc/cpuinfo and the devices that this process seems to have."""

    def pretend(system, cpuinfo, devices):
        (tmp_path / "cpuinfo").write_text(cpuinfo)
        monkeypatch.setattr(optimizer, "Path", lambda _: tmp_path / "cpuinfo")
        monkeypatch.setattr("platform.system", lambda: system)
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)

    return pretend


@pytest.mark.parametrize(("cpuinfo", "expected"), CPU_FLAGS.items())
def test_auto_precision_follows_the_processor(machine, cpuinfo, expected):
    machine("Linux", cpuinfo, ["cpu:0"])
    assert resolve_precision("auto") == expected


def test_auto_precision_on_an_accelerator_and_on_other_systems(machine):
    fast = next(iter(CPU_FLAGS))
    machine("Darwin", fast, ["cpu:0"])
    assert resolve_precision("auto") == "float32"
    machine("Linux", "", ["cpu:0", "gpu:0"])
    assert resolve_precision("auto") == "mixed_bfloat16"


def test_a_named_precision_is_kept_on_any_machine(machine):
    machine("Linux", next(iter(CPU_FLAGS)), ["gpu:0"])
    assert resolve_precision("float32") == "float32"
    machine("Linux", "", ["cpu:0"])
    assert resolve_precision("mixed_bfloat16") == "mixed_bfloat16"


def compiled(params, **changes):
    train = params.train.model_copy(
        update={"widths": (8,), "blocks": (1,), "schedule": "constant", "warmup": 0.0, "momentum": 0.0, **changes}
    )
    model = build(train)
    compile_for(model, train, steps=STEPS)
    model.optimizer.build(model.trainable_variables)
    return model


def weights(model):
    return {variable.path: ops.convert_to_numpy(variable) for variable in model.trainable_variables}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("architecture", ["fer_resnet", "mini_xception"])
def test_weight_decay_shrinks_kernels_and_nothing_else(params, optimizer, architecture):
    model = compiled(params, architecture=architecture, optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
    for variable in model.trainable_variables:
        variable.assign(ops.ones_like(variable))
    model.optimizer.apply([ops.zeros_like(variable) for variable in model.trainable_variables])
    kinds = {variable.name for variable in model.trainable_variables}
    assert {"bias", "gamma", "beta"} <= kinds
    for path, value in weights(model).items():
        np.testing.assert_allclose(value, 0.95 if path.endswith("kernel") else 1.0, rtol=1e-5, err_msg=path)


def test_no_weight_decay_leaves_all_weights(params):
    model = compiled(params, weight_decay=0.0)
    before = weights(model)
    model.optimizer.apply([ops.zeros_like(variable) for variable in model.trainable_variables])
    for path, value in weights(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


def test_the_optimizer_is_the_one_that_params_name(params):
    sgd = compiled(params, optimizer="sgd", momentum=0.8).optimizer
    assert isinstance(sgd, keras.optimizers.SGD)
    assert (sgd.momentum, sgd.nesterov) == (0.8, True)
    assert compiled(params, optimizer="sgd", momentum=0.0).optimizer.nesterov is False
    assert isinstance(compiled(params, optimizer="adam").optimizer, keras.optimizers.Adam)


def test_the_average_follows_the_weights_by_its_momentum(params):
    model = compiled(params, ema=0.75, weight_decay=0.0, learning_rate=0.1)
    steps = []
    for _ in range(2):
        model.optimizer.apply([ops.ones_like(variable) for variable in model.trainable_variables])
        steps.append(weights(model))
    averages = model.optimizer._model_variables_moving_average
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        expected = 0.75 * steps[0][variable.path] + 0.25 * steps[1][variable.path]
        np.testing.assert_allclose(ops.convert_to_numpy(average), expected, rtol=1e-5, atol=1e-6)


def test_no_ema_no_average(params):
    assert compiled(params, ema=0.0).optimizer.use_ema is False


def test_label_smoothing_reaches_the_loss(params):
    sure = np.eye(7, dtype=np.float32)[:1]
    assert float(compiled(params, label_smoothing=0.0).loss(sure, sure)) == pytest.approx(0, abs=1e-5)
    assert float(compiled(params, label_smoothing=0.2).loss(sure, sure)) > 0.5
