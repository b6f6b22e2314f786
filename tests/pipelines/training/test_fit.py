"""Training loop: exact gradients, bit-exact resume, and nothing poisoned or lost."""

import json
import os
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eval import NonFiniteScoreError
from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import CheckpointError
from pipelines.training import checkpoint
from pipelines.training.config import TrainConfig
from pipelines.training.ema import EMA
from pipelines.training.fit import fit
from pipelines.training.nonfinite import NonFiniteStepError
from pipelines.training.schedule import batch_indices, work
from pipelines.training.step import Stepper

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_run.py"))))

# every option whose state a resumed run needs; 10 images in batches of 4 make 3 steps an epoch
FULL = TrainConfig(
    epochs=3,
    batch_size=4,
    learning_rate=0.05,
    warmup_steps=3,
    lr_decay="cosine",
    weight_decay=0.01,
    ema=0.9,
    kl_warmup=4,
    kl_warmup_top=8,
    soft_free_bits=0.5,
    log_every=3,  # so that a checkpoint falls between two lines
    eval_every=2,
    checkpoint_every=2,
)


def on_cpu(config):
    return make_fabric(DeviceConfig("cpu", "1"), config.precision)


class CrashError(Exception):
    pass


class Crashing(toy.Toy):
    """Raises in its forward number `at`, counted over the whole run of this process."""

    def __init__(self, at):
        torch.manual_seed(1)  # as toy.build does
        super().__init__()
        self.at = at

    def forward(self, x, y=None):
        if self.calls + 1 == self.at:
            raise CrashError
        return super().forward(x, y)


def score(model):
    return {"bits_per_dim": float(model.decode.weight.abs().sum())}


def train(config, run_dir, model=None, images=None, **options):
    run_dir.mkdir(exist_ok=True)
    model = toy.build() if model is None else model
    images = toy.ToyImages() if images is None else images
    return fit(
        on_cpu(config),
        model,
        images,
        config,
        run_dir,
        evaluate=score,
        **options,
    )


def lines(run_dir, name="metrics.jsonl"):
    """Return the lines of a log, without figures of time."""
    clocks = {"seconds", "images_per_second"}
    found = [json.loads(line) for line in (run_dir / name).read_text().splitlines()]
    return [{key: line[key] for key in line if key not in clocks} for line in found]


def assert_same(found, expected, path=""):
    """Equal to the last bit, tensor by tensor, but for the clock."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), path
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected.keys() - {"seconds", "config"}:
            assert_same(found[key], expected[key], f"{path}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{path}.{number}")
    else:
        assert found == expected, path


def final_state(run_dir):
    return checkpoint.read_state(checkpoint.checkpoints(run_dir)[0])


def assert_same_run(found, expected):
    assert_same(final_state(found), final_state(expected))
    assert lines(found) == lines(expected)
    name = "weights.safetensors"
    assert_same(load_file(found / name), load_file(expected / name))


# Which images, which gradient


def test_every_image_comes_once_an_epoch_in_an_order_of_its_own():
    epochs = [
        np.concatenate(
            [
                batch_indices(step, seed=3, count=10, batch_size=4)
                for step in range(e * 3, e * 3 + 3)
            ]
        )
        for e in range(2)
    ]
    assert [sorted(epoch.tolist()) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_out_the_same_batches(world):
    for step in range(3):
        jobs = [
            work(toy.ToyImages(), step, seed=0, batch_size=4, rank=r, world=world, accumulate=2)
            for r in range(world)
        ]
        shares = [
            part.y
            for job in jobs
            for part, weight in zip(job.parts, job.weights, strict=True)
            if weight
        ]
        assert len({len(job.parts) for job in jobs}) == 1, "each part is a meeting of all"
        assert sorted(torch.cat(shares).tolist()) == sorted(jobs[0].indices.tolist())
        assert all(job.parts for job in jobs), "a process without a forward would hang the others"


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("step", [0, 2])  # a full batch, and the epoch's last one of 2 images
def test_the_gradient_is_that_of_the_mean_over_the_batch(accumulate, step):
    config = TrainConfig(batch_size=4, accumulate=accumulate, grad_clip=0)
    stepper = Stepper(
        on_cpu(config),
        toy.build(noise=0.0).double(),
        config,
        9,
    )
    job = work(toy.ToyImages(), step, seed=0, batch_size=4, accumulate=accumulate)
    assert len(job.indices) == (4 if step == 0 else 2)
    stepper._backward(job)
    reference = toy.build(noise=0.0).double()
    batch = toy.ToyImages().batch(job.indices, noise_seed=(0,))
    terms = reference(batch.x)
    (terms.distortion + terms.rate).mean().backward()
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(stepper.plain.get_parameter(name).grad, parameter.grad)


# Resuming


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Runs without a crash, by config."""
    runs = {}

    def run(config):
        if config not in runs:
            runs[config] = tmp_path_factory.mktemp("whole")
            train(config, runs[config])
        return runs[config]

    return run


