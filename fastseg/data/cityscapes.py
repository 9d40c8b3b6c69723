"""Cityscapes as people have it: unpacked or still in its zip archives, with fine or coarse labels, or by list files.

root/leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
root/gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png (or labelTrainIds.png); gtCoarse alike

2,975 train, 500 val and 1,525 test images of 2048x1024, 19 classes; 19,998 more, train_extra, have coarse labels only.
Every package may lie in root as it was downloaded (leftImg8bit_trainvaltest.zip, leftImg8bit_trainextra.zip,
gtFine_trainvaltest.zip, gtCoarse.zip), or unpacked into a folder called like its archive. Where root/<split>.txt
exists, its pairs are the split.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", arXiv 1604.01685; names, ids,
categories and colours are those of helpers/labels.py in mcordts/cityscapesScripts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from fastseg.data import cityscapes_files as files
from fastseg.data import cityscapes_labels, listing
from fastseg.data.coding import Values
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset
from fastseg.data.notes import say_once
from fastseg.data.readers import read_image
from fastseg.errors import DataError, ImageReadError, MissingFileError, printable, suggest
from fastseg.types import IGNORE_INDEX, DataFile, DatasetInfo, Sample

PACKAGES = {"fine": "gtFine", "coarse": "gtCoarse"}
SPLITS = {"fine": ("train", "val"), "coarse": ("train", "val", "train_extra")}
HINT = "data.args.labels says what the files hold: labelIds (0-33), labelTrainIds (0-18 and 255), or auto"
RAW_IDS = range(34)  # of which 19 are classes; -1, the license plate, is in no label image

# Black all over in the published archive; the download page asks to replace it.
BLANK = "troisdorf_000000_000073_leftImg8bit.png"


CITYSCAPES = DatasetInfo(
    name="cityscapes",
    class_names=(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    palette=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
    official_ids=(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
    categories=(
        *("flat", "flat", "construction", "construction", "construction", "object", "object", "object", "nature"),
        *("nature", "sky", "human", "human", "vehicle", "vehicle", "vehicle", "vehicle", "vehicle", "vehicle"),
    ),
    instance_classes=("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)


# what stands in the pixels -> class; 255 is in no official file, so that train ids taken for official ones are refused
CODINGS = {
    "labelIds": Values.of(CITYSCAPES.official_ids, RAW_IDS, CITYSCAPES.name, hint=HINT),
    "labelTrainIds": Values.of(range(CITYSCAPES.num_classes), (IGNORE_INDEX,), CITYSCAPES.name, hint=HINT),
}


@DATASETS.register
def cityscapes(
    root: str, split: str, labels: str = "auto", annotations: str = "auto", lists: dict[str, str | None] | None = None
) -> SegDataset:
    """Cityscapes below `root`, from folders or from the archives there; a folder is read before an archive.

    `annotations` are 'fine' or 'coarse'; 'auto' takes the coarse ones for train_extra, which has no others, and the
    fine ones for every other split. `labels` says what stands in the label files, 'labelIds' or 'labelTrainIds';
    'auto' finds out from their pixels and says so in one line. `lists` maps a split to its list file, relative to
    `root` or absolute (default: root/<split>.txt where that exists; null: none), with an image and its label,
    separated by a tab, in every line; both may be in the archives.

    Raises MissingFileError for a root, folder or list that does not exist and for images and labels without a partner,
    ImageReadError for a damaged archive, LabelError for label files of the other kind or of both, DataError for an
    unknown split, kind or list, for the test split, whose labels are not public, and for folders without an image.
    """
    if annotations not in ("auto", *PACKAGES):
        raise DataError(
            f"cityscapes has no annotations {annotations!r} (data.args.annotations); "
            f"{suggest(annotations, ('auto', *PACKAGES))}"
        )
    if annotations == "auto":
        annotations = "coarse" if split == "train_extra" else "fine"
    if labels not in ("auto", *CODINGS):
        raise DataError(
            f"cityscapes has no labels {labels!r} (data.args.labels); {suggest(labels, ('auto', *CODINGS))}"
        )
    package = PACKAGES[annotations]
    folder = listing.require_root(root, CITYSCAPES.name, _expected(package, split))
    list_file = _list_of(folder, split, lists)
    _require_labelled(folder, split, annotations, list_file)
    samples = _found(folder, package, split, labels) if list_file is None else _listed(list_file, folder)
    samples = [sample for sample in samples if not _is_blank(sample.image)]
    if not samples:
        raise DataError(f"cityscapes {split} in {printable(folder)} has no image but {BLANK}, which is black all over")
    what = f"cityscapes {split}" + (" (coarse)" if annotations == "coarse" and list_file is None else "")
    kind = cityscapes_labels.kind_of([sample.label for sample in samples], labels, what=what)
    return FileDataset(CITYSCAPES, samples, CODINGS[kind])


def cityscapes_images(root: str, split: str) -> list[tuple[str, DataFile]]:
    """Images of any split, test included, with their official base names ('berlin_000000_000019'), sorted.

    Raises MissingFileError for a root or folder that does not exist, ImageReadError for a damaged archive, DataError
    for an unknown split and for one without images.
    """
    expected = _expected(files.IMAGES, split)
    folder = listing.require_root(root, CITYSCAPES.name, expected)
    files.require_split(folder, split, files.SPLITS)
    images = files.require_images(files.find_part(folder, files.IMAGES, split, expected))
    return [(name.rpartition("/")[2], file) for name, file in images.items()]


def _expected(package: str, split: str) -> tuple[str, ...]:
    """What the root should hold, for messages."""
    return tuple(
        f"{part}/ (or {archive})" if (archive := files.ARCHIVES[part].get(split)) else f"{part}/"
        for part in dict.fromkeys((files.IMAGES, package))
    )


def _list_of(folder: Path, split: str, lists: object) -> Path | None:
    """The list file of the split, or None. Raises DataError for `lists` of another type, MissingFileError for none."""
    if not isinstance(lists, Mapping | None) or not all(
        isinstance(each, str | None) for each in (lists or {}).values()
    ):
        raise DataError(
            f"data.args.lists is {lists!r}; it takes a list file for each split, such as {{train: train_fine.txt}}, "
            "since training and validation share data.args"
        )
    if lists and split in lists:
        if lists[split] is None:
            return None
        path = folder / Path(lists[split]).expanduser()
        if not path.is_file():
            raise MissingFileError(
                f"the list {printable(path)} (data.args.lists.{split}) does not exist; {printable(folder)} contains: "
                f"{listing.contents(folder)}"
            )
        return path
    return next((path for path in folder.glob("*.txt") if path.stem == split and path.is_file()), None)


def _require_labelled(folder: Path, split: str, annotations: str, list_file: Path | None) -> None:
    """Raises DataError for the test split, for train_extra with fine labels, and for a name that is no split."""
    if split == "test":
        raise DataError(
            "the labels of cityscapes' test images are not public (gtFine/test marks the ego vehicle and the "
            "border only); score on val, or label the images for the benchmark's server: `fastseg submit cityscapes`"
        )
    if list_file is None:
        if split == "train_extra" and annotations == "fine":
            raise DataError("cityscapes' train_extra images have coarse labels only: leave data.args.annotations out")
        files.require_split(folder, split, SPLITS[annotations])


def _listed(path: Path, folder: Path) -> list[Sample]:
    """The pairs of a list file. Raises as `listing.samples_from_list`."""

    def no_label(image: Path) -> None:
        raise DataError(
            f"{printable(path)} names {printable(image.name)} without its label; cityscapes' lists have an image and "
            "its label, separated by a tab, in every line"
        )

    samples = listing.samples_from_list(path, folder, no_label, elsewhere=lambda entry: files.find_entry(folder, entry))
    return [Sample(sample.image, sample.label, _instances_beside(sample.label)) for sample in samples]


def _instances_beside(label: DataFile) -> DataFile | None:
    """x_gtFine_instanceIds.png for x_gtFine_labelIds.png and for x_gtFine_labelTrainIds.png, where that exists."""
    for kind in CODINGS:
        if label.name.endswith(f"_{kind}.png"):
            return files.sibling(label, label.name.removesuffix(f"{kind}.png") + "instanceIds.png")
    return None


def _found(folder: Path, package: str, split: str, labels: str) -> list[Sample]:
    """Images with their labels, city by city. Raises as `cityscapes` does for folders and pairs."""
    expected = _expected(package, split)
    images = files.find_part(folder, files.IMAGES, split, expected)
    annotations = files.find_part(folder, package, split, expected)
    by_name = files.require_images(images)
    endings = {kind: f"_{package}_{kind}.png" for kind in (CODINGS if labels == "auto" else (labels,))}
    of_kind = {kind: annotations.files(ending) for kind, ending in endings.items()}
    kind = max(of_kind, key=lambda each: len(by_name.keys() & of_kind[each].keys()))  # the first of equals: labelIds
    labels_by_name = of_kind[kind]
    for ours, theirs, wanted, part, ending in (
        (by_name, labels_by_name, "label", annotations, endings[kind]),
        (labels_by_name, by_name, "image", images, files.IMAGE_ENDING),
    ):
        alone = [str(path) for name, path in ours.items() if name not in theirs]
        if alone:
            raise MissingFileError(
                f"{len(alone)} of {len(ours)} files have no {wanted} {printable(part)}/*/*{ending}{part.note()}: "
                f"{listing.first(alone)}; complete the download{_remedy(wanted, kind)}"
            )
    instances = annotations.files(f"_{package}_instanceIds.png")
    return [Sample(path, labels_by_name[name], instances.get(name)) for name, path in by_name.items()]


def _remedy(wanted: str, kind: str) -> str:
    """Where labels come from that no archive holds."""
    if wanted == "label" and kind == "labelTrainIds":
        return ", make these files with cityscapesScripts' csCreateTrainIdLabelImgs, or set data.args.labels=labelIds"
    return ""


def _is_blank(image: DataFile) -> bool:
    """Whether this is the one image that was published without a picture, and was not replaced since."""
    if image.name != BLANK:
        return False
    try:
        blank = not read_image(image).any()
    except ImageReadError:
        blank = True
    if blank:
        say_once(
            f"cityscapes: {printable(image)} is left out: it is black all over, as published", level=logging.WARNING
        )
    return blank
