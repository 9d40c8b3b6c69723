"""Results for Cityscapes' benchmark server: a map of official ids per image, all checked before they are packed.

The server and cityscapesScripts take, for the image <city>_<sequence>_<frame>_leftImg8bit.png, the one file called
<city>_<sequence>_<frame>*.png, in any folder: grey, 8 bits, of the image's size, with ids as in helpers/labels.py.

Source: getPrediction and evaluatePair in evaluation/evalPixelLevelSemanticLabeling.py, mcordts/cityscapesScripts; the
numbers of images are those of arXiv 1604.01685, table 2.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.atomic import write_atomically
from fastseg.data.cityscapes import CITYSCAPES, cityscapes_images
from fastseg.data.coding import counted, ranges
from fastseg.data.files import ArchiveMember, FileInMemory, open_archive
from fastseg.data.findings import number_of
from fastseg.data.headers import image_size
from fastseg.data.png import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, png_header
from fastseg.data.readers import check_exists, read_image, read_label
from fastseg.engine.evaluate import check_classes
from fastseg.errors import DataError, FastsegError, OutputError, printable, suggest
from fastseg.output import check_target
from fastseg.pipeline import read_ahead
from fastseg.predict import Predictor
from fastseg.types import IGNORE_INDEX, DataFile

COUNTS = {"val": 500, "test": 1525}
ENDING = "_pred_labelIds.png"
SHOWN = 5

ONE_CHANNEL = (GREY, PALETTE)  # of a palette the indices are read

Progress = Callable[[int, int], None]
Images = Sequence[tuple[str, DataFile]]


def split_images(root: str, split: str, *, partial: bool = False) -> list[tuple[str, DataFile]]:
    """The images of a split below `root` with their base names, 'berlin_000000_000019'.

    Raises DataError for another split than test and val, and when there are not as many images as were
    published, unless `partial`; otherwise as `cityscapes_images`.
    """
    if split not in COUNTS:
        raise DataError(f"no results of cityscapes {split!r} can be submitted; {suggest(split, COUNTS)}")
    images = cityscapes_images(root, split)
    published = COUNTS[split]
    if len(images) != published and not partial:
        raise DataError(
            f"{printable(root)} has {len(images)} images in {split}, and {published} were published; the server takes "
            "all or none: complete the download, or add --partial to try what is there"
        )
    return images


def predict_results(predictor: Predictor, images: Images, *, progress: Progress | None = None) -> list[FileInMemory]:
    """Every image's labels as official ids, under the name that the server expects, in memory.

    Raises FastsegError for a network of other classes than Cityscapes', ImageReadError for an image.
    """
    check_classes(predictor, CITYSCAPES)
    if predictor.model.num_classes != CITYSCAPES.num_classes:
        raise FastsegError(
            f"the model predicts {predictor.model.num_classes} classes, and results have cityscapes' "
            f"{CITYSCAPES.num_classes} only; use weights trained on cityscapes without a class for the rest"
        )
    ids = np.array(CITYSCAPES.official_ids, np.uint8)
    results = []

    def load(index: int) -> np.ndarray:
        return read_image(images[index][1], apply_exif=False)

    with closing(read_ahead(load, range(len(images)))) as loaded:
        for index, image in loaded:
            buffer = io.BytesIO()
            Image.fromarray(ids[predictor.predict_array(image.result())]).save(buffer, "PNG")
            results.append(FileInMemory(images[index][0] + ENDING, buffer.getvalue()))
            if progress is not None:
                progress(len(results), len(images))
    return results


def find_results(path: str | Path) -> list[DataFile]:
    """The PNG files in a folder, on all levels, or in a zip archive; hidden ones left out.

    Raises MissingFileError for a path that does not exist, ImageReadError for a file that is no zip archive.
    """
    path = Path(path)
    check_exists(path)
    if path.is_dir():
        below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        files: list[DataFile] = list(below)
    else:
        files = [ArchiveMember(path, name) for name in open_archive(path).namelist()]
    return sorted((file for file in files if file.name.endswith(".png") and file.name[0] != "."), key=str)


def check_results(results: Sequence[DataFile], images: Images, *, progress: Progress | None = None) -> list[str]:
    """What is wrong with results for `images`, a sentence each, in the order of the images; nothing when all is well.

    Each image needs one result of its size: a PNG of 8 bits and one channel with ids of the 19 classes only. Raises
    ImageReadError for an image that is no PNG.
    """
    by_image, strangers = _matched(results, images)
    faults = []
    for done, (base, image) in enumerate(images, start=1):
        found = by_image[base]
        if not found:
            faults.append(f"{printable(base)}: no result; a file {printable(base)}*.png is expected")
        if len(found) > 1:
            shown = ", ".join(printable(file) for file in found[:SHOWN])
            faults.append(f"{printable(base)}: {len(found)} results, of which the server cannot choose: {shown}")
        for file in found:
            faults += [f"{printable(file)}: {fault}" for fault in _faults(file, image_size(image))]
        if progress is not None:
            progress(done, len(images))
    return faults + [f"{printable(file)}: there is no such image; remove the file" for file in strangers]


def pack_results(path: Path, results: Sequence[FileInMemory], *, overwrite: bool = False) -> int:
    """Write results into the zip archive `path`, whole or not at all; returns its size in bytes.

    The archive is made in memory. Equal results give equal archives. Raises OutputError when `path` exists, unless
    `overwrite`, or cannot be written.
    """
    check_target(path, overwrite=overwrite)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for result in results:
            archive.writestr(zipfile.ZipInfo(result.name), result.content)  # without a time
    write_atomically(path, buffer.getvalue())
    return buffer.tell()


def submit(
    predictor: Predictor,
    images: Images,
    path: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Predict all images, check all results, and only then write the zip archive; returns its size in bytes.

    Everything is in memory until then: some 50 MB for the 1,525 test images. Raises as `predict_results` and
    `pack_results`, OutputError for a name that does not end in .zip.
    """
    path = Path(path)
    if path.suffix.lower() != ".zip":
        raise OutputError(f"{printable(path)} does not end in .zip, which the server takes; name it so")
    check_target(path, overwrite=overwrite)  # before the network's work
    results = predict_results(predictor, images, progress=progress)
    faults = check_results(results, images)
    if faults:
        raise OutputError(
            f"{number_of(len(faults), 'fault')} in the results, nothing was written: {'; '.join(faults[:SHOWN])}"
        )
    return pack_results(path, results, overwrite=overwrite)


