"""ESPNet's authors' checkpoints load by their own names and compute what the authors compute; nothing else gets in."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import fastseg
from fastseg.cli import main
from fastseg.data.camvid import CAMVID
from fastseg.errors import CheckpointError, ConfigError, FastsegError, MissingFileError, UnknownNameError
from fastseg.ops import normalize_images
from fastseg.predict import Predictor
from fastseg.types import DatasetInfo, Preprocessing, SegModel
from fastseg.weights import load_model, read_espnet, save_weights
from fastseg.weights.espnet import authors_name

OFFICIAL_NAMES = Path(__file__).parents[2].parent / "shared/reference/espnet_official_keys.json"
State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


# --- the authors' files, as their names and shapes are


def norm_shapes(prefix: str, channels: int) -> Shapes:
    shapes: Shapes = {f"{prefix}bn.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**shapes, f"{prefix}act.weight": (channels,)}


def pyramid_shapes(prefix: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    fifth = outputs // 5
    shapes: Shapes = {f"{prefix}c1.conv.weight": (fifth, inputs, kernel, kernel)}
    for dilation in (1, 2, 4, 8, 16):
        shapes[f"{prefix}d{dilation}.conv.weight"] = (outputs - 4 * fifth if dilation == 1 else fifth, fifth, 3, 3)
    return shapes


def encoder_shapes(classes: int, p: int, q: int) -> Shapes:
    shapes: Shapes = {"level1.conv.weight": (16, 3, 3, 3), **norm_shapes("level1.", 16), **norm_shapes("b1.", 19)}
    for level, inputs, width, blocks in ((2, 19, 64, p), (3, 131, 128, q)):
        shapes |= pyramid_shapes(f"level{level}_0.", inputs, width, 3) | norm_shapes(f"level{level}_0.", width)
        for block in range(blocks):
            prefix = f"level{level}.{block}."
            shapes |= pyramid_shapes(prefix, width, width, 1) | norm_shapes(f"{prefix}bn.", width)
    return shapes | norm_shapes("b2.", 131) | norm_shapes("b3.", 256) | {"classifier.conv.weight": (classes, 256, 1, 1)}


def official_shapes(classes: int, p: int, q: int, skip: int | None) -> Shapes:
    """`skip` None: an encoder's file."""
    encoder = encoder_shapes(classes, p, q)
    if skip is None:
        return encoder
    return {
        **{f"encoder.{name}": shape for name, shape in encoder.items()},
        "level3_C.conv.weight": (classes, 131, 1, 1),
        **{f"br.{part}": (classes,) for part in ("weight", "bias", "running_mean", "running_var")},
        "conv.conv.weight": (classes, classes + skip, 3, 3),
        **norm_shapes("conv.", classes),
        "up_l3.0.weight": (classes, classes, 2, 2),
        **norm_shapes("combine_l2_l3.0.", 2 * classes),
        **pyramid_shapes("combine_l2_l3.1.", 2 * classes, classes, 1),
        **norm_shapes("combine_l2_l3.1.bn.", classes),
        "up_l2.0.weight": (classes, classes, 2, 2),
        **norm_shapes("up_l2.1.", classes),
        "classifier.weight": (classes, classes, 2, 2),
    }


