"""Readers, one adapter per data set, augmentation, and procedural road scenes."""

from fastseg.data.ade20k import ade20k
from fastseg.data.camvid import camvid, camvid11_480, camvid11_960, camvid32
from fastseg.data.cityscapes import cityscapes
from fastseg.data.dataset import DATASETS, ConcatDataset, FileDataset, SegDataset, build_dataset
from fastseg.data.folder import folder
from fastseg.data.mapillary import mapillary
from fastseg.data.pascal_context import pascal_context
from fastseg.data.road_scenes import road_scenes

__all__ = [
    "DATASETS",
    "ConcatDataset",
    "FileDataset",
    "SegDataset",
    "ade20k",
    "build_dataset",
    "camvid",
    "camvid11_480",
    "camvid11_960",
    "camvid32",
    "cityscapes",
    "folder",
    "mapillary",
    "pascal_context",
    "road_scenes",
]
