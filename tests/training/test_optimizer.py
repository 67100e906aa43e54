"""Precision, learning rate, weight decay and moving average follow the settings."""

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
def test_warm_up_rises_linearly_to_the_peak(params, schedule):
    rate = rates(params.train, schedule=schedule, warmup=0.2)
    np.testing.assert_allclose(rate[:20], 0.5 * np.arange(1, 21) / 20, rtol=1e-5)
    assert rate.max() == rate[19] == 0.5


@pytest.mark.parametrize(("schedule", "middle", "end"), [("constant", 1, 1), ("cosine", 0.5, 0), ("one_cycle", 0.5, 0)])
def test_schedule_after_the_warm_up(params, schedule, middle, end):
    rate = rates(params.train, schedule=schedule, warmup=0.2) / 0.5
    assert rate[60] == pytest.approx(middle, abs=1e-5)  # halfway from 20 to 100
    assert rate[-1] == pytest.approx(end, abs=0.02)
    assert (rate > 0).all()  # including the last step
    assert (np.diff(rate[19:]) <= 1e-6).all()


def test_cosine_and_one_cycle_differ_at_a_quarter(params):
    assert rates(params.train, schedule="cosine", warmup=0.2)[40] == pytest.approx(0.25 * (1 + np.cos(np.pi / 4)))
    assert rates(params.train, schedule="one_cycle", warmup=0.2)[40] == pytest.approx(0.5 * 0.75)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_first_step_without_a_warm_up_has_the_peak(params, schedule):
    assert rates(params.train, schedule=schedule, warmup=0.0)[0] == 0.5
    assert rates(params.train, steps=1, schedule=schedule, warmup=0.0).tolist() == [0.5]


CPU_FLAGS = {
    "flags\t\t: fpu sse avx2 avx512_bf16 avx512_vnni\n": "mixed_bfloat16",
    "flags\t\t: fpu amx_bf16 amx_tile\n": "mixed_bfloat16",
    "flags\t\t: fpu sse avx2 avx512f\n": "float32",
    "flags\t\t: fpu sse avx512_bf16_not_quite\n": "float32",
}


@pytest.fixture
def set_machine(monkeypatch, tmp_path):
    """A function that fakes the operating system, the content of /proc/cpuinfo and the devices."""

    def set_machine(system, cpuinfo, devices):
        (tmp_path / "cpuinfo").write_text(cpuinfo)
        monkeypatch.setattr(optimizer, "Path", lambda _: tmp_path / "cpuinfo")
        monkeypatch.setattr("platform.system", lambda: system)
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)

    return set_machine


@pytest.mark.parametrize(("cpuinfo", "expected"), CPU_FLAGS.items())
def test_auto_precision_depends_on_the_processor(set_machine, cpuinfo, expected):
    set_machine("Linux", cpuinfo, ["cpu:0"])
    assert resolve_precision("auto") == expected


def test_auto_precision_on_an_accelerator_and_on_other_systems(set_machine):
    bfloat16_flags = next(iter(CPU_FLAGS))
    set_machine("Darwin", bfloat16_flags, ["cpu:0"])
    assert resolve_precision("auto") == "float32"
    set_machine("Linux", "", ["cpu:0", "gpu:0"])
    assert resolve_precision("auto") == "mixed_bfloat16"


def test_explicit_precision_is_kept_on_any_machine(set_machine):
    set_machine("Linux", next(iter(CPU_FLAGS)), ["gpu:0"])
    assert resolve_precision("float32") == "float32"
    set_machine("Linux", "", ["cpu:0"])
    assert resolve_precision("mixed_bfloat16") == "mixed_bfloat16"


def compiled(params, **changes):
    train = params.train.model_copy(
        update={"widths": (8,), "blocks": (0,), "schedule": "constant", "warmup": 0.0, "momentum": 0.0, **changes}
    )
    model = build(train)
    compile_for(model, train, steps=STEPS)
    model.optimizer.build(model.trainable_variables)
    return model


def weights(model):
    return {variable.path: ops.convert_to_numpy(variable) for variable in model.trainable_variables}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("architecture", ["fer_resnet", "mini_xception"])
def test_weight_decay_applies_to_kernels_only(params, optimizer, architecture):
    model = compiled(params, architecture=architecture, optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
    for variable in model.trainable_variables:
        variable.assign(ops.ones_like(variable))
    model.optimizer.apply([ops.zeros_like(variable) for variable in model.trainable_variables])
    names = {variable.name for variable in model.trainable_variables}
    assert {"bias", "gamma", "beta"} <= names
    for path, value in weights(model).items():
        np.testing.assert_allclose(value, 0.95 if path.endswith("kernel") else 1.0, rtol=1e-5, err_msg=path)


def test_weights_stay_without_weight_decay(params):
    model = compiled(params, weight_decay=0.0)
    before = weights(model)
    model.optimizer.apply([ops.zeros_like(variable) for variable in model.trainable_variables])
    for path, value in weights(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


def test_optimizer_follows_params(params):
    sgd = compiled(params, optimizer="sgd", momentum=0.8).optimizer
    assert isinstance(sgd, keras.optimizers.SGD)
    assert (sgd.momentum, sgd.nesterov) == (0.8, True)
    assert compiled(params, optimizer="sgd", momentum=0.0).optimizer.nesterov is False
    assert isinstance(compiled(params, optimizer="adam").optimizer, keras.optimizers.Adam)


def test_moving_average_has_the_momentum_of_params(params):
    model = compiled(params, ema=0.75, weight_decay=0.0, learning_rate=0.1)
    steps = []
    for _ in range(2):
        model.optimizer.apply([ops.ones_like(variable) for variable in model.trainable_variables])
        steps.append(weights(model))
    averages = model.optimizer._model_variables_moving_average
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        expected = 0.75 * steps[0][variable.path] + 0.25 * steps[1][variable.path]
        np.testing.assert_allclose(ops.convert_to_numpy(average), expected, rtol=1e-5, atol=1e-6)


def test_ema_0_disables_the_moving_average(params):
    assert compiled(params, ema=0.0).optimizer.use_ema is False


def test_label_smoothing_applies_to_the_loss(params):
    certain = np.eye(7, dtype=np.float32)[:1]
    assert float(compiled(params, label_smoothing=0.0).loss(certain, certain)) == pytest.approx(0, abs=1e-5)
    assert float(compiled(params, label_smoothing=0.2).loss(certain, certain)) > 0.5
