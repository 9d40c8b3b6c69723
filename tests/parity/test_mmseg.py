"""Our networks compute what mmsegmentation's compute, tensor for tensor, where both are given the same weights.

mmsegmentation (1.2) builds the reference from its own configurations. Weights, norms and running statistics are random,
since defaults would hide a swapped or missing norm. To run these tests, install mmsegmentation, mmcv (mmcv-lite is
enough), mmengine and what they import, in any way, then `pytest -m slow tests/parity`.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastseg.models import FastFCN, create_model, resnet50
from fastseg.types import SegModel

pytestmark = pytest.mark.slow

Rules = tuple[tuple[str, str], ...]
TOLERANCE = 1e-9  # float64; logits are of the order of one


def fcn_rules(ours: str, theirs: str) -> Rules:
    return ((rf"{ours}\.conv\.", f"{theirs}.convs.0."), (rf"{ours}\.classifier\.", f"{theirs}.conv_seg."))


def deep_resnet_rules(theirs: str) -> Rules:
    return (
        (r"backbone\.conv1\.", f"{theirs}.stem."),
        (r"backbone\.bn1\.", f"{theirs}.stem.7."),
        (r"backbone\.(layer\d)\.", rf"{theirs}.\1."),
    )


PSPNET: Rules = (
    *deep_resnet_rules("backbone"),
    (r"head\.pyramid\.branches\.(\d)\.", r"decode_head.psp_modules.\1.1."),
    (r"head\.pyramid\.fuse\.", "decode_head.bottleneck."),
    (r"head\.classifier\.", "decode_head.conv_seg."),
    *fcn_rules(r"aux_heads\.layer3", "auxiliary_head"),
)
ICNET: Rules = (
    *deep_resnet_rules("backbone.backbone"),
    (r"fine\.conv1\.", "backbone.conv_sub1.0."),
    (r"fine\.conv2\.", "backbone.conv_sub1.1."),
    (r"fine\.conv3\.", "backbone.conv_sub1.2."),
    (r"medium\.", "backbone.conv_sub2."),
    (r"context\.0\.branches\.(\d)\.", r"backbone.psp_modules.\1.1."),
    (r"context\.0\.fuse\.", "backbone.psp_bottleneck."),
    (r"context\.1\.", "backbone.conv_sub4."),
    (r"fusion(\d\d)\.(low|high)\.", r"neck.cff_\1.conv_\2."),
    *fcn_rules("head", "decode_head"),
    *fcn_rules(r"aux_heads\.sub4", "auxiliary_head.0"),
    *fcn_rules(r"aux_heads\.sub24", "auxiliary_head.1"),
)
BISENET: Rules = (
    (r"backbone\.", "backbone.context_path.backbone."),
    (r"spatial_path\.conv(\d)\.", r"backbone.spatial_path.layer\1."),
    (r"context_path\.global_context\.", "backbone.context_path.gap_conv.1."),
    (r"context_path\.attention(\d\d)\.conv\.", r"backbone.context_path.arm\1.conv_layer."),
    (r"context_path\.attention(\d\d)\.gate\.0\.", r"backbone.context_path.arm\1.atten_conv_layer.1."),
    (r"context_path\.refine(\d\d)\.", r"backbone.context_path.conv_head\1."),
    (r"fusion\.conv\.", "backbone.ffm.conv1."),
    (r"fusion\.gate\.0\.", "backbone.ffm.conv_atten.0."),
    *fcn_rules("head", "decode_head"),
    *fcn_rules(r"aux_heads\.context8", "auxiliary_head.0"),
    *fcn_rules(r"aux_heads\.context16", "auxiliary_head.1"),
)
FAST_SCNN: Rules = (
    (r"learning_to_downsample\.conv\.", "backbone.learning_to_downsample.conv."),
    (r"learning_to_downsample\.(dsconv\d)\.(\w+)\.", r"backbone.learning_to_downsample.\1.\2_conv."),
    (r"global_feature_extractor\.(bottleneck\d\.\d)\.expand\.", r"backbone.global_feature_extractor.\1.conv.0."),
    (r"global_feature_extractor\.(bottleneck\d\.\d)\.depthwise\.", r"backbone.global_feature_extractor.\1.conv.1."),
    (r"global_feature_extractor\.(bottleneck\d\.\d)\.project\.", r"backbone.global_feature_extractor.\1.conv.2."),
    (r"global_feature_extractor\.pyramid\.branches\.(\d)\.", r"backbone.global_feature_extractor.ppm.\1.1."),
    (r"global_feature_extractor\.pyramid\.fuse\.", "backbone.global_feature_extractor.out."),
    (r"feature_fusion\.depthwise\.", "backbone.feature_fusion.dwconv."),
    (r"feature_fusion\.context\.", "backbone.feature_fusion.conv_lower_res."),
    (r"feature_fusion\.detail\.", "backbone.feature_fusion.conv_higher_res."),
    (r"classifier\.dsconv1\.(\w+)\.", r"decode_head.convs.0.\1_conv."),
    (r"classifier\.dsconv2\.(\w+)\.", r"decode_head.convs.1.\1_conv."),
    (r"classifier\.conv\.", "decode_head.conv_seg."),
    *fcn_rules(r"aux_heads\.context", "auxiliary_head.0"),
    *fcn_rules(r"aux_heads\.detail", "auxiliary_head.1"),
)
FASTFCN: Rules = (
    *deep_resnet_rules("backbone"),
    (r"jpu\.reductions\.(\d)\.", r"neck.conv_layers.\1.0."),
    (r"jpu\.dilated\.(\d)\.(\w+)\.", r"neck.dilation_layers.\1.0.\2_conv."),
    (r"head\.classifier\.", "decode_head.conv_seg."),
    *fcn_rules(r"aux_heads\.layer3", "auxiliary_head"),
)
FASTFCN_PSP: Rules = (*FASTFCN, *PSPNET)
FASTFCN_ENCNET: Rules = (
    *FASTFCN,
    (r"head\.conv\.", "decode_head.bottleneck."),
    (r"head\.context\.conv\.", "decode_head.enc_module.encoding_project."),
    (r"head\.context\.encoding\.", "decode_head.enc_module.encoding.0."),
    (r"head\.context\.norm\.", "decode_head.enc_module.encoding.1."),
    (r"head\.context\.gate\.", "decode_head.enc_module.fc.0."),
    (r"aux_heads\.se\.", "decode_head.se_layer."),
)
FASTFCN_DEEPLABV3: Rules = (
    *FASTFCN,
    (r"head\.pyramid\.image\.", "decode_head.image_pool.1."),
    (r"head\.pyramid\.pointwise\.", "decode_head.aspp_modules.0."),
    *((rf"head\.pyramid\.dilated\.{place}\.", f"decode_head.aspp_modules.{place + 1}.") for place in range(3)),
    (r"head\.conv\.", "decode_head.bottleneck."),
)


@dataclass(frozen=True)
class Case:
    """`arguments` make our network mmsegmentation's; `rules` turn the start of our names into theirs.

    Each of the `other` values of arguments must move the logits. `rolled` names a convolution of ours whose input is
    concatenated in another order: theirs, rolled by so many channels. `linear` names our 1x1 convolutions of a single
    pixel that are linear layers there.
    """

    model: str
    config: str
    rules: Rules
    arguments: dict[str, Any]
    other: dict[str, Any]
    sizes: tuple[tuple[int, int], ...]
    rolled: tuple[str, int] | None = None
    linear: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.model}-{self.config.split('/')[0]}"


SIZES = ((128, 256), (129, 193), (96, 160))
ICNET_OTHER = {"mmseg_sizes": False, "contract_dilation": False, "align_corners": True}
PSPNET_ARGUMENTS = {"contract_dilation": True, "align_corners": False}
PSPNET_OTHER = {"contract_dilation": False, "align_corners": True}
CASES = (
    Case(
        "fast_scnn",
        "fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py",
        FAST_SCNN,
        {"pyramid_fuse_kernel": 3, "fusion_dilation": 1, "fusion_bias": False, "classifier_activation": False},
        other={"fusion_dilation": 4, "classifier_activation": True, "stem_activation": True, "align_corners": True},
        sizes=(*SIZES, (321, 480)),
    ),
    Case(
        "bisenet_r18",
        "bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py",
        BISENET,
        {
            "head_channels": 256,
            "aux_channels": 64,
            "fusion_gate": "conv_bn_relu",
            "context_upsampling": "nearest",
            "align_corners": False,
        },
        other={"fusion_gate": "conv_bn", "context_upsampling": "bilinear"},
        sizes=(*SIZES, (321, 480)),
    ),
    Case(
        "icnet_r18",
        "icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832.py",
        ICNET,
        {"mmseg_sizes": True},
        other=ICNET_OTHER,
        rolled=("context.0.fuse.conv.weight", 512),
        sizes=(*SIZES, (321, 480)),
    ),
    Case(
        "icnet_r50",
        "icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832.py",
        ICNET,
        {"mmseg_sizes": True},
        other=ICNET_OTHER,
        rolled=("context.0.fuse.conv.weight", 2048),
        sizes=SIZES,
    ),
    Case(
        "pspnet_r18",
        "pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py",
        PSPNET,
        PSPNET_ARGUMENTS,
        other=PSPNET_OTHER,
        sizes=SIZES,
    ),
    Case(
        "pspnet_r50",
        "pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
        PSPNET,
        {**PSPNET_ARGUMENTS, "stem_channels": 64},
        other=PSPNET_OTHER,
        sizes=SIZES,
    ),
    *(
        Case(
            model,
            config,
            rules,
            {"mmseg": True, "jpu": "jpu" if config.startswith("fastfcn/") else None},
            # two of the dilated networks resize nothing, or a map of one pixel
            other={} if config.startswith(("encnet/", "deeplabv3/")) else {"align_corners": True},
            rolled=("head.conv.conv.weight", -512) if rules is FASTFCN_DEEPLABV3 else None,
            linear=("head.context.gate.weight", "aux_heads.se.weight") if rules is FASTFCN_ENCNET else (),
            sizes=SIZES,
        )
        for model, rules, configs in (
            (
                "fastfcn_r50_psp",
                FASTFCN_PSP,
                (
                    "fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024.py",
                    "pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
                ),
            ),
            (
                "fastfcn_r50_encnet",
                FASTFCN_ENCNET,
                (
                    "fastfcn/fastfcn_r50-d32_jpu_enc_4xb2-80k_cityscapes-512x1024.py",
                    "encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
                ),
            ),
            (
                "fastfcn_r50_deeplabv3",
                FASTFCN_DEEPLABV3,
                (
                    "fastfcn/fastfcn_r50-d32_jpu_aspp_4xb2-80k_cityscapes-512x1024.py",
                    "deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py",
                ),
            ),
        )
        for config in configs
    ),
)


class StandIn(ModuleType):
    """What stands in for mmcv's compiled operators, which none of these networks calls."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@pytest.fixture(scope="session")
