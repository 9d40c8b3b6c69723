"""Checkpoints of ESPNet's authors: `.pth` files of github.com/sacmehta/ESPNet (MIT), folder `pretrained/`.

Such a file is a table of tensors and says nothing of itself. Network and depths are read off its names and shapes; its
number of classes tells the data set, since the authors published two: 12 is CamVid with void as class 11, 20 is
Cityscapes with background as class 19. Preprocessing is that of their `test/VisualizeResults.py`: BGR, minus the mean,
divided by the standard deviation, both on 0..255, and then divided by 255 once more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fastseg.errors import CheckpointError, MissingFileError
from fastseg.models import MODELS
from fastseg.models.espnet import DILATIONS
from fastseg.types import DatasetInfo, Preprocessing, WeightsInfo
from fastseg.weights.files import Weights, file_sha256, read_torch_file, strip_wrappers

_COUNTER = ".num_batches_tracked"  # of batch norms; PyTorch had none when the authors wrote their files

# our names -> the authors', in this order; all but the last three are parts of the network, those are parts of a block
_RENAMES = (
    (r"^encoder\.level(\d)_norm\.", r"encoder.b\1."),
    (r"^encoder\.level(\d)_down\.norm\.", r"encoder.level\1_0."),  # the downsampler's norm has no module of its own
    (r"^encoder\.level(\d)_down\.", r"encoder.level\1_0."),
    (r"^encoder\.classifier\.", r"encoder.classifier.conv."),
    (r"^level3_norm\.", r"br."),
    (r"^level3_up\.", r"up_l3.0."),
    (r"^level2_project\.", r"level3_C.conv."),
    (r"^level2_norm\.", r"combine_l2_l3.0."),
    (r"^level2_fuse\.", r"combine_l2_l3.1."),
    (r"^level2_up\.", r"up_l2.0."),
    (r"^level2_up_norm\.", r"up_l2.1."),
    (r"^level1_fuse\.", r"conv."),
    (r"\.reduce\.", r".c1.conv."),
    *((rf"\.branches\.{index}\.", rf".d{dilation}.conv.") for index, dilation in enumerate(DILATIONS)),
    (r"\.norm\.", r".bn."),
)

_LICENCE = "MIT, as all of github.com/sacmehta/ESPNet (Copyright (c) 2018 Sachin Mehta)"
_THEIRS = "for their file of this form"


def read_espnet(
    path: str | Path, *, dataset: DatasetInfo | None = None, preprocessing: Preprocessing | None = None
) -> Weights:
    """Read a checkpoint of ESPNet's or ESPNet-C's authors as weights of `espnet` or `espnet_c`.

    `preprocessing` and `dataset` are for networks that were trained with the authors' code on other data: the file
    holds neither, and without `dataset` the classes have numbers for names. Raises MissingFileError, and
    CheckpointError for a file that cannot be read or is not of that network, for another number of classes than 12 or
    20 without `preprocessing`, and for a `dataset` that does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"weights file {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    theirs = _read_state(path)
    model, arguments, num_classes = _structure(theirs, path)
    state = _rename(theirs, model, arguments, num_classes, path)
    if dataset is not None and dataset.num_classes != num_classes:
        raise CheckpointError(f"{path} has {num_classes} classes and {dataset.name} {dataset.num_classes}")
    if dataset is not None and preprocessing is None:
        raise CheckpointError(f"{path} does not hold mean and standard deviation of {dataset.name}; give preprocessing")
    named = dataset or _numbered_classes(num_classes)
    info = WeightsInfo(
        model=model,
        name=named.name,
        file=str(path),
        sha256=file_sha256(path),
        dataset=named,
        preprocessing=preprocessing or Preprocessing(),
        model_args=arguments,
    )
    return Weights(state, _published(info, path) if preprocessing is None else info)


def authors_name(name: str, *, decoder: bool) -> str:
    """What the authors call our tensor `name` of `espnet` (`decoder`) or `espnet_c`."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name if decoder else name.removeprefix("encoder.")


def _read_state(path: Path) -> dict[str, Tensor]:
    """The file's tensors by the authors' names, without what wrappers put before them."""
    table = read_torch_file(path)
    if isinstance(table, Mapping) and isinstance(table.get("state_dict"), Mapping):
        table = table["state_dict"]  # `checkpoint.pth.tar` of the authors' training
    if not isinstance(table, Mapping) or not all(isinstance(tensor, Tensor) for tensor in table.values()):
        raise CheckpointError(
            f"{path} is not a checkpoint of ESPNet's authors: it holds no table of tensors (a state dict)"
        )
    state = {strip_wrappers(str(name)): tensor for name, tensor in table.items()}
    if len(state) != len(table):
        raise CheckpointError(
            f"{path} has tensors that differ in a wrapper's prefix (module.) alone; which one counts?"
        )
    return state


def _structure(state: Mapping[str, Tensor], path: Path) -> tuple[str, dict[str, object], int]:
    """The model's name, its arguments and its number of classes."""
    decoder = any(name.startswith("encoder.") for name in state)
    prefix = "encoder." if decoder else ""
    needed = [f"{prefix}classifier.conv.weight", *(["conv.conv.weight"] if decoder else [])]
    for name in needed:
        if name not in state or state[name].ndim != 4:
            found = f"it holds {', '.join(sorted(state)[:3])} ..." if state else "it is empty"
            raise CheckpointError(f"{path} is not a checkpoint of ESPNet's authors: no convolution {name!r}; {found}")
    num_classes = state[needed[0]].shape[0]
    arguments: dict[str, object] = {"in_channels": 3}
    for argument, level in (("p", "level2"), ("q", "level3")):
        blocks = (re.match(rf"{prefix}{level}\.(\d+)\.", name) for name in state)
        arguments[argument] = len({block[1] for block in blocks if block})
    if decoder:
        arguments["skip_channels"] = state["conv.conv.weight"].shape[1] - num_classes
    return "espnet" if decoder else "espnet_c", arguments, num_classes


