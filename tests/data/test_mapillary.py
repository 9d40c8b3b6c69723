"""Mapillary Vistas v1.2 and v2.0 as their archives unpack, on folders made here, and the mapping to Cityscapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.coding import INVALID, Colours, Values
from fastseg.data.dataset import DATASETS, FileDataset, build_dataset
from fastseg.data.mapillary import mapillary, read_labels
from fastseg.data.mapillary_to_cityscapes import CLASS_OF_LABEL
from fastseg.data.road_scenes import ROAD_SCENES
from fastseg.errors import DataError, LabelError, MissingFileError
from fastseg.types import IGNORE_INDEX
from trees import scene
from trees.mapillary import document, numbers, save_labels, write_mapillary
from trees.mapillary_labels import LABELS

SIZE = (32, 64)
COUNTS = {"v1.2": (66, 65), "v2.0": (124, 116)}
FILES = [HealthCheck.function_scoped_fixture]

# what no class of Cityscapes takes in, so that a label which falls out of the table is noticed
IGNORED = {
    "v1.2": """
        animal--bird animal--ground-animal construction--barrier--guard-rail construction--barrier--other-barrier
        construction--flat--parking construction--flat--rail-track construction--structure--bridge
        construction--structure--tunnel nature--mountain nature--snow nature--water object--banner object--bench
        object--bike-rack object--billboard object--catch-basin object--cctv-camera object--fire-hydrant
        object--junction-box object--mailbox object--phone-booth object--street-light
        object--support--traffic-sign-frame object--traffic-sign--back object--trash-can object--vehicle--boat
        object--vehicle--caravan object--vehicle--other-vehicle object--vehicle--trailer object--vehicle--wheeled-slow
        void--car-mount void--ego-vehicle void--unlabeled""",
    "v2.0": """
        animal--bird animal--ground-animal construction--barrier--ambiguous construction--barrier--concrete-block
        construction--barrier--guard-rail construction--barrier--other-barrier construction--barrier--road-median
        construction--barrier--road-side construction--barrier--separator construction--barrier--temporary
        construction--flat--driveway construction--flat--parking construction--flat--parking-aisle
        construction--flat--rail-track construction--flat--traffic-island construction--structure--bridge
        construction--structure--tunnel nature--mountain nature--snow nature--water object--banner object--bench
        object--bike-rack object--catch-basin object--cctv-camera object--fire-hydrant object--junction-box
        object--mailbox object--parking-meter object--phone-booth object--sign--advertisement object--sign--ambiguous
        object--sign--back object--sign--information object--sign--other object--sign--store object--street-light
        object--support--pole-group object--support--traffic-sign-frame object--traffic-cone
        object--traffic-sign--ambiguous object--traffic-sign--back object--traffic-sign--direction-back
        object--traffic-sign--temporary-back object--trash-can object--vehicle--boat object--vehicle--caravan
        object--vehicle--other-vehicle object--vehicle--trailer object--vehicle--vehicle-group
        object--vehicle--wheeled-slow object--water-valve void--car-mount void--dynamic void--ego-vehicle void--ground
        void--static void--unlabeled""",
}


def build(root: Path, split: str = "val", **args: Any) -> FileDataset:
    dataset = mapillary(str(root), split, **args)
    assert isinstance(dataset, FileDataset)
    return dataset


def table(dataset: FileDataset) -> np.ndarray:
    assert isinstance(dataset.coding, Values)
    return dataset.coding.table


def names(version: str) -> list[str]:
    return [str(label["name"]) for label in LABELS[version]]


@pytest.fixture(scope="module", params=["v1.2", "v2.0"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A version and its archive, not to be changed."""
    return request.param, write_mapillary(tmp_path_factory.mktemp("mapillary"), version=request.param, size=SIZE)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of v1.2, not to be changed."""
    return write_mapillary(tmp_path_factory.mktemp("v12"), size=SIZE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_mapillary(tmp_path / "vistas", size=(4, 8))


def rewrite(root: Path, change: Callable[[dict[str, Any]], object], version: str = "v1.2") -> None:
    """Change the content of the JSON."""
    content = json.loads(json.dumps(document(version)))
    change(content)
    (root / f"config_{version}.json").write_text(json.dumps(content))


def test_it_is_registered() -> None:
    assert DATASETS.get("mapillary") is mapillary


def test_the_fixture_has_the_published_counts() -> None:
    for version, (labels, evaluated) in COUNTS.items():
        assert len(LABELS[version]) == labels
        assert sum(bool(label["evaluate"]) for label in LABELS[version]) == evaluated
    assert sum(bool(label["instances"]) for label in LABELS["v1.2"]) == 37
    assert sum(bool(label["instances"] and label["evaluate"]) for label in LABELS["v2.0"]) == 70


def test_classes_are_the_labels_that_the_json_evaluates(tree: tuple[str, Path]) -> None:
    version, root = tree
    info = build(root).info
    kept = [number for number, label in enumerate(LABELS[version]) if label["evaluate"]]
    assert info.num_classes == COUNTS[version][1]
    assert info.official_ids == tuple(kept)
    assert info.class_names == tuple(LABELS[version][number]["readable"] for number in kept)
    assert [list(colour) for colour in info.palette] == [LABELS[version][number]["color"] for number in kept]
    assert "Unlabeled" not in info.class_names


def test_all_labels_are_classes_on_request(tree: tuple[str, Path]) -> None:
    version, root = tree
    dataset = build(root, classes="all")
    count = COUNTS[version][0]
    assert dataset.info.num_classes == count
    assert dataset.info.class_names[-1] == "Unlabeled"
    assert table(dataset).tolist() == [*range(count), *[INVALID] * (256 - count)]


def test_every_value_is_a_class_or_ignored_or_refused(tree: tuple[str, Path]) -> None:
    version, root = tree
    dataset = build(root)
    for raw, value in enumerate(table(dataset)):
        if raw >= len(LABELS[version]):
            assert value == INVALID
        elif LABELS[version][raw]["evaluate"]:
            assert dataset.info.class_names[value] == LABELS[version][raw]["readable"]
        else:
            assert value == IGNORE_INDEX


def test_every_value_is_a_class_of_cityscapes_or_ignored_or_refused(tree: tuple[str, Path]) -> None:
    version, root = tree
    for raw, value in enumerate(table(build(root, classes="cityscapes"))):
        if raw >= len(LABELS[version]):
            assert value == INVALID
        elif names(version)[raw] in IGNORED[version].split():
            assert value == IGNORE_INDEX
        else:
            assert CITYSCAPES.class_names[value] == CLASS_OF_LABEL[names(version)[raw]]


def test_every_name_in_the_mapping_is_a_label_of_a_version() -> None:
    assert not CLASS_OF_LABEL.keys() - set(names("v1.2")) - set(names("v2.0"))
    assert set(CLASS_OF_LABEL.values()) <= set(CITYSCAPES.class_names)


def test_a_label_is_either_mapped_or_known_to_be_ignored() -> None:
    for version in LABELS:
        ignored = set(IGNORED[version].split())
        assert ignored == set(names(version)) - CLASS_OF_LABEL.keys()


def test_every_class_of_cityscapes_is_reached(tree: tuple[str, Path]) -> None:
    _, root = tree
    assert set(range(19)) <= set(table(build(root, classes="cityscapes")).tolist())


def test_the_mapping_has_what_both_published_ones_agree_on() -> None:
    # ids of v1.2 in shachoi/RobustNet's datasets/mapillary.py, without manhole, which MSeg ignores
    published = {
        "road": (13, 24),
        "sidewalk": (2, 15),
        "building": (17,),
        "wall": (6,),
        "fence": (3,),
        "pole": (45, 47),
        "traffic light": (48,),
        "traffic sign": (50,),
        "vegetation": (30,),
        "terrain": (29,),
        "sky": (27,),
        "person": (19,),
        "rider": (20, 21, 22),
        "car": (55,),
        "truck": (61,),
        "bus": (54,),
        "train": (58,),
        "motorcycle": (57,),
        "bicycle": (52,),
    }
    for name, numbers_of_labels in published.items():
        assert {CLASS_OF_LABEL[names("v1.2")[number]] for number in numbers_of_labels} == {name}


def test_the_classes_of_cityscapes_have_its_names_and_colours(pristine: Path) -> None:
    info = build(pristine, classes="cityscapes").info
    assert info.name == "mapillary"
    assert (info.class_names, info.palette) == (CITYSCAPES.class_names, CITYSCAPES.palette)


def test_an_image_and_its_classes_are_loaded(tree: tuple[str, Path]) -> None:
    _, root = tree
    image, label = build(root, classes="cityscapes").load(1)
    assert image.shape == (*SIZE, 3)
    drawn = scene(1, *SIZE)[1]
    expected = np.full(256, IGNORE_INDEX, np.uint8)
    expected[: len(ROAD_SCENES.class_names)] = [CITYSCAPES.class_names.index(name) for name in ROAD_SCENES.class_names]
    assert np.array_equal(label, expected[drawn])


def test_splits_have_their_images_in_order(tree: tuple[str, Path]) -> None:
    _, root = tree
    assert [build(root).sample_name(i) for i in range(2)] == [
        "-2bZ6cFvM1uHdXqR8tJwLg.jpg",
        "s7YpA0oKe3_iGhU5fNzTxw.jpg",
    ]
    assert len(build_dataset("mapillary", "train+val", root=str(root))) == 5


def test_instance_maps_are_left_alone(tree: tuple[str, Path]) -> None:
    """They hold label x 256 + number, not Cityscapes' label x 1000 + number."""
    _, root = tree
    dataset = build(root)
    assert dataset.info.instance_classes == ()
    assert dataset.load_instances(0) is None