def mmseg() -> ModuleType:
    try:
        importlib.import_module("mmcv")
        try:
            importlib.import_module("mmcv._ext")
        except ImportError:  # mmcv-lite
            sys.modules["mmcv._ext"] = StandIn("mmcv._ext")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("mmseg.models")
        return importlib.import_module("mmseg")
    except Exception as error:  # an mmcv built for another torch raises more than ImportError
        pytest.skip(f"mmsegmentation cannot be imported ({type(error).__name__}: {error})")


def config_folder(mmseg: ModuleType) -> Path:
    package = Path(str(mmseg.__file__)).parent
    for folder in (package / ".mim/configs", package.parent / "configs"):  # installed; a checkout
        if (folder / "_base_").is_dir():
            return folder
    pytest.skip(f"mmsegmentation's configs are neither in {package}/.mim nor beside {package}")


def without_synchronisation(node: Any) -> None:
    """Plain batch norm in place of the synchronised one, which needs a process group."""
    if isinstance(node, dict) and node.get("type") == "SyncBN":
        node["type"] = "BN"
    if isinstance(node, dict | list | tuple):
        for part in node.values() if isinstance(node, dict) else node:
            without_synchronisation(part)


def build_reference(mmseg: ModuleType, config: str) -> nn.Module:
    read = importlib.import_module("mmengine.config").Config.fromfile
    model = read(config_folder(mmseg) / config).model
    for key in ("pretrained", "data_preprocessor"):
        model.pop(key, None)
    without_synchronisation(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("mmseg.registry").MODELS.build(model)


def randomise(network: nn.Module) -> None:
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.2)
        if hasattr(module, "codewords"):  # EncNet's: the default ones lie so close together that all count alike
            words, scale = module.parameters()
            nn.init.normal_(words, std=0.5)
            nn.init.uniform_(scale, -0.02, 0)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.4, 1.0)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)


