"""Which of Cityscapes' 19 classes a label of Mapillary Vistas is, by the label's name, for v1.2 and v2.0 alike.

The rule is Cityscapes' own: a label is a class if the definition of that class takes it in ("Class Definitions" of
cityscapes-dataset.com/dataset-overview, quoted below), and is ignored if Cityscapes ignores it, too, or if it may be
several things. Two published mappings of v1.2 are compared: [RobustNet], datasets/mapillary.py of shachoi/RobustNet,
which tools/convert_datasets/mapillary.py of lhoyer/HRDA repeats, and [MSeg], mseg/class_remapping_files of
mseg-dataset/mseg-api (MSeg_master.tsv, then universal_to_cityscapes-34.tsv). Where a row has no remark, both agree.
"""

from __future__ import annotations

_LABELS = {
    "road": (
        "construction--flat--road",
        # "all lanes, all directions, all streets": [MSeg]; ignored by [RobustNet]
        "construction--flat--service-lane",
        "construction--flat--road-shoulder",  # v2.0 only; a part of the carriageway in v1.2
        # "areas only delimited by markings from the main road, e.g. bicycle lanes": [MSeg]; ignored by [RobustNet]
        "construction--flat--bike-lane",
        # "including the markings on the road": [MSeg]; [RobustNet] takes general ones and ignores crosswalks
        "construction--flat--crosswalk-plain",
        "marking--crosswalk-zebra",
        "marking--general",
        # what v2.0 makes of the two
        "marking--continuous--dashed",
        "marking--continuous--solid",
        "marking--continuous--zigzag",
        "marking--discrete--ambiguous",
        "marking--discrete--arrow--left",
        "marking--discrete--arrow--other",
        "marking--discrete--arrow--right",
        "marking--discrete--arrow--split-left-or-straight",
        "marking--discrete--arrow--split-right-or-straight",
        "marking--discrete--arrow--straight",
        "marking--discrete--crosswalk-zebra",
        "marking--discrete--give-way-row",
        "marking--discrete--give-way-single",
        "marking--discrete--hatched--chevron",
        "marking--discrete--hatched--diagonal",
        "marking--discrete--other-marking",
        "marking--discrete--stop-line",
        "marking--discrete--symbol--bicycle",
        "marking--discrete--symbol--other",
        "marking--discrete--text",
        "marking-only--continuous--dashed",
        "marking-only--discrete--crosswalk-zebra",
        "marking-only--discrete--other-marking",
        "marking-only--discrete--text",
        "object--manhole",  # Cityscapes has no such label: [RobustNet]; ignored by [MSeg]
        "object--pothole",  # [MSeg]; ignored by [RobustNet]
    ),
    "sidewalk": (
        "construction--flat--sidewalk",
        "construction--barrier--curb",  # "includes a possibly delimiting curb"
        "construction--flat--curb-cut",  # as the curb: [MSeg]; ignored by [RobustNet]
        "construction--flat--pedestrian-area",  # "or pedestrian zones": [MSeg]; ignored by [RobustNet]
    ),
    "building": (
        "construction--structure--building",
        "construction--structure--garage",  # v2.0 only; "garage, car port"
    ),
    "wall": ("construction--barrier--wall",),
    "fence": ("construction--barrier--fence",),
    "pole": ("object--support--pole", "object--support--utility-pole"),
    "traffic light": (
        "object--traffic-light",
        # what v2.0 makes of it
        "object--traffic-light--cyclists",
        "object--traffic-light--general-horizontal",
        "object--traffic-light--general-single",
        "object--traffic-light--general-upright",
        "object--traffic-light--other",
        "object--traffic-light--pedestrians",
    ),
    "traffic sign": (
        "object--traffic-sign--front",
        # what v2.0 makes of it
        "object--traffic-sign--direction-front",
        "object--traffic-sign--information-parking",
        "object--traffic-sign--temporary-front",
    ),
    "vegetation": ("nature--vegetation",),
    "terrain": (
        "nature--terrain",
        "nature--sand",  # "soil or sand": [MSeg]; ignored by [RobustNet]
    ),
    "sky": ("nature--sky",),
    "person": (
        "human--person",
        # what v2.0 makes of it; Cityscapes' groups of persons are persons, too
        "human--person--individual",
        "human--person--person-group",
    ),
    "rider": ("human--rider--bicyclist", "human--rider--motorcyclist", "human--rider--other-rider"),
    "car": ("object--vehicle--car",),
    "truck": ("object--vehicle--truck",),
    "bus": ("object--vehicle--bus",),
    "train": ("object--vehicle--on-rails",),  # "vehicle on rails, e.g. tram, train"
    "motorcycle": ("object--vehicle--motorcycle",),
    "bicycle": ("object--vehicle--bicycle",),
}

# Ignored, though somebody might expect them above:
# - what Cityscapes labels apart and ignores in its scores: parking (road in [MSeg]) with its aisles, rail track, guard
#   rail, bridge, tunnel, caravan (car in [MSeg]), trailer, groups of poles, the ego vehicle;
# - traffic signs from behind and frames (traffic sign in [MSeg]): Cityscapes' class is the front with the information;
# - other barriers (wall in [MSeg]), concrete blocks, medians, separators and road sides, which are of any build;
# - traffic islands, of which Cityscapes counts the walkable part as sidewalk, and driveways, which are either;
# - phone booths (building in [MSeg]), catch basins, street lights, billboards and signage, vehicles of unknown kind;
# - mountain, snow, water, animals, and everything that is void.
CLASS_OF_LABEL = {label: name for name, labels in _LABELS.items() for label in labels}