# calls of forward: without accumulation one a step, so 4 is right after the first epoch's end
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 9])
def test_a_crash_in_any_step_changes_nothing_in_the_end(tmp_path, uninterrupted, at):
    with pytest.raises(CrashError):
        train(FULL, tmp_path, Crashing(at))
    train(replace(FULL, resume=True), tmp_path)
    assert_same_run(tmp_path, uninterrupted(FULL))


@pytest.mark.parametrize("free_bits", [0.0, 0.4])
@pytest.mark.parametrize("at", [2, 6, 8])
def test_nor_does_one_in_the_middle_of_accumulation(tmp_path, uninterrupted, at, free_bits):
    config = replace(FULL, accumulate=2, soft_free_bits=0.0, free_bits=free_bits)
    with pytest.raises(CrashError):
        train(config, tmp_path, Crashing(at))
    train(replace(config, resume=True), tmp_path)
    assert_same_run(tmp_path, uninterrupted(config))


def test_twice_n_steps_are_n_and_n_more(tmp_path, uninterrupted):
    config = replace(FULL, lr_decay="constant", eval_every=0)
    half = replace(config, steps=4)
    train(half, tmp_path)
    train(replace(half, steps=8, resume=True), tmp_path)
    whole = uninterrupted(replace(config, steps=8))
    assert_same(final_state(tmp_path), final_state(whole))
    assert [line for line in lines(tmp_path) if line["step"] != 4] == lines(whole)


def test_a_damaged_checkpoint_costs_only_time(tmp_path, uninterrupted, capsys):
    with pytest.raises(CrashError):
        train(FULL, tmp_path, Crashing(7))
    newest = checkpoint.checkpoints(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    train(replace(FULL, resume=True), tmp_path)
    said = capsys.readouterr().err
    assert "WARNING" in said
    assert newest.name in said
    assert_same_run(tmp_path, uninterrupted(FULL))


def test_resuming_a_finished_run_does_nothing(tmp_path, uninterrupted):
    train(FULL, tmp_path)
    result = train(replace(FULL, resume=True), tmp_path)
    assert result.steps == 9
    assert_same_run(tmp_path, uninterrupted(FULL))


def test_another_configuration_or_data_set_is_refused_field_by_field(tmp_path):
    train(FULL, tmp_path)
    changed = replace(FULL, learning_rate=0.1, seed=5, resume=True, epochs=4)
    with pytest.raises(CheckpointError) as raised:
        train(changed, tmp_path)
    assert "learning_rate: 0.05 there, 0.1 here; seed: 0 there, 5 here" in str(raised.value)
    assert "epochs" not in str(raised.value)
    images = toy.ToyImages()
    images.fingerprint = "others"
    with pytest.raises(CheckpointError, match="training set: 'toy' there, 'others' here"):
        train(replace(FULL, resume=True), tmp_path, images=images)
    with pytest.raises(CheckpointError, match="belongs to another model"):
        train(replace(FULL, resume=True), tmp_path, torch.nn.Linear(3, 3))


# Saving


def test_the_newest_and_the_best_checkpoints_stay(tmp_path):
    scores = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    config = replace(FULL, eval_every=2, checkpoint_every=1)
    fit(
        on_cpu(config),
        toy.build(),
        toy.ToyImages(),
        config,
        tmp_path,
        evaluate=lambda _: {"bits_per_dim": next(scores)},
    )
    steps = [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)]
    assert steps == [9, 8, 4]


def test_a_full_disk_stops_the_run_and_keeps_what_was_saved(tmp_path, monkeypatch, uninterrupted):
    replace_file, calls = os.replace, []

    def fill_up(old, new):
        calls.append(new)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        replace_file(old, new)

    monkeypatch.setattr(os, "replace", fill_up)
    with pytest.raises(CheckpointError, match="No space left on device; what was saved before"):
        train(FULL, tmp_path)
    monkeypatch.undo()
    train(replace(FULL, resume=True), tmp_path)
    assert_same_run(tmp_path, uninterrupted(FULL))


def test_no_epochs_only_write_the_weights(tmp_path):
    result = train(replace(FULL, epochs=0), tmp_path)
    assert result.steps == 0
    assert_same(load_file(tmp_path / "weights.safetensors"), dict(toy.build().state_dict()))


