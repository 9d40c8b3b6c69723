"""Any image in, a label map of its displayed size out; folders in, mirrored folders out, nothing else touched."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from fastseg.data.readers import IMAGE_SUFFIXES, read_label
from fastseg.errors import CheckpointError, ConfigError, DataError, ImageReadError, MissingFileError, OutputError
from fastseg.output import Prediction
from fastseg.predict import Predictor, find_inputs, predict_files
from fastseg.types import DatasetInfo, Preprocessing, SegModel, SegOutput, WeightsInfo

RANDOM = np.random.default_rng(0)
COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.uint8)
INFO = DatasetInfo("colours", ("red", "green", "blue", "yellow"), tuple(map(tuple, COLORS.tolist())))
AS_STORED = {  # what a camera held in that way does to the upright picture
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
KINDS_OF_FILE = [
    *((mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *((mode, "JPEG") for mode in ("L", "RGB", "CMYK")),
    *((mode, "TIFF") for mode in ("L", "RGB", "CMYK", "I;16")),
]


class StridedModel(SegModel):
    """A real network in small: stride 4, batch norm, align_corners as given."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_classes = num_classes
        self.aux_heads = nn.ModuleDict()
        self.layers = nn.Sequential(nn.Conv2d(3, num_classes, 3, stride=4, padding=1), nn.BatchNorm2d(num_classes))

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.layers(images), {})


