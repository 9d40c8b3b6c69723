"""The zoo's table of contents: every network, backbone and head, imported by name so that an editor can jump there."""

from fastseg.models.backbones.df import DFNet, df1, df2, df2a
from fastseg.models.backbones.resnet import ResNet, resnet18, resnet34, resnet50, resnet101
from fastseg.models.backbones.wide_resnet import WideResNet, wide_resnet38
from fastseg.models.backbones.xception import Xception, Xception39, xception39, xception_a, xception_b
from fastseg.models.bisenet import BiSeNet, bisenet_r18, bisenet_x39
from fastseg.models.dfanet import DFANet, dfanet_a, dfanet_b
from fastseg.models.dfseg import DFSegHead, dfseg, dfseg_df1, dfseg_df2_1, dfseg_df2_2
from fastseg.models.encoder_decoder import EncoderDecoder, encoder_decoder
from fastseg.models.espnet import ESPNet, ESPNetC, espnet, espnet_c
from fastseg.models.fast_scnn import FastSCNN, fast_scnn
from fastseg.models.fastfcn import (
    FastFCN,
    fastfcn_r50_deeplabv3,
    fastfcn_r50_encnet,
    fastfcn_r50_psp,
    fastfcn_r101_deeplabv3,
    fastfcn_r101_encnet,
    fastfcn_r101_psp,
)
from fastseg.models.gscnn import GatedSCNN, gscnn_r50, gscnn_r101, gscnn_wrn38
from fastseg.models.heads.deeplabv3 import DeepLabV3Head, deeplabv3
from fastseg.models.heads.encnet import EncNetHead, encnet
from fastseg.models.heads.fcn import FCNHead, fcn
from fastseg.models.heads.psp import PSPHead, psp
from fastseg.models.icnet import ICNet, icnet_r18, icnet_r50, icnet_r50_half
from fastseg.models.msfnet import MSFNet, msfnet
from fastseg.models.pspnet import PSPNet, pspnet_r18, pspnet_r50, pspnet_r101
from fastseg.models.registry import (
    BACKBONES,
    HEADS,
    MODELS,
    create_backbone,
    create_head,
    create_model,
    list_models,
)
from fastseg.models.swiftnet import SwiftNetHead, SwiftNetPyramid, swiftnet, swiftnet_r18, swiftnet_r18_pyramid

__all__ = [
    "BACKBONES",
    "HEADS",
    "MODELS",
    "BiSeNet",
    "DFANet",
    "DFNet",
    "DFSegHead",
    "DeepLabV3Head",
    "ESPNet",
    "ESPNetC",
    "EncNetHead",
    "EncoderDecoder",
    "FCNHead",
    "FastFCN",
    "FastSCNN",
    "GatedSCNN",
    "ICNet",
    "MSFNet",
    "PSPHead",
    "PSPNet",
    "ResNet",
    "SwiftNetHead",
    "SwiftNetPyramid",
    "WideResNet",
    "Xception",
    "Xception39",
    "bisenet_r18",
    "bisenet_x39",
    "create_backbone",
    "create_head",
    "create_model",
    "deeplabv3",
    "df1",
    "df2",
    "df2a",
    "dfanet_a",
    "dfanet_b",
    "dfseg",
    "dfseg_df1",
    "dfseg_df2_1",
    "dfseg_df2_2",
    "encnet",
    "encoder_decoder",
    "espnet",
    "espnet_c",
    "fast_scnn",
    "fastfcn_r50_deeplabv3",
    "fastfcn_r50_encnet",
    "fastfcn_r50_psp",
    "fastfcn_r101_deeplabv3",
    "fastfcn_r101_encnet",
    "fastfcn_r101_psp",
    "fcn",
    "gscnn_r50",
    "gscnn_r101",
    "gscnn_wrn38",
    "icnet_r18",
    "icnet_r50",
    "icnet_r50_half",
    "list_models",
    "msfnet",
    "psp",
    "pspnet_r18",
    "pspnet_r50",
    "pspnet_r101",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "swiftnet",
    "swiftnet_r18",
    "swiftnet_r18_pyramid",
    "wide_resnet38",
    "xception39",
    "xception_a",
    "xception_b",
]