# The average


def test_the_average_warms_up_and_copies_buffers():
    model = toy.build()
    ema = EMA(model, decay=0.5)
    expected = model.encode.weight.detach().clone()
    for t in range(20):
        with torch.no_grad():
            model.encode.weight.normal_()
            model.norm.running_mean.fill_(t)
        ema.update(model)
        d = min(0.5, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * model.encode.weight.detach()
        torch.testing.assert_close(ema.module.encode.weight.detach(), expected)
        assert ema.module.norm.running_mean[0] == t


def test_without_decay_the_average_is_the_newest_weights(tmp_path):
    train(replace(FULL, ema=0.0), tmp_path)
    state = final_state(tmp_path)
    assert_same(state["ema"], state["model"])


def test_the_average_is_what_is_saved_scored_and_returned(tmp_path):
    result = train(FULL, tmp_path)
    state = final_state(tmp_path)
    assert not result.model.training
    assert not torch.equal(state["ema"]["encode.weight"], state["model"]["encode.weight"])
    assert_same(dict(result.model.state_dict()), dict(state["ema"]))
    assert_same(load_file(tmp_path / "weights.safetensors"), dict(state["ema"]))
    assert lines(tmp_path)[-1]["valid/bits_per_dim"] == score(result.model)["bits_per_dim"]


# Losses that are not finite


def nan_step(index, config=FULL):
    for step in range(9):
        if index in batch_indices(step, seed=config.seed, count=10, batch_size=4):
            return step
    raise AssertionError


def test_a_non_finite_loss_stops_before_anything_is_changed(tmp_path):
    index = int(batch_indices(1, seed=0, count=10, batch_size=4)[0])
    with pytest.raises(NonFiniteStepError, match=r"step 2 has a loss of nan .* weights of step 1"):
        train(FULL, tmp_path, toy.build(nan_index=index))
    (record,) = lines(tmp_path, "nonfinite.jsonl")
    assert record["step"] == 2
    assert record["last_good_step"] == 1
    assert index in record["indices"]
    state = final_state(tmp_path)
    assert state["step"] == 1
    for tensors in (state["model"], state["ema"]):
        assert all(tensor.isfinite().all() for tensor in tensors.values())
    # the saved state is that of a run which never saw the batch
    train(replace(FULL, steps=1, eval_every=0), tmp_path / "good")
    good = final_state(tmp_path / "good")
    assert_same([state["model"], state["ema"]], [good["model"], good["ema"]])


def test_a_validation_that_is_not_finite_ends_a_run_that_is_saved(tmp_path):
    def evaluate(model):
        raise NonFiniteScoreError("image 3 scored [nan, 0.0] nats")

    tmp_path.mkdir(exist_ok=True)
    config = replace(FULL, checkpoint_every=0)
    with pytest.raises(NonFiniteScoreError):
        fit(
            on_cpu(config),
            toy.build(),
            toy.ToyImages(),
            config,
            tmp_path,
            evaluate=evaluate,
        )
    assert final_state(tmp_path)["step"] == config.eval_every


def test_a_gradient_scaler_survives_a_skipped_step(monkeypatch):
    """It has unscaled the gradient by then, and must not think so in the next step."""
    config = TrainConfig(batch_size=4, on_nonfinite="skip")
    fabric = on_cpu(config)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    mixed = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    monkeypatch.setattr(fabric.strategy, "precision", mixed)
    monkeypatch.setattr(fabric, "_precision", mixed)
    bad = int(batch_indices(0, seed=0, count=10, batch_size=4)[0])
    stepper = Stepper(fabric, toy.build(nan_index=bad), config, total=3)
    jobs = [work(toy.ToyImages(), step, seed=0, batch_size=4) for step in (0, 1)]
    assert bad not in jobs[1].indices
    found = [stepper.take(job, lambda: [0.0]).status for job in jobs]
    assert found[0] == "nonfinite"
    assert found[1] in ("taken", "rescaled")
    assert scaler.get_scale() <= 8


def test_a_non_finite_loss_can_be_skipped_and_the_average_stays_clean(tmp_path):
    config = replace(FULL, on_nonfinite="skip")
    result = train(config, tmp_path, toy.build(nan_index=0))
    assert result.steps == 9
    assert result.metrics["skipped"] == 3  # once an epoch
    records = lines(tmp_path, "nonfinite.jsonl")
    assert records[0]["step"] == nan_step(0) + 1
    assert all(0 in record["indices"] for record in records)
    assert all(tensor.isfinite().all() for tensor in result.model.state_dict().values())
    assert all(np.isfinite(line["nats"]) for line in lines(tmp_path) if "nats" in line)


def test_a_crash_between_skipped_steps_changes_nothing_either(tmp_path):
    config = replace(FULL, on_nonfinite="skip")
    train(config, tmp_path / "whole", toy.build(nan_index=0))
    model = Crashing(8)
    model.nan_index = 0
    (tmp_path / "crashed").mkdir()
    with pytest.raises(CrashError):
        train(config, tmp_path / "crashed", model)
    train(replace(config, resume=True), tmp_path / "crashed", toy.build(nan_index=0))
    assert_same_run(tmp_path / "crashed", tmp_path / "whole")
    logs = [lines(tmp_path / name, "nonfinite.jsonl") for name in ("crashed", "whole")]
    assert logs[0] == logs[1]


def test_a_non_finite_gradient_of_a_finite_loss_is_seen_too(tmp_path):
    class Steep(toy.Toy):
        def forward(self, x, y=None):
            terms = super().forward(x, y)
            return terms._replace(distortion=terms.distortion + (terms.rate * 0).sqrt())

    torch.manual_seed(1)
    with pytest.raises(NonFiniteStepError, match="gradient of norm nan"):
        train(replace(FULL, eval_every=0), tmp_path, Steep())
    assert all(tensor.isfinite().all() for tensor in final_state(tmp_path)["model"].values())


def test_skipping_without_end_is_an_error(tmp_path):
    class Broken(toy.Toy):
        def forward(self, x, y=None):
            terms = super().forward(x, y)
            return terms._replace(distortion=terms.distortion * float("inf"))

    with pytest.raises(NonFiniteStepError):
        train(replace(FULL, steps=50, on_nonfinite="skip", eval_every=0), tmp_path, Broken())
    assert len(lines(tmp_path, "nonfinite.jsonl")) == 20


# What is reported, and options


def test_what_is_logged_is_the_true_bound(tmp_path):
    train(replace(FULL, kl_warmup=1000, soft_free_bits=0.0, eval_every=0), tmp_path)
    for line in lines(tmp_path):
        assert line["nats"] == pytest.approx(line["distortion"] + line["rate"])
        assert line["rate"] == pytest.approx(line["rate_0"] + line["rate_1"])
        assert line["objective"] < line["nats"]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_trains_and_the_average_stays_float32(tmp_path, precision):
    config = replace(FULL, precision=precision, eval_every=0)
    train(config, tmp_path / "whole")
    weights = load_file(tmp_path / "whole" / "weights.safetensors")
    assert weights["encode.weight"].dtype == torch.float32
    (tmp_path / "crashed").mkdir()
    with pytest.raises(CrashError):
        train(config, tmp_path / "crashed", Crashing(6))
    train(replace(config, resume=True), tmp_path / "crashed")
    assert_same_run(tmp_path / "crashed", tmp_path / "whole")


def test_float16_without_a_gpu_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="needs a CUDA device"):
        make_fabric(DeviceConfig("cpu"), "16-mixed")


