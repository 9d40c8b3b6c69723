"""The benchmark: every way to the labels gives the same ones, what fails is a row, tables hold what was measured."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from fastseg.data.road_scenes import render_scene
from fastseg.engine import bench_job, bench_process
from fastseg.engine.bench import ModelBench, bench, machine, models_of, to_dict, variants_of
from fastseg.engine.bench_job import Job, JobTimes, VariantTimes, measure
from fastseg.engine.bench_process import measure_apart
from fastseg.engine.bench_stages import PLAIN, STAGES, Plain, build_variant, total
from fastseg.engine.bench_table import csv_text, markdown, text_table
from fastseg.engine.floor import FLOP, convolution_rate
from fastseg.engine.timing import Stopwatch
from fastseg.errors import CheckpointError, ConfigError, MissingPackageError, UnknownNameError
from fastseg.models.facts import model_facts
from fastseg.types import Preprocessing
from toys import COLORS, NearestColor, StridedModel

CPU = torch.device("cpu")
JOB = Job("fast_scnn", (*PLAIN, "fp32", "bf16"), 64, 96, "camvid", tune=False, rounds=2, seconds=60)
IMAGE = render_scene(3, 48, 64)[0]


@pytest.fixture(scope="module")
def found() -> JobTimes:
    threads = torch.get_num_threads()
    try:
        return measure(JOB)
    finally:
        torch.set_num_threads(threads)


def made(**times: VariantTimes) -> JobTimes:
    """A result of our own: 1 GMAC at 1 TFLOP/s is a floor of 2 ms."""
    rates = {"fp32": 1e12, "bf16": 2e12}
    decode = {"PNG": [0.04], "JPEG": [0.01]}
    return JobTimes(1000, 19, 10**9, rates, decode, {name.replace("_", " "): each for name, each in times.items()})


def test_a_job_times_every_variant_by_stage_and_compares_its_labels(found: JobTimes) -> None:
    assert not found.error
    assert list(found.variants) == list(JOB.variants)
    for times in found.variants.values():
        assert not times.error
        assert len(times.total) == JOB.rounds
        assert set(times.stages) == set(STAGES)
        assert all(len(seconds) == JOB.rounds for seconds in times.stages.values())
    assert [found.variants[name].equal for name in PLAIN] == [1.0, 1.0]
    assert (found.variants["fp32"].equal or 0) >= 0.9999  # of 6144 pixels: folding may turn a tie
    assert (found.variants["bf16"].equal or 0) >= 0.97  # trained weights, 8 bits of mantissa
    assert set(found.rates) == {"fp32", "bf16"}
    assert set(found.decode) == {"PNG", "JPEG"}


def test_multiply_adds_are_those_of_the_networks_facts() -> None:
    job = replace(JOB, variants=("fp32",), weights=None, height=512, width=1024, rounds=1, seconds=0.01)
    model = bench_job._model(job)
    assert bench_job._macs(model, job) == model_facts("fast_scnn").macs["512x1024"]


def test_an_input_scale_takes_the_place_of_the_weights_own() -> None:
    job = replace(JOB, variants=("fp32",), height=64, width=128)
    own = bench_job._macs(bench_job._model(job), job)
    half = replace(job, input_scale=bench_job._model(job).preprocessing.input_scale / 2)
    assert bench_job._macs(bench_job._model(half), half) == pytest.approx(own / 4, rel=0.02)  # pyramid grids stay


def test_a_result_survives_its_way_through_json(found: JobTimes) -> None:
    assert JobTimes.from_dict(json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize("name", [*PLAIN, "fp32"])
@pytest.mark.parametrize(
    "preprocessing",
    [Preprocessing(), Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), channel_order="bgr")],
    ids=["rgb", "bgr"],
)
def test_every_torch_variant_prepares_images_as_the_network_wants_them(name: str, preprocessing: Preprocessing) -> None:
    model = NearestColor(preprocessing).eval()
    image = np.kron(np.arange(4).reshape(2, 2), np.ones((8, 8), int))
    with torch.inference_mode():
        labels = build_variant(name, model, COLORS[image], CPU).run(COLORS[image], Stopwatch())
    np.testing.assert_array_equal(labels, image)


def test_the_plain_path_enlarges_what_the_network_wants_larger() -> None:
    model = NearestColor(Preprocessing(input_scale=2.0)).eval()
    with torch.inference_mode():
        plain = Plain(model, CPU, maximum=False)
        assert plain._inputs(torch.from_numpy(IMAGE)).shape == (1, 3, 96, 128)
        assert plain.run(IMAGE, Stopwatch()).shape == IMAGE.shape[:2]


@pytest.mark.slow  # exporting takes a few seconds each
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_other_engines_give_the_labels_of_the_plain_path(name: str) -> None:
    for package in {"onnx": ("onnxscript", "onnxruntime"), "openvino": ("openvino",)}[name]:
        pytest.importorskip(package)
    model = StridedModel(5).eval()
    with torch.inference_mode():
        expected = Plain(model, CPU, maximum=False).run(IMAGE, Stopwatch())
        engine = build_variant(name, model, IMAGE, CPU)
        labels = engine.run(IMAGE, Stopwatch())
    assert (labels == expected).mean() >= 0.999  # float32 sums in another order turn near-ties
    assert "graph" in engine.note
    assert "opencv" in engine.note


def test_a_variant_that_fails_is_a_row_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench_job.build_variant

    def build(name: str, *rest: object) -> object:
        if name == "bf16":
            raise RuntimeError("no such\ninstruction")
        return whole(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(bench_job, "build_variant", build)
    monkeypatch.setattr(bench_job, "convolution_rate", lambda *args: 1e12)
    found = measure(replace(JOB, variants=("bf16", "fp32"), rounds=1))
    assert found.variants["bf16"].error == "RuntimeError: no such instruction"
    assert len(found.variants["fp32"].total) == 1
    rows = ModelBench(JOB, found).rows()
    assert [bool(row["error"]) for row in rows] == [True, False]


def test_the_convolution_rate_is_that_of_the_best_repetition() -> None:
    ticks = iter([0.0, 5.0, 5.0, 10.0, 12.0, 12.0])  # start, lap, lap's end: 5 s, then 2 s
    rate = convolution_rate(CPU, torch.float32, Stopwatch(lambda: next(ticks)), repetitions=2)
    assert rate == FLOP / 2


def test_rows_hold_medians_floors_and_ratios() -> None:
    together = made(
        plain_argmax=VariantTimes([0.4, 0.6, 0.5], {"network": [0.1, 0.3, 0.2]}, 1.0),
        bf16=VariantTimes([0.02, 0.02, 0.02], {}, 0.9975),
    )
    apart = {
        "plain argmax": made(plain_argmax=VariantTimes([0.8], peak=300_000_000)),
        "bf16": made(bf16=VariantTimes([0.01], peak=20_000_000)),
    }
    plain, ours = ModelBench(replace(JOB, variants=("plain argmax", "bf16")), together, apart).rows()
    assert plain["total ms"] == pytest.approx(500)
    assert plain["total p95 ms"] == pytest.approx(590)
    assert plain["network ms"] == pytest.approx(200)
    assert plain["x floor"] == pytest.approx(250)  # 2 ms in fp32
    assert ours["x floor"] == pytest.approx(20)  # 1 ms in bf16
    assert ours["images/s"] == pytest.approx(50)
    assert ours["vs plain argmax"] == pytest.approx(25)
    assert ours["own vs plain argmax"] == pytest.approx(80)
    assert ours["peak MB"] == pytest.approx(20)
    assert ours["labels equal %"] == pytest.approx(99.75)
    assert "vs plain argmax" not in plain


def test_each_variant_runs_in_its_own_process_and_the_plain_path_untuned() -> None:
    jobs: list[Job] = []

    def fake(job: Job, limit: float) -> JobTimes:
        jobs.append(job)
        return made(**{name.replace(" ", "_"): VariantTimes([0.1]) for name in job.variants})

    job = replace(JOB, variants=("plain max", "fp32"), tune=True)
    (result,) = bench([job], apart=True, limit=1, say=lambda text: None, measure=fake)
    assert [(each.variants, each.tune) for each in jobs] == [
        (("plain max", "fp32"), True),
        (("plain max",), False),
        (("fp32",), True),
    ]
    assert set(result.apart) == {"plain max", "fp32"}


def test_tables_name_machine_columns_and_failures() -> None:
    good = ModelBench(replace(JOB, variants=("fp32",), weights=None), made(fp32=VariantTimes([0.02], {}, None)))
    bad = ModelBench(replace(JOB, model="gscnn_r50"), JobTimes(error="stopped after the limit of 5 s"))
    facts = machine("cpu")
    text = text_table([good, bad], facts)
    assert facts["hardware"] in text
    assert "not measured: stopped after the limit of 5 s" in text
    assert "Weights are random" in text
    document = markdown([good, bad], facts, "fastseg bench --all")
    assert "`fastseg bench --all`" in document
    assert facts["date"] in document
    table = [line for line in document.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    lines = [line for line in csv_text([good, bad], facts).splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert [row["model"] for row in rows] == ["fast_scnn", "gscnn_r50"]
    assert float(rows[0]["total ms"]) == pytest.approx(20)
    assert rows[1]["error"] == "stopped after the limit of 5 s"
    assert [row["variant"] for row in to_dict([good, bad], facts)["rows"]] == ["fp32", "all"]


def test_a_process_that_takes_too_long_is_stopped_and_said_so() -> None:
    assert measure_apart(JOB, 0.01).error.startswith("stopped after the limit")


@pytest.mark.slow
def test_a_job_in_its_own_process_knows_its_peak_of_memory() -> None:
    found = measure_apart(replace(JOB, variants=("fp32",), height=256, width=512), 200)
    assert not found.error
    peak = found.variants["fp32"].peak
    if bench_job.CLEAR_REFS.exists():
        assert peak is not None
        assert 256 * 512 * 3 * 4 < peak < 2e9  # more than the network's input


def test_a_measuring_process_ends_once_its_parent_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([7, 7, 1])
    ended: list[int] = []
    monkeypatch.setattr(bench_process.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(bench_process.os, "_exit", ended.append)
    bench_process._end_with(7, every=0.001)
    assert ended == [1]
    assert next(parents, None) is None


def test_a_measuring_process_is_told_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode, stdout, stderr = 1, "", ""

    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> Done:
        commands.append(command)
        return Done()

    monkeypatch.setattr(bench_process.subprocess, "run", run)
    measure_apart(JOB, 1)
    assert commands[0][-1] == str(os.getpid())


def test_a_process_that_is_killed_names_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode, stdout, stderr = -9, "", ""

    monkeypatch.setattr(bench_process.subprocess, "run", lambda *args, **kwargs: Done())
    assert measure_apart(JOB, 1).error == "ended by signal 9, perhaps for memory"


def test_variants_stand_in_the_order_of_the_table() -> None:
    names = variants_of(["fp32", "bf16"], compiled=True, baseline=True, runtimes=["torch"], device="cpu")
    assert names == ("plain argmax", "plain max", "fp32", "bf16", "fp32 compiled", "bf16 compiled")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precisions": ["fp23"]}, "unknown precision 'fp23'; did you mean 'fp32'"),
        ({"precisions": ["fp16"]}, "fp16 is for GPUs"),
        ({"runtimes": ["onxn"]}, "unknown runtime 'onxn'; did you mean 'onnx'"),
        ({"runtimes": ["onnx"], "device": "cuda"}, "measured on the CPU"),
    ],
)
def test_a_variant_that_cannot_run_is_refused(arguments: dict[str, object], message: str) -> None:
    given = {"precisions": ["fp32"], "compiled": False, "baseline": False, "runtimes": ["torch"], "device": "cpu"}
    with pytest.raises(ConfigError, match=message):
        variants_of(**{**given, **arguments})  # type: ignore[arg-type]


def test_a_missing_engine_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'fastseg-zoo\[openvino\]'"):
        variants_of(["fp32"], compiled=False, baseline=False, runtimes=["openvino"], device="cpu")


def test_models_come_lightest_first() -> None:
    assert models_of(["espnet*", "fast_scnn"], None) == ["fast_scnn", "espnet_c", "espnet"]


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fast_scnn'"):
        models_of(["fastscnn"], None)


def test_weights_are_for_one_network_that_has_them() -> None:
    with pytest.raises(ConfigError, match="belong to one network"):
        models_of(["espnet*"], "camvid")
    with pytest.raises((UnknownNameError, CheckpointError)):
        models_of(["espnet"], "camvid")


def test_the_total_is_the_sum_of_the_stages_unless_it_was_measured() -> None:
    assert total({"copy": 1.0, "network": 2.0}) == 3.0
    assert total({"copy": 1.0, "network": 2.0, "total": 2.5}) == 2.5