@pytest.mark.parametrize("version", ["v1.2", "v2.0"])
@pytest.mark.parametrize("kind", ["raw", "palette"])
def test_grey_and_palette_images_give_the_same_classes(tmp_path: Path, version: Any, kind: Any) -> None:
    write_mapillary(tmp_path, version=version, size=SIZE, labels=kind)
    first = next(tmp_path.glob("validation/**/labels/*.png"))
    with Image.open(first) as image:
        assert image.mode == {"raw": "L", "palette": "P"}[kind]
    label = build(tmp_path, classes="all").load(0)[1]
    assert np.array_equal(label, numbers(version, 0, SIZE))


@settings(max_examples=25, deadline=None, suppress_health_check=FILES)
@given(raw=st.lists(st.integers(0, 65), min_size=32, max_size=32))
def test_painted_labels_give_the_same_classes_as_numbers(tmp_path: Path, pristine: Path, raw: list[int]) -> None:
    values = np.array(raw, np.uint8).reshape(4, 8)
    for kind in ("colour", "palette", "raw"):
        root = tmp_path / kind
        if not root.exists():
            write_mapillary(root, size=(4, 8), labels=kind)
        save_labels(values, root / "validation/labels/-2bZ6cFvM1uHdXqR8tJwLg.png", "v1.2", kind)
    for classes in ("own", "cityscapes", "all"):
        loaded = [build(tmp_path / kind, classes=classes).load(0)[1] for kind in ("colour", "palette", "raw")]
        assert np.array_equal(loaded[0], loaded[1])
        assert np.array_equal(loaded[0], loaded[2])