def _matched(results: Sequence[DataFile], images: Images) -> tuple[Mapping[str, list[DataFile]], list[DataFile]]:
    """Results by the base name that theirs begins with, and those of no image."""
    bases = {base for base, _ in images}
    lengths = {len(base) for base in bases}
    by_image: defaultdict[str, list[DataFile]] = defaultdict(list)
    strangers = []
    for file in results:
        starts = [file.name[:length] for length in lengths if file.name[:length] in bases]
        for base in starts:
            by_image[base].append(file)
        if not starts:
            strangers.append(file)
    return by_image, strangers


def _faults(file: DataFile, size: tuple[int, int]) -> Iterator[str]:
    """What is wrong with one result for an image of `size` (H,W)."""
    try:
        content = file.read_bytes()
        header = png_header(content)
        if header is None:
            yield "is no PNG"
            return
        if (header.height, header.width) != size:
            yield f"is {header.width}x{header.height}, but its image is {size[1]}x{size[0]}"
        if header.bits != 8 or header.colour_type not in ONE_CHANNEL:
            channels = {RGB: 3, GREY_ALPHA: 2, RGB_ALPHA: 4}.get(header.colour_type, 1)
            given = f"{number_of(channels, 'channel')} of {number_of(header.bits, 'bit')}"
            yield f"has {given}; a result has one channel of 8 bits"
            return
        values, counts = np.unique(read_label(content), return_counts=True)
    except (OSError, FastsegError) as error:
        yield str(error)
        return
    wrong = ~np.isin(values, CITYSCAPES.official_ids)
    if wrong.any():
        train_ids = set(values.tolist()) <= {*range(CITYSCAPES.num_classes), IGNORE_INDEX}
        yield (
            f"has values {{{counted(values[wrong], counts[wrong])}}} that are no class; allowed are "
            f"{ranges(CITYSCAPES.official_ids)}{'. These look like train ids: write official ids' if train_ids else ''}"
        )