def official_state(classes: int, p: int = 2, q: int = 3, skip: int | None = 16, seed: int = 0) -> State:
    """Random weights, slopes and batch statistics that keep a signal alive through the network."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in official_shapes(classes, p, q, skip).items():
        if len(shape) == 4:
            fan = shape[0] if name.startswith(("up_", "classifier.weight")) else shape[1] * shape[2] * shape[3]
            state[name] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        elif name.endswith(("running_var", "bn.weight", "br.weight")):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        elif name.endswith("act.weight"):
            state[name] = torch.rand(shape, generator=generator) * 0.5
        else:
            state[name] = torch.randn(shape, generator=generator) * 0.3
    return state


VARIANTS = {
    "cityscapes q8": (20, 2, 8, 16),
    "cityscapes q3": (20, 2, 3, 16),
    "camvid q8": (12, 2, 8, 19),
    "encoder": (20, 2, 8, None),
    "small": (12, 1, 2, 16),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: object, name: str = "authors.pth", **options: Any) -> Path:
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.fixture
def camvid_file(write: Callable[..., Path]) -> Path:
    return write(official_state(12, q=2, skip=19))


# --- the authors' forward pass


def reference(state: State, images: Tensor) -> Tensor:
    """ESPNet (or its encoder) from a state dict of the authors' names, by functions alone; sides divisible by 8."""
    skip_with_image = "conv.conv.weight" in state and (
        state["conv.conv.weight"].shape[1] == state["conv.conv.weight"].shape[0] + 19
    )
    decoder = "conv.conv.weight" in state
    at = "encoder." if decoder else ""

    def normed(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-3)

    def activated(x: Tensor, name: str, norm: str = "bn") -> Tensor:
        return F.prelu(normed(x, f"{name}.{norm}"), state[f"{name}.act.weight"])

    def pyramid(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = state[f"{name}.c1.conv.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        one, two, four, eight, sixteen = (
            F.conv2d(x, state[f"{name}.d{d}.conv.weight"], padding=d, dilation=d) for d in (1, 2, 4, 8, 16)
        )
        sums = [one, two, two + four, two + four + eight, two + four + eight + sixteen]
        return torch.cat(sums, dim=1)

    def level(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        first = activated(pyramid(x, f"{name}_0", stride=2), f"{name}_0")
        last, block = first, 0
        while f"{name}.{block}.c1.conv.weight" in state:
            last = activated(last + pyramid(last, f"{name}.{block}"), f"{name}.{block}.bn")
            block += 1
        return first, last

    half = F.avg_pool2d(images, 3, stride=2, padding=1)
    quarter = F.avg_pool2d(half, 3, stride=2, padding=1)
    first = activated(F.conv2d(images, state[f"{at}level1.conv.weight"], stride=2, padding=1), f"{at}level1")
    with_image = activated(torch.cat([first, half], 1), f"{at}b1")
    down2, out2 = level(with_image, f"{at}level2")
    map2 = activated(torch.cat([out2, down2, quarter], 1), f"{at}b2")
    down3, out3 = level(map2, f"{at}level3")
    map3 = activated(torch.cat([down3, out3], 1), f"{at}b3")
    coarse = F.conv2d(map3, state[f"{at}classifier.conv.weight"])
    if not decoder:
        return coarse
    up3 = F.conv_transpose2d(normed(coarse, "br"), state["up_l3.0.weight"], stride=2)
    both = torch.cat([F.conv2d(map2, state["level3_C.conv.weight"]), up3], 1)
    fused = activated(pyramid(activated(both, "combine_l2_l3.0"), "combine_l2_l3.1"), "combine_l2_l3.1.bn")
    up2 = activated(F.conv_transpose2d(fused, state["up_l2.0.weight"], stride=2), "up_l2.1")
    joined = torch.cat([up2, with_image if skip_with_image else first], 1)
    fine = activated(F.conv2d(joined, state["conv.conv.weight"], padding=1), "conv")
    return F.conv_transpose2d(fine, state["classifier.weight"], stride=2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(64, 96), (104, 40)], ids=str)
def test_a_loaded_file_computes_the_authors_logits(
    variant: str, size: tuple[int, int], write: Callable[..., Path]
) -> None:
    state = official_state(*VARIANTS[variant])
    model = load_model(write(state), weights_format="espnet").double()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        expected = reference({name: tensor.double() for name, tensor in state.items()}, images)
        logits = model(images).logits
    assert logits.shape == expected.shape
    assert expected.std() > 0.01  # else nothing was compared
    assert (logits - expected).abs().max() < 1e-9


def test_every_tensor_of_a_file_counts(write: Callable[..., Path]) -> None:
    """Else the comparison of logits could not see it in the wrong place."""
    state = {name: tensor.double() for name, tensor in official_state(12, p=1, q=1).items()}
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = reference(state, images)
    for name, tensor in state.items():
        assert not torch.equal(reference({**state, name: tensor * 1.5 + 0.1}, images), expected), name


# --- names


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_map_one_to_one_with_equal_shapes(variant: str) -> None:
    classes, p, q, skip = VARIANTS[variant]
    arguments: dict[str, Any] = {} if skip is None else {"skip_channels": skip}
    with torch.device("meta"):
        model = fastseg.create_model(
            "espnet_c" if skip is None else "espnet", num_classes=classes, p=p, q=q, **arguments
        )
    own = {name: tuple(x.shape) for name, x in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    mapped = [(authors_name(name, decoder=skip is not None), shape) for name, shape in own.items()]
    assert len(dict(mapped)) == len(mapped)
    assert dict(mapped) == official_shapes(classes, p, q, skip)


@pytest.mark.skipif(not OFFICIAL_NAMES.is_file(), reason=f"the list of the authors' names is not at {OFFICIAL_NAMES}")
def test_the_names_above_are_those_of_the_authors_files(write: Callable[..., Path]) -> None:
    files = json.loads(OFFICIAL_NAMES.read_text())
    expected = {
        "decoder/espnet_p_2_q_8.pth": (20, 2, 8, 16),
        "decoder/espnet_p_2_q_3.pth": (20, 2, 3, 16),
        "decoder/espnet_p_2_q_8_camvid.pth": (12, 2, 8, 19),
        "encoder/espnet_p_2_q_8.pth": (20, 2, 8, None),
    }
    assert files.keys() == expected.keys()
    for file, table in files.items():
        classes, p, q, skip = expected[file]
        assert {name: tuple(shape) for name, shape in table.items()} == official_shapes(classes, p, q, skip)
        info = read_espnet(write({name: torch.zeros(shape) for name, shape in table.items()})).info
        assert info.dataset.num_classes == classes
        extra = {} if skip is None else {"skip_channels": skip}
        assert info.model_args == {"in_channels": 3, "p": p, "q": q, **extra}


# --- what a file is


def test_twelve_classes_are_camvid_and_void(write: Callable[..., Path]) -> None:
    info = read_espnet(path := write(official_state(12, q=8, skip=19))).info
    assert (info.model, info.name, info.file, len(info.sha256)) == ("espnet", "camvid", str(path), 64)
    assert info.model_args == {"in_channels": 3, "p": 2, "q": 8, "skip_channels": 19}
    assert info.dataset.name == "camvid"
    assert info.dataset.class_names == (*CAMVID.class_names, "void")
    assert info.dataset.palette == (*CAMVID.palette, (0, 0, 0))
    assert info.dataset.official_ids == tuple(range(12))
    assert info.preprocessing.input_scale == 1.0
    assert "MIT" in info.licence
    assert "CamVid" in info.licence


def test_twenty_classes_are_cityscapes_and_background(write: Callable[..., Path]) -> None:
    info = read_espnet(write(official_state(20))).info
    names = info.dataset.class_names
    assert info.dataset.name == "cityscapes"
    assert (len(names), names[0], names[13], names[18], names[19]) == (20, "road", "car", "bicycle", "background")
    assert info.dataset.official_ids == (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33, 0)
    assert len(info.dataset.palette) == len(set(info.dataset.palette)) == 20
    assert info.preprocessing.input_scale == 0.5
    assert "non-commercial" in info.licence


@pytest.mark.parametrize(
    ("form", "score"),
    [
        (
            (12, 2, 8, 19),
            "authors' README: 55.64 mIoU, CamVid test, protocol camvid_authors, for their file of this form",
        ),
        ((12, 2, 8, 16), ""),
        ((12, 2, 3, 19), ""),
        ((20, 2, 8, 16), "authors' README: 60.336 mIoU, Cityscapes test, for their file of this form"),
        ((20, 2, 8, 19), ""),
        ((20, 1, 8, 16), ""),
        ((20, 2, 8, None), ""),
    ],
)
def test_a_published_score_belongs_to_the_form_of_the_authors_file(
    write: Callable[..., Path], form: tuple[int, int, int, int | None], score: str
) -> None:
    assert read_espnet(write(official_state(*form))).info.metric_published == score


def test_an_encoders_file_is_espnet_c(write: Callable[..., Path]) -> None:
    model = load_model(write(official_state(20, q=5, skip=None)), weights_format="espnet")
    assert model.weights_info is not None
    assert model.weights_info.model == "espnet_c"
    assert model.weights_info.model_args == {"in_channels": 3, "p": 2, "q": 5}
    assert model.align_corners  # as PyTorch enlarged when the authors wrote their test
    assert not model.training


@pytest.mark.parametrize(
    ("classes", "mean", "std"),
    [
        (12, (110.3313, 108.4091, 105.0335), (72.1252, 72.6885, 69.9026)),
        (20, (72.3923111, 82.90893555, 73.15840149), (45.3192215, 46.15289307, 44.91483307)),
    ],
)
def test_preprocessing_is_the_authors(
    classes: int, mean: tuple[float, ...], std: tuple[float, ...], write: Callable[..., Path]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 8, 3), dtype=np.uint8)
    bgr = (image[0, :, :, ::-1].astype(np.float64) - mean) / std
    if classes == 20:  # half the size: cv2.resize, bilinear, is there the mean of 2x2 pixels
        bgr = bgr.reshape(3, 2, 4, 2, 3).mean(axis=(1, 3))
    expected = torch.from_numpy((bgr / 255).transpose(2, 0, 1))[None].float()
    preprocessing = read_espnet(write(official_state(classes, q=1))).info.preprocessing
    x = normalize_images(torch.from_numpy(image), preprocessing)
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-7)