def test_painted_labels_are_told_from_palette_images(tmp_path: Path, pristine: Path) -> None:
    write_mapillary(tmp_path, size=(4, 8), labels="colour")
    assert isinstance(build(tmp_path).coding, Colours)
    assert isinstance(build(pristine).coding, Values)


def test_colours_that_two_classes_share_are_refused(tmp_path: Path) -> None:
    write_mapillary(tmp_path, version="v2.0", size=(4, 8), labels="colour")
    with pytest.raises(
        DataError, match=r"painted in colours.*gives \(110, 110, 110\) to both '.*shoulder' and '.*servi"
    ):
        build(tmp_path, "train")


def test_colours_that_two_labels_of_one_class_share_are_read(tmp_path: Path) -> None:
    write_mapillary(tmp_path, size=(4, 8), labels="colour")
    paint = LABELS["v1.2"][13]["color"]  # road's

    def share(content: dict[str, Any]) -> None:
        content["labels"][24]["color"] = paint  # lane markings, which are road, too

    rewrite(tmp_path, share)
    assert build(tmp_path, classes="cityscapes").load(0)[1].shape == (4, 8)
    with pytest.raises(DataError, match="to both 'construction--flat--road' and 'marking--general'"):
        build(tmp_path)


def test_one_painted_map_among_numbers_is_refused(root: Path) -> None:
    file = root / "validation/labels/s7YpA0oKe3_iGhU5fNzTxw.png"
    save_labels(np.zeros((4, 8), np.uint8), file, "v1.2", "colour")
    with pytest.raises(LabelError, match=r"s7YpA0oKe3_iGhU5fNzTxw\.png is a 3-channel label"):
        build(root).load(1)


