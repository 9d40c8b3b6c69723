"""One sample of a data set: what is wrong with it, and what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastseg.data.coding import counted
from fastseg.data.dataset import FileDataset, SegDataset
from fastseg.data.findings import Finding
from fastseg.data.readers import read_image
from fastseg.errors import FastsegError, printable
from fastseg.types import IGNORE_INDEX, DatasetInfo


@dataclass(frozen=True)
class Look:
    """What one sample showed: findings (without a split yet), or its size (H,W) and pixels per label value (256).

    `digests` of image and label tell copies; None where the image is of one colour, since such images are all alike.
    """

    findings: tuple[Finding, ...] = ()
    size: tuple[int, int] = (0, 0)
    pixels: np.ndarray | None = None
    digests: tuple[bytes, bytes] | None = None


def look_at(dataset: SegDataset, index: int) -> Look:
    """Load sample `index` and see what is wrong with it by itself."""
    try:
        image, label = dataset.load(index)
        problem = _problem_of_arrays(image, label, dataset.info)
    except FastsegError as error:
        return Look(tuple(_problems_of_files(dataset, index, error)))
    image_file, label_file = files_of(dataset, index)
    if problem is not None:
        return Look((Finding("label", "", f"{label_file} {problem}", label_file),))
    found = _instance_findings(dataset, index, label.shape)
    pixels = np.bincount(label.ravel(), minlength=256)
    if pixels[IGNORE_INDEX] == label.size:
        found.append(Finding("ignored", "", f"{label_file} has no pixel of any class", label_file))
    digests = None
    if _is_constant(image):
        colour = tuple(map(int, image[0, 0]))
        found.append(Finding("constant", "", f"{image_file} has the colour {colour} everywhere", image_file))
    else:
        digests = _digest(image), _digest(label)
    return Look(tuple(found), (label.shape[0], label.shape[1]), pixels, digests)


def files_of(dataset: SegDataset, index: int) -> tuple[str, str]:
    """What to call a sample's image and label: their files, or the sample's name."""
    if isinstance(dataset, FileDataset):
        sample = dataset.samples[index]
        return printable(sample.image), printable(sample.label)
    name = printable(dataset.sample_name(index))
    return name, name


def _problem_of_arrays(image: np.ndarray, label: np.ndarray, info: DatasetInfo) -> str | None:
    """What a data set should not have loaded, or None: adapters are anybody's, and a GPU would only say 'assert'."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        return f"comes with an image {image.dtype} {image.shape}; the data set has to load uint8 (H,W,3)"
    if label.dtype != np.uint8 or label.shape != image.shape[:2]:
        return f"is loaded as {label.dtype} {label.shape}; the data set has to load uint8 {image.shape[:2]}"
    wrong = (label >= info.num_classes) & (label != IGNORE_INDEX)
    if wrong.any():
        values, counts = np.unique(label[wrong], return_counts=True)
        return (
            f"is loaded with classes {{{counted(values, counts)}}}; {info.name} has 0-{info.num_classes - 1} and "
            f"{IGNORE_INDEX} (ignored). Mend the data set's load()"
        )
    return None


def _problems_of_files(dataset: SegDataset, index: int, error: FastsegError) -> Iterator[Finding]:
    """Image and label each on their own, since the first that fails hides the other; `error` is of both together."""
    image_file, label_file = files_of(dataset, index)
    if not isinstance(dataset, FileDataset):
        yield Finding("label", "", str(error), label_file)
        return
    sample, alone = dataset.samples[index], True
    try:
        read_image(sample.image, apply_exif=False)
    except FastsegError as problem:
        alone = False
        yield Finding("image", "", str(problem), image_file)
    try:
        dataset.coding.load(sample.label)
    except FastsegError as problem:
        alone = False
        yield Finding("label", "", str(problem), label_file)
    if alone:
        yield Finding("size", "", str(error), label_file)


def _instance_findings(dataset: SegDataset, index: int, shape: tuple[int, ...]) -> list[Finding]:
    try:
        instances = dataset.load_instances(index)
    except FastsegError as error:
        return [Finding("instances", "", str(error), files_of(dataset, index)[1])]
    if instances is None or instances.shape == shape:
        return []
    file = dataset.samples[index].instances if isinstance(dataset, FileDataset) else dataset.sample_name(index)
    sizes = [f"{each[1]}x{each[0]}" for each in (instances.shape, shape)]
    return [Finding("instances", "", f"{printable(file)} is {sizes[0]} but its image is {sizes[1]}", printable(file))]


def _is_constant(image: np.ndarray) -> bool:
    first = image[0, 0]
    return bool((image[::16, ::16] == first).all() and (image == first).all())  # few images pass the cheap test


def _digest(pixels: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