def _rename(
    theirs: Mapping[str, Tensor], model: str, arguments: Mapping[str, object], num_classes: int, path: Path
) -> dict[str, Tensor]:
    """Tensors by our names: every tensor of the file has one place in the network, and the shape of that place."""
    described = ", ".join(f"{key}={value}" for key, value in {"num_classes": num_classes, **arguments}.items())
    try:
        with torch.device("meta"):
            own = MODELS.build(model, num_classes=num_classes, **arguments).state_dict()
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit {model} with {described}: {error}") from None
    names = {authors_name(name, decoder=model == "espnet"): name for name in own}
    missing = [name for name in names if name not in theirs and not name.endswith(_COUNTER)]
    unexpected = sorted(theirs.keys() - names.keys())
    different = [
        f"{name} {tuple(theirs[name].shape)} instead of {tuple(own[names[name]].shape)}"
        for name in names.keys() & theirs.keys()
        if theirs[name].shape != own[names[name]].shape
    ]
    parts = [
        f"{len(examples)} {what} ({', '.join(examples[:5])})"
        for what, examples in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", sorted(different)),
        )
        if examples
    ]
    if parts:
        raise CheckpointError(f"{path} does not fit {model} with {described}: tensors {'; '.join(parts)}")
    counters = {name: torch.zeros((), dtype=torch.int64) for name in names if name.endswith(_COUNTER)}
    found = {**counters, **theirs}
    return {ours: found[name] for name, ours in names.items()}


def _published(info: WeightsInfo, path: Path) -> WeightsInfo:
    """What the authors' files are, by their number of classes. A score goes to the form of the file it belongs to."""
    form = info.model_args.get("p"), info.model_args.get("q"), info.model_args.get("skip_channels")
    if info.dataset.num_classes == 12:
        from fastseg.data.camvid import CAMVID, RAW_VOID

        return replace(
            info,
            name="camvid",
            dataset=_with_extra_class(CAMVID, "void", RAW_VOID),
            preprocessing=_preprocessing((110.3313, 108.4091, 105.0335), (72.1252, 72.6885, 69.9026)),
            metric_published=f"authors' README: 55.64 mIoU, CamVid test, protocol camvid_authors, {_THEIRS}"
            if form == (2, 8, 19)
            else "",
            licence=f"{_LICENCE}; trained on CamVid, published for research without a stated licence",
        )
    if info.dataset.num_classes == 20:
        from fastseg.data.cityscapes import CITYSCAPES

        return replace(
            info,
            name="cityscapes",
            dataset=_with_extra_class(CITYSCAPES, "background", 0),
            # the authors shrink Cityscapes' 2048x1024 to 1024x512
            preprocessing=_preprocessing(
                (72.3923111, 82.90893555, 73.15840149), (45.3192215, 46.15289307, 44.91483307), input_scale=0.5
            ),
            metric_published=f"authors' README: 60.336 mIoU, Cityscapes test, {_THEIRS}" if form == (2, 8, 16) else "",
            licence=f"{_LICENCE}; trained on Cityscapes, whose terms allow non-commercial use only",
        )
    raise CheckpointError(
        f"{path} has {info.dataset.num_classes} classes, not the 12 of the authors' CamVid or the 20 of their "
        "Cityscapes weights, and does not hold the mean and standard deviation of its training data; convert it once: "
        "save_weights('own.safetensors', *fastseg.weights.read_espnet(path, preprocessing=Preprocessing(...)))"
    )


def _preprocessing(
    mean: tuple[float, float, float], std: tuple[float, float, float], *, input_scale: float = 1.0
) -> Preprocessing:
    """From the authors' ((bgr - mean) / std) / 255 on 0..255; ours is (bgr / 255 - mean) / std."""
    blue, green, red = mean
    return Preprocessing((blue / 255, green / 255, red / 255), std, channel_order="bgr", input_scale=input_scale)


def _with_extra_class(dataset: DatasetInfo, name: str, official_id: int) -> DatasetInfo:
    return replace(
        dataset,
        class_names=(*dataset.class_names, name),
        palette=(*dataset.palette, (0, 0, 0)),
        official_ids=(*dataset.official_ids, official_id),
    )


def _numbered_classes(num_classes: int) -> DatasetInfo:
    return DatasetInfo("unnamed", tuple(f"class_{index}" for index in range(num_classes)), palette=())