def test_a_value_beyond_the_labels_is_refused_with_its_file(root: Path) -> None:
    save_labels(np.full((4, 8), 66, np.uint8), root / "validation/labels/-2bZ6cFvM1uHdXqR8tJwLg.png", "v1.2", "raw")
    with pytest.raises(LabelError, match=r"-2bZ6cFvM1uHdXqR8tJwLg\.png has values \{66: 32 px\}.*v1\.2 has 66 labels"):
        build(root).load(0)


def test_a_map_of_v20_read_as_v12_is_refused(tmp_path: Path) -> None:
    root = write_mapillary(tmp_path, version="v2.0", size=(4, 8))
    for place in ("training", "validation"):
        for file in (root / place / "v1.2/labels").iterdir():
            save_labels(np.full((4, 8), 100, np.uint8), file, "v2.0", "palette")
    with pytest.raises(LabelError, match=r"values \{100: 32 px\}.*data\.args\.version says which version to read"):
        build(root, version="v1.2").load(0)


def test_auto_takes_the_newest_version(tmp_path: Path) -> None:
    root = write_mapillary(tmp_path, version="v2.0", size=(4, 8))
    assert build(root).info.num_classes == 116
    assert build(root, version="v1.2").info.num_classes == 65
    assert "v1.2" in str(build(root, version="v1.2").samples[0].label)


@pytest.mark.parametrize("given", ["v2.0", "2.0", 2.0])
def test_a_version_may_be_written_as_a_number(tmp_path: Path, given: Any) -> None:
    root = write_mapillary(tmp_path, version="v2.0", size=(4, 8))
    assert build(root, version=given).info.num_classes == 116


@pytest.mark.parametrize("name", ["config.json", "config_v1.2.json"])
def test_the_json_of_older_archives_is_found(tmp_path: Path, name: str) -> None:
    root = write_mapillary(tmp_path, size=(4, 8), json_name=name)
    assert build(root).info.num_classes == 65


def test_a_version_that_is_not_there_offers_the_one_that_is(root: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no label maps of mapillary v2\.0.*data\.args\.version=v1\.2 is there"):
        build(root, version="v2.0")


@pytest.mark.parametrize("version", ["v1.3", "", "V2.0", "../v2.0", 3, None, ["v2.0"]])
def test_an_unknown_version_offers_the_known_ones(root: Path, version: Any) -> None:
    with pytest.raises(DataError, match=r"has no version .*data\.args\.version.*v1\.2"):
        build(root, version=version)


@pytest.mark.parametrize("classes", ["cityscape", "", 19, ["own"]])
def test_an_unknown_choice_of_classes_offers_the_known_ones(root: Path, classes: Any) -> None:
    with pytest.raises(
        DataError, match=r"has no classes .*data\.args\.classes.*(did you mean 'cityscapes'|allowed: all)"
    ):
        build(root, classes=classes)


@pytest.mark.parametrize("split", ["training", "vall", "", "../val", "val/images"])
def test_an_unknown_split_offers_the_known_ones(root: Path, split: str) -> None:
    with pytest.raises(DataError, match=r"mapillary has no split .*('val'|'train'|allowed: train, val)"):
        build(root, split)


@pytest.mark.parametrize("split", ["test", "testing"])
def test_the_testing_images_have_no_labels(root: Path, split: str) -> None:
    with pytest.raises(DataError, match=r"no labels for its testing images; score on val"):
        build(root, split)


def test_a_misspelt_root_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"does not exist.*training/images/.*data\.root="):
        build(tmp_path / "vistas")


