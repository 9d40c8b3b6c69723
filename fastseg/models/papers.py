"""What papers and public implementations say of the networks. Written by hand; what we count stands in `facts.py`.

A score is repeated as published, with the place where it can be read; where no such place is known there is no score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """A published mIoU in percent on the split 'val' or 'test' of Cityscapes. `source` begins with a short name."""

    miou: float
    split: str
    source: str


@dataclass(frozen=True)
class Reference:
    """A public implementation, or the paper itself, whose size is known at 19 classes.

    `parameters` without auxiliary heads, `parameters_training` with them; `gmacs` maps 'HEIGHTxWIDTH' of the image to
    billions of multiply-adds in eval. `licence` is that of the reference's code.
    """

    name: str
    licence: str
    parameters: int | None = None
    parameters_training: int | None = None
    gmacs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Speed:
    """Published frames a second for single images of 'HEIGHTxWIDTH'; `gpu` is empty where the source names none."""

    fps: float
    size: str
    gpu: str
    source: str


@dataclass(frozen=True)
class Paper:
    """Where a network comes from.

    The first score is the one to show where there is room for one, with the `caveat`; the `note` explains.
    """

    network: str
    title: str = ""
    arxiv: str = ""
    scores: tuple[Score, ...] = ()
    reference: Reference | None = None
    note: str = ""
    caveat: str = ""
    speed: Speed | None = None

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""


_BISENET = "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation"
_DFANET = "DFANet: Deep Feature Aggregation for Real-Time Semantic Segmentation"
_DFSEG = "Partial Order Pruning: for Best Speed/Accuracy Trade-off in Neural Architecture Search"
_ESPNET = "ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation"
_FAST_SCNN = "Fast-SCNN: Fast Semantic Segmentation Network"
_FASTFCN = "FastFCN: Rethinking Dilated Convolution in the Backbone for Semantic Segmentation"
_GSCNN = "Gated-SCNN: Gated Shape CNNs for Semantic Segmentation"
_ICNET = "ICNet for Real-Time Semantic Segmentation on High-Resolution Images"
_MSFNET = "Real-Time Semantic Segmentation via Multiply Spatial Fusion Network"
_PSPNET = "Pyramid Scene Parsing Network"
_SWIFTNET = (
    "In Defense of Pre-trained ImageNet Architectures for Real-time Semantic Segmentation of Road-driving Images"
)

_DFSEG_AUTHORS = "authors' README, github.com/lixincn2015/Partial-Order-Pruning"
_PADDLESEG = "paper, as in PaddleSeg's configs/pp_liteseg/README.md"
_ZH320 = "paper, as in the README of github.com/zh320/realtime-semantic-segmentation-pytorch"
_SEMSEG = "authors' code, README of github.com/hszhao/semseg, single scale"
_DFANET_NOTE = (
    "Not reproduced by others: 65.28 on val (README of github.com/zh320/realtime-semantic-segmentation-pytorch), 59.1 "
    "(LikeLy-Journey/SegmenTron, issue 37), 53.8 (Tramac/awesome-semantic-segmentation-pytorch, issue 33). The authors "
    "published no code."
)
_DEEP_STEM_NOTE = "The reference has a deep stem; with stem='deep' parameters and GMACs are the reference's."
_MMSEG_SIZES = "With mmseg_sizes=True its maps have mmsegmentation's sizes, and its GMACs are the same."
_BISENET_NOTE = "The paper's 49.0 M (ResNet-18) and 5.8 M (Xception39) parameters match no public implementation."
_FASTFCN_TABLES = "paper, tables 1 and 2; 59 classes"
_FASTFCN_NOTE = "The authors have no figure for Cityscapes; mmsegmentation's form is mmseg=True. "


def _mmseg_fastfcn(sixteen: float, eight: float) -> tuple[Score, ...]:
    """mmsegmentation's scores with 16 and with 8 images a step."""
    source = "mmsegmentation, configs/fastfcn/README.md; 512x1024, 80k iterations"
    return Score(sixteen, "val", f"{source} of 16 images"), Score(eight, "val", f"{source} of 8 images")


def _fastfcn(file: str, parameters: int, gmacs: float, *, presence: int = 0) -> Reference:
    """The authors' network, counted with the auxiliary head, which theirs runs in eval, too.

    `presence` counts EncNet's classifier of the classes present, which is an auxiliary head here.
    """
    return Reference(
        f"wuhuikai/FastFCN, encoding/models/{file}",
        licence="MIT",
        parameters=parameters - 2_364_691 - presence,
        parameters_training=parameters,
        gmacs={"512x1024": round(gmacs - 4.84, 1)},
    )