class NearestColor(SegModel):
    """Class = the nearest of COLORS, pixel by pixel: its label map is the image itself, so misalignment shows."""

    def __init__(self, preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        self.num_classes = len(COLORS)
        self.aux_heads = nn.ModuleDict()
        self.preprocessing = preprocessing or Preprocessing()
        self.weights_info = WeightsInfo("nearest", "toy", "", "", INFO, self.preprocessing)
        self.scale = nn.Parameter(torch.tensor(8.0))

    def forward(self, images: Tensor) -> SegOutput:
        mean = torch.tensor(self.preprocessing.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.preprocessing.std).view(1, 3, 1, 1)
        rgb = images * std + mean
        if self.preprocessing.channel_order == "bgr":
            rgb = rgb.flip(1)
        colors = torch.tensor(COLORS / 255, dtype=torch.float32).view(1, -1, 3, 1, 1)
        return SegOutput(-self.scale * (rgb[:, None] - colors).abs().sum(dim=2), {})


def encoded(image: Image.Image, file_format: str = "PNG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, file_format, exif=exif)
    return buffer.getvalue()


def save_image(path: Path, classes: np.ndarray | None = None) -> Path:
    """An image file of exact class colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = RANDOM.integers(0, 4, (6, 9)) if classes is None else classes
    path.write_bytes(encoded(Image.fromarray(COLORS[labels]), "PNG"))
    return path


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def strided() -> Predictor:
    return Predictor(StridedModel(), device="cpu")


@pytest.fixture(scope="module")
def exact() -> Predictor:
    return Predictor(NearestColor(), device="cpu")


# One image


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    kind=st.sampled_from(KINDS_OF_FILE),
    orientation=st.integers(1, 8),
)
def test_labels_have_the_displayed_size(
    strided: Predictor, height: int, width: int, kind: tuple[str, str], orientation: int
) -> None:
    mode, file_format = kind
    pixels = RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)
    wide = RANDOM.integers(0, 65536, (height, width), dtype=np.uint16)
    image = Image.fromarray(wide) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    result = strided(encoded(image, file_format, orientation))
    displayed = (width, height) if orientation >= 5 else (height, width)
    assert result.labels.shape == displayed
    assert result.labels.dtype == np.uint8
    assert result.labels.max() < 3
    assert result.image.shape == (*displayed, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_mask_of_a_turned_file_is_that_of_the_upright_image(exact: Predictor, orientation: int) -> None:
    upright = np.zeros((6, 9), np.uint8)
    upright[0, 0], upright[0, 8], upright[5, 0], upright[2, 3:6] = 1, 2, 3, 1
    stored = Image.fromarray(COLORS[upright])
    if orientation in AS_STORED:
        stored = stored.transpose(AS_STORED[orientation])
    assert np.array_equal(exact(encoded(stored, "PNG", orientation)).labels, upright)


@pytest.mark.parametrize("preprocessing", [Preprocessing(), Preprocessing((0.1, 0.2, 0.3), (1, 2, 3), "bgr")])
def test_preprocessing_and_classes_come_from_the_weights(preprocessing: Preprocessing) -> None:
    predictor = Predictor(NearestColor(preprocessing), device="cpu")
    labels = RANDOM.integers(0, 4, (5, 7))
    result = predictor(COLORS[labels])
    assert np.array_equal(result.labels, labels)
    assert result.dataset is INFO
    assert np.array_equal(result.color(), COLORS[labels])


@pytest.mark.parametrize(("scales", "inputs"), [((1.0,), [(10, 14)]), ((0.5, 2), [(5, 7), (20, 28)])])
def test_input_scale_changes_the_networks_input_and_not_the_labels_size(
    scales: tuple[float, ...], inputs: list[tuple[int, int]]
) -> None:
    seen: list[tuple[int, int]] = []
    predictor = Predictor(NearestColor(Preprocessing(input_scale=2.0)), device="cpu", scales=scales)
    predictor.model.register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape[2:])))
    assert predictor.predict_array(COLORS[RANDOM.integers(0, 4, (5, 7))]).shape == (5, 7)
    assert seen == inputs


def test_the_one_pass_labels_are_the_argmax_of_the_full_logits(strided: Predictor) -> None:
    image = RANDOM.integers(0, 256, (37, 51, 3), dtype=np.uint8)
    normalized = (torch.from_numpy(image / 255).float() - torch.tensor(Preprocessing().mean)) / torch.tensor(
        Preprocessing().std
    )
    with torch.inference_mode():
        full = strided.model.predict_logits(normalized.permute(2, 0, 1)[None])
    agreement = (strided.predict_array(image) == full.argmax(dim=1)[0].numpy()).mean()
    assert agreement > 0.999  # float rounding may turn a tie


def test_scales_and_flips_average_probabilities() -> None:
    model = StridedModel().eval()
    predictor = Predictor(model, device="cpu", scales=(0.5, 1.0, 1.75), flip=True)
    image = RANDOM.integers(0, 256, (40, 52, 3), dtype=np.uint8)
    x = (torch.from_numpy(image / 255).float() - torch.tensor(Preprocessing().mean)) / torch.tensor(Preprocessing().std)
    x = x.permute(2, 0, 1)[None]
    total = torch.zeros(1, 3, 40, 52)
    with torch.inference_mode():
        for scale in predictor.scales:
            scaled = x
            if scale != 1:
                scaled = nn.functional.interpolate(x, (round(40 * scale), round(52 * scale)), mode="bilinear")
            for flip in (False, True):
                logits = model(scaled.flip(-1) if flip else scaled).logits
                full = nn.functional.interpolate(logits, (40, 52), mode="bilinear")
                total += (full.flip(-1) if flip else full).softmax(dim=1)
    assert (predictor.predict_array(image) == total.argmax(dim=1)[0].numpy()).mean() > 0.999


def test_flip_keeps_an_exact_mask_exact() -> None:
    labels = RANDOM.integers(0, 4, (8, 11))
    predictor = Predictor(NearestColor(), device="cpu", flip=True)
    assert np.array_equal(predictor.predict_array(COLORS[labels]), labels)


def test_a_model_set_back_to_training_predicts_the_same_and_keeps_its_statistics(strided: Predictor) -> None:
    image = RANDOM.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    before = strided.predict_array(image)
    state = {key: value.clone() for key, value in strided.model.state_dict().items()}
    strided.model.train()
    assert np.array_equal(strided.predict_array(image), before)
    assert all(torch.equal(value, state[key]) for key, value in strided.model.state_dict().items())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_the_same_mask_where_classes_are_clear(precision: str) -> None:
    labels = RANDOM.integers(0, 4, (8, 11))
    predictor = Predictor(NearestColor(), device="cpu", precision=precision)
    assert np.array_equal(predictor.predict_array(COLORS[labels]), labels)


def test_a_model_without_weights_info_gets_names_and_distinct_colours(strided: Predictor) -> None:
    assert strided.dataset.class_names == ("class_0", "class_1", "class_2")
    assert len(set(strided.dataset.palette)) == 3
    assert strided.preprocessing == Preprocessing()


def test_a_name_is_resolved_by_load_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, object]] = []

    def load_model(source: object, *, weights: object = None) -> SegModel:
        asked.append((source, weights))
        return NearestColor()

    monkeypatch.setattr("fastseg.predict.load_model", load_model)
    assert Predictor("fast_scnn", weights="toy", device="cpu").dataset is INFO
    assert asked == [("fast_scnn", "toy")]


def test_weights_that_give_nan_are_an_error_and_not_class_zero() -> None:
    model = NearestColor()
    model.scale.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        Predictor(model, device="cpu").predict_array(COLORS[:, None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "one or more factors"),
        ({"scales": (0.0,)}, "above 0"),
        ({"precision": "fp8"}, "'fp8'"),
        ({"device": "cuda:99"}, "'cuda:99' cannot be used"),
        ({"device": "gpu"}, "'gpu' cannot be used"),
        ({"weights": "camvid"}, "built already"),
    ],
)
def test_arguments_outside_their_range_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Predictor(StridedModel(), **options)  # type: ignore[arg-type]


def test_classes_that_contradict_the_weights_info_are_refused() -> None:
    model = StridedModel(num_classes=3)
    model.weights_info = WeightsInfo("m", "n", "", "", INFO)
    with pytest.raises(ConfigError, match="3 classes but its weights_info describes 4"):
        Predictor(model, device="cpu")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (17, 23), (64, 96)])
def test_a_real_network_keeps_the_images_size(size: tuple[int, int]) -> None:
    from fastseg.models import create_model

    predictor = Predictor(create_model("fast_scnn", num_classes=3), device="cpu")
    result = predictor(RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8))
    assert result.labels.shape == size


# Files and folders


def test_a_folder_is_mirrored_with_all_kinds(exact: Predictor, tmp_path: Path) -> None:
    labels = RANDOM.integers(0, 4, (6, 9))
    save_image(tmp_path / "photos" / "a.png", labels)
    save_image(tmp_path / "photos" / "day one" / "b.PNG")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "._a.png").write_text("a Mac's shadow file")
    before = tree(tmp_path / "photos")
    progress: list[tuple[int, int]] = []
    summary = predict_files(
        exact, [str(tmp_path / "photos")], tmp_path / "out", kinds=("overlay", "color", "ids"),
        on_progress=lambda finished, total, _: progress.append((finished, total)),
    )  # fmt: skip
    assert (len(summary.done), summary.failed, summary.exit_code) == (2, [], 0)
    assert summary.text() == "2 ok, 0 failed"
    assert progress == [(1, 2), (2, 2)]
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {
        f"{stem}_{kind}.png" for stem in ("a", "day one/b") for kind in ("overlay", "color", "ids")
    } == {str(path.relative_to(tmp_path / "out")) for path in summary.written}  # fmt: skip
    assert np.array_equal(read_label(tmp_path / "out" / "a_ids.png"), labels)
    assert tree(tmp_path / "photos") == before


def test_bad_files_are_reported_and_the_rest_goes_on(exact: Predictor, tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        save_image(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes(b"<html>")
    (tmp_path / "in" / "d.jpg").write_bytes(b"")
    summary = predict_files(exact, [tmp_path / "in"], tmp_path / "out")
    assert [path.name for path in summary.done] == ["a.png", "c.png"]
    assert [path.name for path, _ in summary.failed] == ["b.png", "d.jpg"]
    assert summary.exit_code == 1
    assert summary.text().splitlines()[0] == "2 ok, 2 failed"
    assert "b.png (6 bytes)" in summary.text()
    report = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert [row["file"] for row in report["failed"]] == [str(tmp_path / "in" / name) for name in ("b.png", "d.jpg")]


def test_failures_json_goes_once_nothing_fails(exact: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    assert predict_files(exact, [tmp_path / "a.png"], tmp_path / "out").exit_code == 1
    save_image(tmp_path / "a.png")
    assert predict_files(exact, [tmp_path / "a.png"], tmp_path / "out").exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_overlay.png"]


def test_existing_results_are_kept_without_running_the_network(exact: Predictor, tmp_path: Path) -> None:
    source = save_image(tmp_path / "a.png")
    predict_files(exact, [source], tmp_path / "out", kinds=["ids"])
    (tmp_path / "out" / "a_ids.png").write_bytes(b"edited by hand")

    def never(*_: object, **__: object) -> Prediction:
        pytest.fail("the network ran")

    summary = predict_files(never, [source], tmp_path / "out", kinds=["ids"])
    assert "--overwrite" in summary.failed[0][1]
    assert (tmp_path / "out" / "a_ids.png").read_bytes() == b"edited by hand"
    assert predict_files(exact, [source], tmp_path / "out", kinds=["ids"], overwrite=True).exit_code == 0
    assert read_label(tmp_path / "out" / "a_ids.png").shape == (6, 9)


def test_max_pixels_reaches_the_reader(exact: Predictor, tmp_path: Path) -> None:
    summary = predict_files(exact, [save_image(tmp_path / "a.png")], tmp_path / "out", max_pixels=53)
    assert "--max-pixels 54" in summary.failed[0][1]


def test_names_that_meet_keep_their_suffix(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png", "a.jpg.png", "sub/a.png"):
        save_image(tmp_path / name)
    stems = {str(file.relative_to(tmp_path)): str(stem) for file, stem in find_inputs([tmp_path])}
    assert stems["b.png"] == "b"
    assert stems["sub/a.png"] == "sub/a"
    assert stems["a.png"] == "a.png"
    assert len(set(stems.values())) == 5


@settings(max_examples=60, deadline=None)
@given(names=st.sets(st.text("aAä.é_-", min_size=1, max_size=5), min_size=1, max_size=12), data=st.data())
def test_output_paths_never_meet_even_without_case(
    names: set[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        suffix = data.draw(st.sampled_from([".png", ".PNG", ".jpg", ".tif"]))
        (folder / f"x{name}{suffix}").touch()
    stems = [str(stem).casefold() for _, stem in find_inputs([folder])]
    assert len(stems) == len(set(stems)) == len(list(folder.iterdir()))


def test_single_files_of_one_name_from_two_folders_stay_apart(exact: Predictor, tmp_path: Path) -> None:
    files = [save_image(tmp_path / folder / "a.png") for folder in ("one", "two")]
    summary = predict_files(exact, files, tmp_path / "out")
    assert len(summary.done) == len(set(summary.written)) == 2


def test_a_file_named_twice_is_predicted_once(tmp_path: Path) -> None:
    file = save_image(tmp_path / "in" / "a.png")
    assert len(find_inputs([file, tmp_path / "in", str(tmp_path / "in" / "*.png")])) == 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("?.png", ["a.png"]),
        ("**/?.png", ["a.png", "s/b.png", "s/t/c.png"]),
        ("s/**", ["s/b.png", "s/t/c.png"]),
        ("*/?.png", ["s/b.png"]),
        ("**/t/*", ["s/t/c.png"]),
        ("[ab].png", ["a.png"]),
        ("*[[]1].png", ["x[1].png"]),
        ("x[1].png", ["x[1].png"]),  # exists literally
    ],
)
def test_patterns_find_what_they_should(pattern: str, expected: list[str], tmp_path: Path) -> None:
    for name in ("a.png", "s/b.png", "s/t/c.png", "x[1].png"):
        save_image(tmp_path / name)
    found = sorted(str(file.relative_to(tmp_path)) for file, _ in find_inputs([str(tmp_path / pattern)]))
    assert found == expected


def test_patterns_mirror_the_tree_below_their_fixed_part(tmp_path: Path) -> None:
    save_image(tmp_path / "data" / "s" / "b.png")
    assert find_inputs([str(tmp_path / "data" / "**" / "*.png")])[0][1] == Path("s/b")


def test_loops_of_links_end_and_every_file_comes_once(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "x.png")
    save_image(tmp_path / "b" / "y.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    found = [str(file.relative_to(tmp_path)) for file, _ in find_inputs([tmp_path])]
    assert found == ["a/x.png", "b/y.png"]


def test_linked_folders_are_read(tmp_path: Path) -> None:
    save_image(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    assert [stem for _, stem in find_inputs([tmp_path / "in"])] == [Path("link/x")]


def test_an_output_folder_below_the_input_is_not_read(exact: Predictor, tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    for _ in range(2):
        summary = predict_files(exact, [tmp_path], tmp_path / "out", overwrite=True)
        assert [path.name for path in summary.done] == ["a.png"]


@pytest.mark.parametrize("make", [lambda p: p / "in", lambda p: p / "in" / "." / ".." / "in", lambda p: p / "link"])
def test_an_output_folder_equal_to_the_input_is_refused(
    make: Callable[[Path], Path], exact: Predictor, tmp_path: Path
) -> None:
    save_image(tmp_path / "in" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="choose an output folder other than"):
        predict_files(exact, [tmp_path / "in"], make(tmp_path))
    assert tree(tmp_path) == before


def test_an_output_folder_above_the_input_is_refused_only_when_results_would_be_read(
    exact: Predictor, tmp_path: Path
) -> None:
    save_image(tmp_path / "in" / "a.png")
    assert predict_files(exact, [tmp_path / "in"], tmp_path).exit_code == 0
    save_image(tmp_path / "in" / "in" / "b.png")
    with pytest.raises(OutputError, match="land among the inputs"):
        predict_files(exact, [tmp_path / "in"], tmp_path, overwrite=True)


def test_a_single_file_may_have_its_result_beside_it(exact: Predictor, tmp_path: Path) -> None:
    file = save_image(tmp_path / "a.png")
    assert predict_files(exact, [file], tmp_path).exit_code == 0
    assert (tmp_path / "a_overlay.png").exists()


def test_a_pattern_that_would_match_its_results_is_refused(exact: Predictor, tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    with pytest.raises(OutputError, match="be read"):
        predict_files(exact, [str(tmp_path / "*.png")], tmp_path)
    assert predict_files(exact, [str(tmp_path / "?.png")], tmp_path).exit_code == 0


def test_a_link_in_the_output_folder_cannot_lead_out_of_it(exact: Predictor, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "sub" / "a.png")
    save_image(tmp_path / "in" / "b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "private").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "private")
    (tmp_path / "target.png").write_bytes(b"mine")
    (tmp_path / "out" / "b_overlay.png").symlink_to(tmp_path / "target.png")
    summary = predict_files(exact, [tmp_path / "in"], tmp_path / "out", overwrite=True)
    assert [path.name for path, _ in summary.failed] == ["b.png", "a.png"]
    assert "leads out of the output folder" in summary.failed[1][1]
    assert not list((tmp_path / "private").iterdir())
    assert (tmp_path / "target.png").read_bytes() == b"mine"


@settings(max_examples=25, deadline=None)
@given(raw=st.binary(min_size=1, max_size=251).filter(lambda name: not {0, 47} & set(name)))
def test_any_file_name_is_predicted_and_reported(
    raw: bytes, exact: Predictor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    name = os.fsdecode(raw + b".png")
    if name.startswith("."):
        name = "x" + name[1:]
    save_image(folder / "in" / name)
    save_image(folder / "in" / "sub" / "y.png").write_bytes(b"")
    summary = predict_files(exact, [folder / "in"], folder / "out", kinds=("overlay", "ids"))
    assert [path.name for path in summary.done] == [name]
    assert len(summary.failed) == 1
    assert len(summary.text().encode("utf-8").splitlines()) == 2
    assert len(list((folder / "out").iterdir())) == 3  # two results and failures.json


def test_long_names_with_one_beginning_stay_apart(exact: Predictor, tmp_path: Path) -> None:
    for ending in "ab":
        save_image(tmp_path / "in" / ("x" * 250 + ending + ".png"))
    assert len(set(predict_files(exact, [tmp_path / "in"], tmp_path / "out").written)) == 2


def test_missing_inputs_name_the_nearest_parent(exact: Predictor, tmp_path: Path) -> None:
    for missing in (tmp_path / "gone", tmp_path / "gone" / "*.png"):
        with pytest.raises(MissingFileError, match=f"nearest existing parent is {tmp_path}"):
            predict_files(exact, [str(missing)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_do_lists_the_accepted_suffixes(exact: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "clip.mp4").touch()
    for inputs in ([], [str(tmp_path / "in")], [str(tmp_path / "in" / "*.mp4")]):
        with pytest.raises(DataError) as caught:
            predict_files(exact, inputs, tmp_path / "out")
        assert all(suffix in str(caught.value) for suffix in IMAGE_SUFFIXES)
    with pytest.raises(DataError, match="unset shell variable"):
        predict_files(exact, [""], tmp_path / "out")


def test_a_file_given_by_name_needs_no_image_suffix(exact: Predictor, tmp_path: Path) -> None:
    save_image(tmp_path / "upload")
    assert [path.name for path in predict_files(exact, [tmp_path / "upload"], tmp_path / "o").written] == [
        "upload_overlay.png"
    ]


def test_an_output_folder_that_is_a_file_is_refused(exact: Predictor, tmp_path: Path) -> None:
    file = save_image(tmp_path / "a.png")
    with pytest.raises(OutputError, match=r"output folder .*a\.png cannot be made"):
        predict_files(exact, [file], file)


def test_unknown_kinds_are_refused_before_anything_is_read(exact: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'color'"):
        predict_files(exact, [tmp_path / "gone.png"], tmp_path, kinds=["colour"])


def test_one_bad_image_raises_when_called_directly(exact: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    with pytest.raises(ImageReadError, match=r"a\.png"):
        exact(tmp_path / "a.png")