@pytest.mark.parametrize("version", ["auto", "v1.2"])
def test_a_root_one_folder_too_high_says_what_is_there(root: Path, version: str) -> None:
    with pytest.raises(MissingFileError, match=r"no label maps of mapillary.*contains: vistas/; .*data\.root"):
        build(root.parent, version=version)


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_a_missing_folder_is_named_with_what_is_beside_it(root: Path, folder: str) -> None:
    (root / "validation" / folder).rename(root / "validation/moved")
    with pytest.raises(MissingFileError, match=r"validation.* does not exist; .*contains: .*moved/"):
        build(root)


def test_a_missing_json_says_where_it_is_from(root: Path) -> None:
    (root / "config_v1.2.json").rename(root / "config_v2.0.json")
    with pytest.raises(
        MissingFileError, match=r"has no config_v1\.2\.json or config\.json.*root of the data set's archi"
    ):
        build(root)


def test_an_image_without_label_is_named(root: Path) -> None:
    (root / "validation/labels/s7YpA0oKe3_iGhU5fNzTxw.png").unlink()
    with pytest.raises(MissingFileError, match=r"1 of 2 files have no label .*s7YpA0oKe3_iGhU5fNzTxw\.jpg"):
        build(root)


def test_a_label_without_image_is_named(root: Path) -> None:
    (root / "validation/images/s7YpA0oKe3_iGhU5fNzTxw.jpg").unlink()
    with pytest.raises(MissingFileError, match=r"1 of 2 files have no image .*s7YpA0oKe3_iGhU5fNzTxw\.png"):
        build(root)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'"text"', b"[]", b"null", b'{"labels": {}}', b'{"labels": []}'],
)
def test_a_damaged_json_is_named(root: Path, text: bytes) -> None:
    (root / "config_v1.2.json").write_bytes(text)
    with pytest.raises(DataError, match=r"config_v1\.2\.json .*archive again"):
        build(root)


@pytest.mark.parametrize("key", ["name", "readable", "color", "evaluate"])
@pytest.mark.parametrize("value", ["absent", None, 1, [], [1, 2, 256], [1, 2, 3.5], [True, 0, 0], {}])
def test_a_label_that_lacks_a_key_is_named(root: Path, key: str, value: Any) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["labels"][13].pop(key)
        if value != "absent":
            content["labels"][13][key] = value

    rewrite(root, spoil)
    with pytest.raises(DataError, match=rf"config_v1\.2\.json: label 13 .*: {key} is "):
        build(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["labels"].__setitem__(3, "fence"), r"label 3 is 'fence'; it has to be a table"),
        (lambda c: c["labels"][4].update(name="human--person"), r"has the name 'human--person' more than once"),
        (lambda c: c["labels"][4].update(readable="Person"), r"has the readable 'Person' more than once"),
        (lambda c: c["labels"].extend(c["labels"] * 3), r"has 264 labels; allowed are 254"),
        (lambda c: c.update(version="2.0"), r"describes version 2\.0 of the data set, not v1\.2"),
        (lambda c: [x.update(evaluate=False) for x in c["labels"]], r"evaluates none of its 66 labels"),
    ],
)
def test_an_impossible_json_is_refused(root: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    rewrite(root, change)
    with pytest.raises(DataError, match=message):
        build(root)


def test_a_json_may_have_254_labels_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    labels = [{"color": [0, 0, 0], "evaluate": True, "name": f"n{i}", "readable": f"r{i}"} for i in range(255)]
    file.write_text(json.dumps({"labels": labels[:254]}))
    assert len(read_labels(file, "v1.2")) == 254
    file.write_text(json.dumps({"labels": labels}))
    with pytest.raises(DataError, match=r"has 255 labels; allowed are 254"):
        read_labels(file, "v1.2")


def test_a_json_without_a_class_of_cityscapes_is_refused(root: Path) -> None:
    rewrite(root, lambda content: content["labels"][58].update(name="object--vehicle--tram"))
    assert build(root).info.num_classes == 65
    with pytest.raises(DataError, match=r"no label in .*config_v1\.2\.json is one of Cityscapes' classes train;"):
        build(root, classes="cityscapes")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["labels", "name", "readable", "color", "evaluate", "version"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=FILES)
@given(content=json_values)
def test_any_json_is_read_or_refused_in_one_line(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(content))
    try:
        assert read_labels(file, "v1.2")
    except DataError as error:
        message = str(error)
    else:
        return
    assert str(file) in message
    assert "\n" not in message