def test_wrappers_counters_and_training_checkpoints_make_no_difference(write: Callable[..., Path]) -> None:
    state = official_state(12, q=1)
    plain = load_model(write(state), weights_format="espnet").state_dict()
    assert {int(x) for name, x in plain.items() if name.endswith("num_batches_tracked")} == {0}
    norms = [name.removesuffix("running_var") for name in state if name.endswith("running_var")]
    counted = {**state, **{f"{name}num_batches_tracked": torch.tensor(7) for name in norms}}
    for content in (
        {f"module.{name}": tensor for name, tensor in state.items()},
        {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
        {"epoch": 3, "state_dict": state},
        counted,
    ):
        loaded = load_model(write(content), weights_format="espnet").state_dict()
        assert loaded.keys() == plain.keys()
        assert all(
            int(x) == 7 * (content is counted) if name.endswith("tracked") else torch.equal(x, plain[name])
            for name, x in loaded.items()
        )


class AsOldTorch:
    """A tensor as PyTorch 0.3 pickled it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        tensor = self.tensor
        arguments = (tensor.storage(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        return torch._utils._rebuild_tensor, arguments


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_files_of_the_pytorch_of_2018_are_read(write: Callable[..., Path]) -> None:
    state = official_state(12, q=1)
    old = {name: AsOldTorch(tensor) for name, tensor in state.items()}
    path = write(old, _use_new_zipfile_serialization=False)
    assert not path.read_bytes().startswith(b"PK")
    expected = load_model(write(state, "new.pth"), weights_format="espnet").state_dict()
    loaded = load_model(path, weights_format="espnet").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


# --- other data than the authors'


def test_other_class_counts_need_preprocessing_and_say_how(write: Callable[..., Path]) -> None:
    path = write(official_state(7, q=1))
    with pytest.raises(CheckpointError, match=r"has 7 classes, not the 12 .* or the 20 .* preprocessing=Preprocessing"):
        load_model(path, weights_format="espnet")
    farm = DatasetInfo("farm", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(CheckpointError, match="has 7 classes and farm 2"):
        read_espnet(path, dataset=farm, preprocessing=Preprocessing())
    with pytest.raises(CheckpointError, match="mean and standard deviation of yard; give preprocessing"):
        read_espnet(path, dataset=replace(farm, name="yard", class_names=tuple("abcdefg")))


def test_a_file_with_preprocessing_becomes_a_weights_file_like_any_other(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write(official_state(7, q=1))
    own = Preprocessing(mean=(0.1, 0.2, 0.3), channel_order="bgr")
    converted = save_weights(tmp_path / "own.safetensors", *read_espnet(path, preprocessing=own))
    predictor = Predictor(converted, device="cpu")
    assert predictor.preprocessing == own
    assert predictor.dataset.class_names == tuple(f"class_{index}" for index in range(7))
    assert len(set(predictor.dataset.palette)) == 7  # colours for the overlay
    prediction = predictor(np.zeros((9, 13, 3), np.uint8))
    assert prediction.labels.shape == (9, 13)


def test_the_users_description_replaces_the_authors(write: Callable[..., Path]) -> None:
    names = tuple(f"crop {index}" for index in range(12))
    farm = DatasetInfo("farm", names, tuple((index, 0, 0) for index in range(12)))
    info = read_espnet(write(official_state(12, q=8)), dataset=farm, preprocessing=Preprocessing()).info
    assert (info.name, info.dataset, info.preprocessing) == ("farm", farm, Preprocessing())
    assert info.metric_published == info.licence == ""


# --- what does not fit


def drop(state: State, name: str) -> State:
    return {key: tensor for key, tensor in state.items() if key != name}


STATE = official_state(12, q=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (drop(STATE, "br.weight"), r"does not fit espnet with .*q=1.*: tensors 1 missing \(br\.weight\)"),
        ({**STATE, "extra": torch.ones(1)}, r"1 unexpected \(extra\)"),
        (
            {**STATE, "encoder.level3.2.c1.conv.weight": torch.ones(1)},
            r"q=2.*: tensors 11 missing \(encoder\.level3\.1\.c1.*1 unexpected",
        ),
        (
            {**STATE, "level3_C.conv.weight": torch.ones(12, 130, 1, 1)},
            r"\(12, 130, 1, 1\) instead of \(12, 131, 1, 1\)",
        ),
        ({**STATE, "conv.conv.weight": torch.ones(12, 29, 3, 3)}, r"skip_channels is 17; allowed"),
        (
            {**STATE, "encoder.level1.conv.weight": torch.ones(16, 4, 3, 3)},
            r"\(16, 4, 3, 3\) instead of \(16, 3, 3, 3\)",
        ),
        ({n: x for n, x in STATE.items() if ".level2." not in n}, "p is 0"),
        ({**STATE, "encoder.classifier.conv.weight": torch.ones(0, 256, 1, 1)}, "does not fit espnet|not a checkpoint"),
        ({**STATE, "module.br.weight": torch.ones(12)}, r"differ in a wrapper's prefix"),
        ({"layer1.0.conv1.weight": torch.ones(2)}, r"is not a checkpoint of ESPNet's authors: .*layer1\.0\.conv1"),
        ({"encoder.classifier.conv.weight": torch.ones(12)}, r"not a checkpoint of ESPNet's authors"),
        ({}, "not a checkpoint of ESPNet's authors: .* it is empty"),
        ([STATE], "holds no table of tensors"),
        ({"state_dict": [1, 2]}, "holds no table of tensors"),
        ({"epoch": 3, "weights": STATE}, "holds no table of tensors"),
        (torch.ones(3), "holds no table of tensors"),
    ],
    ids=range(16),
)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(
    content: object, message: str, write: Callable[..., Path]
) -> None:
    path = write(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_espnet(path)
    assert str(path) in str(caught.value)


def test_missing_damaged_and_hostile_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.pth does not exist"):
        load_model(tmp_path / "none.pth", weights_format="espnet")
    with pytest.raises(MissingFileError, match="is a folder"):
        load_model(tmp_path, weights_format="espnet")
    (tmp_path / "damaged.pth").write_bytes(b"\x80\x02.")
    with pytest.raises(CheckpointError, match=r"damaged\.pth cannot be read"):
        load_model(tmp_path / "damaged.pth", weights_format="espnet")

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "canary"),)

    torch.save({**STATE, "bomb": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        load_model(tmp_path / "bomb.pth", weights_format="espnet")
    assert not (tmp_path / "canary").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "canary").exists()  # the bomb is live


# --- through the library's doors


def same(one: SegModel, other: SegModel) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def network_of(predictor: fastseg.Predictor) -> SegModel:
    assert isinstance(predictor.model, SegModel)
    return predictor.model


def test_every_door_leads_to_the_same_network(camvid_file: Path) -> None:
    models = [
        fastseg.create_model("espnet", weights=camvid_file, weights_format="espnet"),
        fastseg.create_model("espnet", weights=str(camvid_file), weights_format="espnet", p=2, q=2, num_classes=12),
        fastseg.load_model(camvid_file, weights_format="espnet"),
        fastseg.load_model("espnet", weights=camvid_file, weights_format="espnet"),
        network_of(fastseg.Predictor(camvid_file, weights_format="espnet", device="cpu")),
        network_of(fastseg.Predictor("espnet", weights=camvid_file, weights_format="espnet", device="cpu")),
    ]
    assert all(same(model, models[0]) and not model.training for model in models)
    assert all(model.weights_info == models[0].weights_info is not None for model in models)


def test_weights_alone_are_a_file_of_fastseg(camvid_file: Path, tmp_path: Path) -> None:
    own = save_weights(tmp_path / "own.safetensors", *read_espnet(camvid_file))
    model = fastseg.create_model("espnet", weights=own)
    assert same(model, fastseg.load_model(camvid_file, weights_format="espnet"))
    assert same(model, fastseg.create_model("espnet", weights=own, weights_format="fastseg"))
    assert model.weights_info is not None
    assert "MIT" in model.weights_info.licence
    for door in (lambda: fastseg.create_model("espnet", weights=camvid_file), lambda: fastseg.load_model(camvid_file)):
        with pytest.raises(CheckpointError, match=r"authors\.pth is not a fastseg .* weights_format='espnet'"):
            door()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 3}, "holds weights with p=2, not 3; leave p out"),
        ({"q": 8}, "holds weights with q=2, not 8"),
        ({"num_classes": 19}, "holds weights with num_classes=12, not 19"),
        ({"skip_channels": 16}, "holds weights with skip_channels=19, not 16"),
        ({"in_channels": 4}, "holds weights with in_channels=3, not 4"),
    ],
    ids=str,
)
def test_arguments_that_contradict_the_file_are_both_named(
    arguments: dict[str, Any], message: str, camvid_file: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        fastseg.create_model("espnet", weights=camvid_file, weights_format="espnet", **arguments)


def test_questions_that_contradict_themselves_are_answered(camvid_file: Path, write: Callable[..., Path]) -> None:
    encoder = write(official_state(20, q=1, skip=None), "encoder.pth")
    cases: list[tuple[Callable[[], object], type[FastsegError], str]] = [
        (lambda: fastseg.create_model("espnet", weights_format="espnet"), ConfigError, "name that file with weights"),
        (lambda: fastseg.load_model("espnet", weights_format="espnet"), ConfigError, "name that file with weights"),
        (
            lambda: fastseg.create_model("espnet", weights=camvid_file, pretrained=True),
            ConfigError,
            "pretrained=True and weights=.* keep one",
        ),
        (
            lambda: fastseg.create_model("fast_scnn", weights="camvid"),
            ConfigError,
            "for the published weights use pretrained='camvid'",
        ),
        (
            lambda: fastseg.load_model(camvid_file, weights_format="espnets"),
            UnknownNameError,
            "unknown weights format 'espnets'; did you mean 'espnet'",
        ),
        (
            lambda: fastseg.create_model("espnet", weights=encoder, weights_format="espnet"),
            CheckpointError,
            "holds weights of 'espnet_c', not of 'espnet'",
        ),
        (
            lambda: fastseg.load_model("fast_scnn", weights=camvid_file, weights_format="espnet"),
            CheckpointError,
            "holds weights of 'espnet', not of 'fast_scnn'",
        ),
        (
            lambda: fastseg.create_model("espnet", weights=camvid_file, weights_format="espnet", qq=2),
            UnknownNameError,
            "has no argument 'qq'",
        ),
        (
            lambda: fastseg.create_model("espnett", weights=camvid_file, weights_format="espnet"),
            UnknownNameError,
            "did you mean 'espnet'",
        ),
    ]
    for ask, error, message in cases:
        with pytest.raises(error, match=message):
            ask()


@pytest.mark.parametrize("model", [[], ["--model", "espnet"]], ids=["format alone", "model named"])
def test_predict_labels_an_image_with_the_authors_file(camvid_file: Path, tmp_path: Path, model: list[str]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "street.png")
    out = tmp_path / "out"
    arguments = ["predict", str(tmp_path / "street.png"), "--weights", str(camvid_file), "--weights-format", "espnet"]
    assert main([*arguments, *model, "--out", str(out), "--save", "ids", "overlay", "--device", "cpu"]) == 0
    labels = np.asarray(Image.open(out / "street_ids.png"))
    state = torch.load(camvid_file, weights_only=True)
    bgr = (image[:, :, ::-1] - np.array((110.3313, 108.4091, 105.0335))) / (72.1252, 72.6885, 69.9026) / 255
    expected = reference(state, torch.from_numpy(bgr.transpose(2, 0, 1)).float()[None])[0].argmax(0)
    assert len(expected.unique()) > 1
    assert (labels == expected.numpy()).mean() > 0.999  # float32 may settle a tie either way
    assert (out / "street_overlay.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights-format", "espnet"], "--weights-format espnet describes a file; name that file with --weights"),
        (["--weights", "gone.pth", "--weights-format", "espnet"], "gone.pth does not exist"),
        (["--weights", "gone.pth", "--weights-format", "espnett"], "did you mean 'espnet'"),
        (["--weights", "gone.pth"], "gone.pth does not exist"),
    ],
    ids=str,
)
def test_the_command_answers_mistakes_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["predict", "street.png", "--out", str(tmp_path), "--device", "cpu", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