def their_name(ours: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        if match := re.match(pattern, ours):
            return match.expand(replacement) + ours[match.end() :]
    raise KeyError(f"no rule for {ours}")


def copy_weights(ours: SegModel, theirs: nn.Module, case: Case) -> None:
    """Load their tensors into our network; the names must pair off one to one, with equal shapes."""
    own, other = ours.state_dict(), theirs.state_dict()
    names = {name: their_name(name, case.rules) for name in own}
    assert sorted(names.values()) == sorted(other)
    tensors = {name: other[names[name]] for name in own}
    for name in case.linear:
        tensors[name] = tensors[name][..., None, None]
    assert {name: own[name].shape for name in own} == {name: tensors[name].shape for name in own}
    if case.rolled is not None:
        name, channels = case.rolled
        tensors[name] = tensors[name].roll(channels, 1)
    ours.load_state_dict(tensors)


def our_network(theirs: nn.Module, case: Case, **changed: Any) -> SegModel:
    model = create_model(case.model, aux=True, **{**case.arguments, **changed}).double()
    copy_weights(model, theirs, case)
    model.eval()
    model.training = True  # of the whole only: its norms and dropouts stay in eval mode, its auxiliary heads run
    return model


def their_logits(theirs: Any, images: Tensor) -> list[Tensor]:
    """The classifier's and the auxiliary classifiers' logits, each at its own stride; then EncNet's of classes."""
    features = theirs.extract_feat(images)
    auxiliary = theirs.auxiliary_head
    heads = auxiliary if isinstance(auxiliary, nn.ModuleList) else [auxiliary]
    logits = theirs.decode_head(features)
    present = []
    if isinstance(logits, tuple):
        logits, classes = logits
        present.append(classes[..., None, None])
    return [logits, *(head(features) for head in heads), *present]


def our_logits(ours: SegModel, images: Tensor, case: Case) -> list[Tensor]:
    """In the reference's order, which the rules for the auxiliary heads tell."""
    logits, aux = ours(images)
    order = sorted(aux, key=lambda name: their_name(f"aux_heads.{name}.classifier.", case.rules))
    return [logits, *(aux[name] for name in order)]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def theirs(mmseg: ModuleType, case: Case) -> nn.Module:
    reference = build_reference(mmseg, case.config).double()
    randomise(reference)
    return reference.eval()


def compare(ours: SegModel, theirs: nn.Module, case: Case, size: tuple[int, int]) -> float:
    """The largest difference between logits, the auxiliary ones included; infinite where shapes differ."""
    torch.manual_seed(1)
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected, logits = their_logits(theirs, images), our_logits(ours, images, case)
    spreads = [x.std(dim=(2, 3)).mean() if x[0, 0].numel() > 1 else x.std() for x in expected]
    assert all(0.01 < spread < 100 for spread in spreads), "neither constant nor out of scale"
    if [x.shape for x in logits] != [x.shape for x in expected]:
        return float("inf")
    return max(float((a - b).abs().max()) for a, b in zip(logits, expected, strict=True))


def test_logits_are_mmsegmentations(theirs: nn.Module, case: Case) -> None:
    ours = our_network(theirs, case)
    differences = {size: compare(ours, theirs, case, size) for size in case.sizes}
    print(case, {f"{height}x{width}": f"{difference:.1e}" for (height, width), difference in differences.items()})
    assert max(differences.values()) < TOLERANCE, differences


def test_every_argument_that_makes_the_network_mmsegmentations_is_needed(theirs: nn.Module, case: Case) -> None:
    networks = {key: our_network(theirs, case, **{key: value}) for key, value in case.other.items()}
    moved = {key: compare(network, theirs, case, SIZES[-1]) for key, network in networks.items()}
    assert all(difference > 1e-3 for difference in moved.values()), moved


@pytest.mark.parametrize("case", [case for case in CASES if case.rules is ICNET], indirect=True, ids=str)
def test_icnet_without_mmseg_sizes_is_the_same_where_no_side_is_rounded(theirs: nn.Module, case: Case) -> None:
    ours = our_network(theirs, case, mmseg_sizes=False)
    # sides of 32 k - 6 and 32 k - 14: halved evenly, and an odd number of pixels enters the max pool
    assert max(compare(ours, theirs, case, size) for size in ((90, 122), (114, 178))) < TOLERANCE


WITH_JPU = [case for case in CASES if case.config.startswith("fastfcn/")]


@pytest.mark.parametrize("case", WITH_JPU, indirect=True, ids=str)
def test_fastfcn_needs_stages_that_are_strided_and_dilated(theirs: nn.Module, case: Case) -> None:
    ours = our_network(theirs, case)
    assert isinstance(ours, FastFCN)
    plain = resnet50(stem="deep", stem_channels=64).double().eval()
    plain.load_state_dict(ours.backbone.state_dict())
    ours.backbone = plain
    assert compare(ours, theirs, case, SIZES[-1]) > 1e-3


@pytest.mark.parametrize("case", [case for case in WITH_JPU if case.rules is not FASTFCN_PSP], indirect=True, ids=str)
def test_fastfcn_needs_mmsegmentations_form_of_the_head(theirs: nn.Module, case: Case) -> None:
    with pytest.raises((AssertionError, KeyError)):  # shapes that differ, a convolution that is not there
        our_network(theirs, case, mmseg=False, stem_channels=64)