def test_a_trace_of_some_steps_is_written(tmp_path):
    train(replace(FULL, profile=True), tmp_path)
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_scalars_reach_tensorboard(tmp_path):
    train(FULL, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("bits_per_dim", "valid/bits_per_dim"):
        assert [(event.step, event.value) for event in events.Scalars(name)] == [
            (line["step"], pytest.approx(line[name], rel=1e-6))
            for line in lines(tmp_path)
            if name in line
        ]


@pytest.mark.slow
def test_compiled_training_keeps_the_names_of_the_plain_model(tmp_path):
    config = replace(FULL, compile=True, steps=3)
    train(config, tmp_path / "compiled")
    train(replace(config, compile=False), tmp_path / "plain")
    compiled, plain = (final_state(tmp_path / name) for name in ("compiled", "plain"))
    assert compiled["model"].keys() == plain["model"].keys()
    train(replace(config, compile=False, resume=True, steps=4), tmp_path / "compiled")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"steps": -1}, "--steps must be at least 0, got -1"),
        ({"ema": 1.0}, "--ema must be at least 0 and below 1, got 1.0"),
        ({"free_bits": 1.0, "soft_free_bits": 1.0}, "exclude one another"),
        ({"learning_rate": float("nan")}, "--learning-rate must be more than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**fields)


def test_an_empty_training_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="training set is empty"):
        train(FULL, tmp_path, images=toy.ToyImages(0))


def test_devices_that_are_not_there_are_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="--accelerator cuda --devices auto is not available"):
        make_fabric(DeviceConfig("cuda"))