def _prototxt(name: str, parameters: int, gmacs: float) -> Reference:
    return Reference(
        f"lixincn2015/Partial-Order-Pruning, {name} (prototxt)",
        licence="none stated",
        parameters=parameters,
        parameters_training=parameters,
        gmacs={"1024x2048": gmacs},
    )


PAPERS: dict[str, Paper] = {
    "bisenet_r18": Paper(
        "BiSeNet, ResNet-18",
        _BISENET,
        "1808.00897",
        (
            Score(74.7, "test", _PADDLESEG + ", 768x1536"),
            Score(74.8, "val", "paper, as in TorchSeg's README, real-time form"),
        ),
        Reference(
            "ycszen/TorchSeg, cityscapes.bisenet.R18.speed",
            licence="MIT",
            parameters=12_894_163,
            parameters_training=13_194_489,
            gmacs={"512x1024": 25.9, "1024x2048": 103.7},
        ),
        _BISENET_NOTE,
        speed=Speed(65.5, "768x1536", "", _PADDLESEG),
    ),
    "bisenet_x39": Paper(
        "BiSeNet, Xception39",
        _BISENET,
        "1808.00897",
        (Score(68.4, "test", "paper, abstract"), Score(69.0, "val", "paper, as in TorchSeg's README, real-time form")),
        Reference(
            "ycszen/TorchSeg, cityscapes.bisenet.X39.speed",
            licence="MIT",
            parameters=1_541_963,
            parameters_training=1_842_289,
            gmacs={"512x1024": 6.94, "1024x2048": 27.8},
        ),
        _BISENET_NOTE,
        speed=Speed(105.8, "768x1536", "Titan XP", _PADDLESEG + "; GPU: paper, abstract"),
    ),
    "dfanet_a": Paper(
        "DFANet A",
        _DFANET,
        "1904.02216",
        (Score(71.3, "test", "paper, abstract"), Score(71.9, "val", _ZH320)),
        Reference(
            "paper (its FLOPs, which are multiply-adds)",
            licence="no code",
            gmacs={"512x1024": 1.7, "1024x1024": 3.4},
        ),
        _DFANET_NOTE,
        "not reproduced",
        speed=Speed(160, "512x1024", "Titan X", "paper, abstract; the size is that of its 1.7 GFLOPs"),
    ),
    "dfanet_b": Paper("DFANet B", _DFANET, "1904.02216", note=_DFANET_NOTE),
    "dfseg_df1": Paper(
        "DF1-Seg",
        _DFSEG,
        "1903.03777",
        (Score(73.0, "test", _DFSEG_AUTHORS), Score(74.1, "val", _DFSEG_AUTHORS)),
        _prototxt("DF1-Seg", 13_107_243, 41.6),
        speed=Speed(106.1, "1024x2048", "1080 Ti, TensorRT", _DFSEG_AUTHORS),
    ),
    "dfseg_df2_1": Paper(
        "DF2-Seg1",
        _DFSEG,
        "1903.03777",
        (Score(74.8, "test", _DFSEG_AUTHORS), Score(75.9, "val", _DFSEG_AUTHORS)),
        _prototxt("DF2-Seg1", 22_498_216, 84.3),
        speed=Speed(67.2, "1024x2048", "1080 Ti, TensorRT", _DFSEG_AUTHORS),
    ),
    "dfseg_df2_2": Paper(
        "DF2-Seg2",
        _DFSEG,
        "1903.03777",
        (Score(75.3, "test", _DFSEG_AUTHORS), Score(76.9, "val", _DFSEG_AUTHORS)),
        _prototxt("DF2-Seg2", 24_115_147, 95.3),
        speed=Speed(56.3, "1024x2048", "1080 Ti, TensorRT", _DFSEG_AUTHORS),
    ),
    "encoder_decoder": Paper(
        "any backbone, any head", note="Counted with its defaults, ResNet-18 and the FCN head at stride 32."
    ),
    "espnet": Paper(
        "ESPNet",
        _ESPNET,
        "1803.06815",
        (Score(60.336, "test", "authors' README, github.com/sacmehta/ESPNet"),),
        Reference(
            "sacmehta/ESPNet, test/Model.py ESPNet (p=2, q=8)",
            licence="MIT",
            parameters=362_949,
            parameters_training=362_949,
            gmacs={"512x1024": 4.60},
        ),
        "The authors train with a 20th class for the background: 364,569 parameters.",
        speed=Speed(112.9, "512x1024", "", _PADDLESEG),
    ),
    "espnet_c": Paper(
        "ESPNet-C",
        _ESPNET,
        "1803.06815",
        reference=Reference(
            "sacmehta/ESPNet, test/Model.py ESPNet_Encoder (p=2, q=8)",
            licence="MIT",
            parameters=349_449 - 256,  # counted at 20 classes; a class is 256 weights of the classifier
            parameters_training=349_449 - 256,
            gmacs={"512x1024": 3.47},
        ),
        note="The authors train with a 20th class for the background: 349,449 parameters.",
    ),
    "fast_scnn": Paper(
        "Fast-SCNN",
        _FAST_SCNN,
        "1902.04502",
        (
            Score(68.0, "test", "paper, abstract"),
            Score(68.6, "val", _ZH320),
            Score(70.96, "val", "mmsegmentation, configs/fastscnn/README.md; a larger variant"),
        ),
        Reference(
            "Tramac/awesome-semantic-segmentation-pytorch, models/fast_scnn.py",
            licence="Apache-2.0",
            parameters=1_138_051,
            gmacs={"512x1024": 1.68, "1024x2048": 6.71},
        ),
        speed=Speed(123.5, "1024x2048", "", "paper, abstract"),
    ),
    "fastfcn_r50_encnet": Paper(
        "FastFCN EncNet, ResNet-50",
        _FASTFCN,
        "1903.11816",
        _mmseg_fastfcn(78.60, 77.97),
        _fastfcn("encnet.py", 49_392_449 - 2_049_000, 132.6, presence=9_747),
        _FASTFCN_NOTE
        + "They reach 51.05 on PASCAL-Context with 59 classes and, at several scales, 42.75 on ADE20K's val "
        "(their README).",
        "its form",
        speed=Speed(37.56, "512x512", "", _FASTFCN_TABLES),
    ),
    "fastfcn_r50_deeplabv3": Paper(
        "FastFCN DeepLabV3, ResNet-50",
        _FASTFCN,
        "1903.11816",
        _mmseg_fastfcn(79.52, 79.12),
        _fastfcn("deeplabv3.py", 63_911_374 - 2_049_000, 249.6),
        _FASTFCN_NOTE + "They reach 50.07 on PASCAL-Context with 59 classes (their README).",
        "its form",
        speed=Speed(20.67, "512x512", "", _FASTFCN_TABLES),
    ),
    "fastfcn_r50_psp": Paper(
        "FastFCN PSPNet, ResNet-50",
        _FASTFCN,
        "1903.11816",
        _mmseg_fastfcn(78.76, 79.26),
        _fastfcn("psp.py", 70_864_590 - 2_049_000, 276.5),
        _FASTFCN_NOTE + "They reach 50.89 on PASCAL-Context with 59 classes (their README).",
        "its form",
        speed=Speed(28.48, "512x512", "", _FASTFCN_TABLES),
    ),
    "fastfcn_r101_encnet": Paper(
        "FastFCN EncNet, ResNet-101",
        _FASTFCN,
        "1903.11816",
        reference=_fastfcn("encnet.py", 68_384_577 - 2_049_000, 171.4, presence=9_747),
        note="The authors have no figure for Cityscapes. At several scales they reach 54.03 on PASCAL-Context with 59 "
        "classes and 44.34 on ADE20K's val (their README).",
        speed=Speed(32.02, "512x512", "", _FASTFCN_TABLES),
    ),
    "fastfcn_r101_deeplabv3": Paper(
        "FastFCN DeepLabV3, ResNet-101",
        _FASTFCN,
        "1903.11816",
        reference=_fastfcn("deeplabv3.py", 82_903_502 - 2_049_000, 288.4),
    ),
    "fastfcn_r101_psp": Paper(
        "FastFCN PSPNet, ResNet-101",
        _FASTFCN,
        "1903.11816",
        reference=_fastfcn("psp.py", 89_856_718 - 2_049_000, 315.3),
    ),
    "gscnn_r50": Paper(
        "Gated-SCNN, ResNet-50",
        _GSCNN,
        "1907.05740",
        (Score(80.67, "val", "PaddleSeg, configs/gscnn/README.md; 512x1024, 80k iterations, distilled weights"),),
        Reference("leftthomas/GatedSCNN, model.py", licence="none stated", gmacs={"512x1024": 421.8}),
        _DEEP_STEM_NOTE,
        "ResNet-50-vd",
    ),
    "gscnn_r101": Paper(
        "Gated-SCNN, ResNet-101",
        _GSCNN,
        "1907.05740",
        reference=Reference("leftthomas/GatedSCNN, model.py", licence="none stated", gmacs={"512x1024": 577.0}),
        note=_DEEP_STEM_NOTE,
    ),
    "gscnn_wrn38": Paper(
        "Gated-SCNN, WideResNet-38",
        _GSCNN,
        "1907.05740",
        (
            Score(82.8, "test", "paper, comparison on Cityscapes' test set; several scales"),
            Score(80.8, "val", "paper, comparison on Cityscapes' val set; several scales"),
        ),
        Reference(
            "nv-tlabs/GSCNN, network/gscnn.py",
            licence="CC BY-NC-SA 4.0",
            parameters=137_278_190 - 65,
            parameters_training=137_278_190 - 65,
        ),
        "The reference holds 65 more parameters, which never run.",
        "several scales",
    ),
    "icnet_r18": Paper(
        "ICNet, ResNet-18",
        _ICNET,
        "1704.08545",
        (Score(74.43, "val", "mmsegmentation, configs/icnet/README.md; ImageNet weights, 160k iterations"),),
        Reference(
            "open-mmlab/mmsegmentation, icnet_r18-d8",
            licence="Apache-2.0",
            parameters=24_874_067,
            gmacs={"512x1024": 18.6, "1024x2048": 74.2},
        ),
        "The paper has no ResNet-18. " + _MMSEG_SIZES,
    ),
    "icnet_r50": Paper(
        "ICNet, ResNet-50",
        _ICNET,
        "1704.08545",
        (Score(76.29, "val", "mmsegmentation, configs/icnet/README.md; ImageNet weights, 160k iterations"),),
        Reference(
            "open-mmlab/mmsegmentation, icnet_r50-d8",
            licence="Apache-2.0",
            parameters=47_527_507,
            gmacs={"512x1024": 30.6, "1024x2048": 122.0},
        ),
        "Full width; the paper's network has half of it. " + _MMSEG_SIZES,
    ),
    "icnet_r50_half": Paper(
        "ICNet, half ResNet-50",
        _ICNET,
        "1704.08545",
        (Score(69.5, "test", _PADDLESEG), Score(67.7, "val", _ZH320)),
        Reference(
            "meetps/pytorch-semseg, ptsemseg/models/icnet.py",
            licence="MIT",
            parameters=6_699_987,
            parameters_training=6_707_321,
            gmacs={"1025x2049": 30.6},
        ),
        "The paper reaches half width by pruning a trained network; ours trains from scratch. The reference holds "
        "1,050,624 more parameters, which never run; its GMACs include a stage that runs a second time for nothing.",
        speed=Speed(30.3, "1024x2048", "", _PADDLESEG),
    ),
    "msfnet": Paper(
        "MSFNet",
        _MSFNET,
        "1911.07217",
        (Score(77.1, "test", "paper, abstract"),),
        note="A reconstruction: the authors published no code, and the paper leaves much open.",
        caveat="reconstructed here",
        speed=Speed(41, "1024x2048", "", "paper, abstract"),
    ),
    "pspnet_r18": Paper(
        "PSPNet, ResNet-18",
        _PSPNET,
        "1612.01105",
        (Score(74.87, "val", "mmsegmentation, configs/pspnet/README.md; 512x1024, 80k iterations"),),
        note="The paper has no ResNet-18.",
    ),
    "pspnet_r50": Paper(
        "PSPNet, ResNet-50",
        _PSPNET,
        "1612.01105",
        (Score(77.30, "val", _SEMSEG),),
        Reference(
            "hszhao/semseg, model/pspnet.py",
            licence="MIT",
            parameters=49_080_038 - 2_364_691,
            parameters_training=49_080_038,
            gmacs={"513x1025": 376.6},
        ),
    ),
    "pspnet_r101": Paper(
        "PSPNet, ResNet-101",
        _PSPNET,
        "1612.01105",
        (Score(78.63, "val", _SEMSEG), Score(78.4, "test", "paper, as in the README of github.com/lxtGH/GALD-DGCNet")),
        Reference(
            "hszhao/semseg, model/pspnet.py",
            licence="MIT",
            parameters=68_072_166 - 2_364_691,
            parameters_training=68_072_166,
            gmacs={"513x1025": 535.4},
        ),
    ),
    "swiftnet_r18": Paper(
        "SwiftNet, ResNet-18",
        _SWIFTNET,
        "1903.08469",
        (Score(75.5, "test", "paper, abstract"), Score(75.4, "val", _PADDLESEG)),
        Reference(
            "orsic/swiftnet, resnet_single_scale.py",
            licence="GPL-3.0",
            parameters=11_797_071,
            parameters_training=11_797_071,
            gmacs={"512x1024": 25.9, "1024x2048": 103.6},
        ),
        speed=Speed(39.9, "1024x2048", "1080 Ti", "paper, abstract"),
    ),
    "swiftnet_r18_pyramid": Paper(
        "SwiftNet, ResNet-18 pyramid",
        _SWIFTNET,
        "1903.08469",
        reference=Reference(
            "orsic/swiftnet, resnet_pyramid.py",
            licence="GPL-3.0",
            parameters=12_056_275,
            parameters_training=12_056_275,
            gmacs={"512x1024": 32.0, "1024x2048": 128.2},
        ),
        note="Three levels, as in the authors' code and in Pattern Recognition 110 (2021), 'Efficient semantic "
        "segmentation with pyramidal fusion'; the conference paper's pyramid has two.",
    ),
}
"""Model -> where it comes from, for the models of this package."""
