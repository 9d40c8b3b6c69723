"""One network measured in one process: its variants take turns on one picture."""

from __future__ import annotations

import copy
import ctypes
import gc
import io
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastseg.data.readers import read_image
from fastseg.data.road_scenes import render_scene
from fastseg.deploy.model import PRECISIONS
from fastseg.engine.bench_stages import COMPILED, PLAIN, RUNTIMES, Variant, build_variant, total
from fastseg.engine.floor import convolution_rate
from fastseg.engine.timing import Clock, Stopwatch, measured, rounds
from fastseg.errors import printable
from fastseg.models.facts import count_macs, count_parameters
from fastseg.types import SegModel
from fastseg.weights import create_model, load_model

SCENE = 7  # which street is drawn
DECODES = 5
SETTLE = 0.01  # seconds; threads of a variant wait busily for the next call, and would slow another's
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Job:
    """What to measure. `variants` are names of `bench_stages`; without `weights` the network's are random.

    `input_scale` takes the place of the weights' own factor from image to network input.
    Rounds end with `rounds` of them or the first that ends after `seconds`.
    """

    model: str
    variants: tuple[str, ...]
    height: int
    width: int
    weights: str | None = None
    input_scale: float | None = None
    num_classes: int = 19
    device: str = "cpu"
    threads: int = 1
    tune: bool = True
    rounds: int = 20
    seconds: float = 20.0


@dataclass
class VariantTimes:
    """Seconds of a variant: of every round from image to labels, and by stage.

    `equal` is the share of pixels labelled as by the first variant of the plain path, `peak` the bytes that one image
    takes above the loaded network. What was not measured is None, and `error` says why a variant has no times.
    """

    total: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    equal: float | None = None
    peak: int | None = None
    note: str = ""
    error: str = ""


@dataclass
class JobTimes:
    """What a job found: `rates` in FLOP/s by precision, `decode` in seconds by file format. A job can fail whole."""

    parameters: int = 0
    num_classes: int = 0
    macs: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    decode: dict[str, list[float]] = field(default_factory=dict)
    variants: dict[str, VariantTimes] = field(default_factory=dict)
    error: str = ""

    def floor(self, precision: str) -> float:
        """Seconds that the network's multiply-adds take at the measured rate."""
        return 2 * self.macs / self.rates[precision]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> JobTimes:
        """The inverse of `dataclasses.asdict`."""
        variants = {name: VariantTimes(**times) for name, times in values["variants"].items()}
        return cls(**{**values, "variants": variants})


def precision_of(variant: str) -> str:
    """In which precision a variant computes."""
    precision = variant.removesuffix(COMPILED)
    return precision if precision in PRECISIONS else "fp32"


@torch.inference_mode()
def measure(job: Job, clock: Clock = time.perf_counter) -> JobTimes:
    """Measure a job in this process, whose threads, and allocator with `tune`, it sets. Raises FastsegError."""
    torch.set_num_threads(job.threads)
    if job.tune:
        from fastseg.memory import tune_cpu

        tune_cpu()
    device = torch.device(job.device)
    watch = Stopwatch(clock, torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    image = render_scene(SCENE, job.height, job.width)[0]
    model = _model(job)
    found = JobTimes(count_parameters(model), model.num_classes, _macs(model, job))
    found.decode = _decode(image, watch)
    model = model.to(device)
    for precision in dict.fromkeys(map(precision_of, job.variants)):
        found.rates[precision] = convolution_rate(device, PRECISIONS[precision], watch)
    variants = {}
    for name in job.variants:
        found.variants[name] = VariantTimes()
        with _kept(found.variants[name]):
            variants[name] = build_variant(name, model, image, device)
            found.variants[name].note = variants[name].note
    if not any(name in PLAIN for name in job.variants):
        del model  # what is deployed is a copy: the peak is above that alone
    _take_turns(variants, image, found, job, watch)
    for precision in found.rates:  # the best of before and after: the floor is a limit
        again = convolution_rate(device, PRECISIONS[precision], watch)
        found.rates[precision] = max(again, found.rates[precision])
    return found


def _take_turns(variants: dict[str, Variant], image: np.ndarray, found: JobTimes, job: Job, watch: Stopwatch) -> None:
    reference: np.ndarray | None = None
    device = torch.device(job.device)
    laps: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for number in rounds(job.rounds, job.seconds, watch.clock):
        for name, variant in list(variants.items()):
            times = found.variants[name]
            peak = _peak_of(device) if number == 0 and len(job.variants) == 1 and _has_peak(name) else None
            time.sleep(SETTLE)
            with _kept(times):
                labels = variant.run(image, watch)
                laps[name].append(watch.take())
            if times.error:
                watch.take()
                del variants[name]
                continue
            if peak is not None:
                times.peak = peak()
            if number == 0:
                reference = labels if reference is None and name in PLAIN else reference
                times.equal = None if reference is None else float((labels == reference).mean())
    for name in variants:
        kept = measured(laps[name])
        found.variants[name].total = [total(each) for each in kept]
        stages = dict.fromkeys(stage for each in kept for stage in each)
        found.variants[name].stages = {stage: [each[stage] for each in kept] for stage in stages if stage != "total"}


def _model(job: Job) -> SegModel:
    if job.weights is not None:
        model = load_model(job.model, weights=job.weights)
        info = model.weights_info
        if info is not None and job.input_scale is not None:
            model.weights_info = replace(info, preprocessing=replace(info.preprocessing, input_scale=job.input_scale))
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_model(job.model, num_classes=job.num_classes).eval()


def _macs(model: SegModel, job: Job) -> int:
    scale = model.preprocessing.input_scale
    height, width = (max(1, round(side * scale)) for side in (job.height, job.width))
    return count_macs(copy.deepcopy(model).to("meta"), height, width)


def _decode(image: np.ndarray, watch: Stopwatch) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}
    for kind in ("PNG", "JPEG"):
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind)
        for _ in range(1 + DECODES):
            watch.start()
            read_image(file.getvalue())
            watch.lap(kind)
            times.setdefault(kind, []).append(watch.take()[kind])
        times[kind] = times[kind][1:]
    return times


@contextmanager
def _kept(times: VariantTimes) -> Iterator[None]:
    """What goes wrong with one variant is its result; the others are measured all the same."""
    try:
        yield
    except Exception as error:
        times.error = one_line(error)


def one_line(error: BaseException) -> str:
    """An error's kind and message, short enough for a table."""
    text = printable(re.sub(r"\s+", " ", str(error)).strip())
    return f"{type(error).__name__}: {text}"[:200]


def _has_peak(variant: str) -> bool:
    """Other engines and compilers take memory while they prepare, which says nothing of an image."""
    return variant not in RUNTIMES and not variant.endswith(COMPILED)


def _peak_of(device: torch.device) -> Callable[[], int | None]:
    """Start to watch memory; the function returned says how many bytes were in use at most above those of now."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        now = torch.cuda.memory_allocated(device)
        return lambda: torch.cuda.max_memory_allocated(device) - now
    with suppress(OSError, AttributeError):  # give back what drawing and decoding left: it would hide a peak
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR_REFS.write_text("5")  # the high-water mark begins anew
        resident = _status("VmRSS")
    except (OSError, LookupError):  # not Linux
        return lambda: None
    return lambda: _status("VmHWM") - resident


def _status(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(key)
    return int(found[1]) * 1024
