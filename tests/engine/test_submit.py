"""Results for the server are official ids under official names, and whatever is wrong with results is found."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from fastseg.data.cityscapes import CITYSCAPES
from fastseg.engine import submit as module
from fastseg.engine.submit import check_results, find_results, pack_results, predict_results, split_images, submit
from fastseg.errors import DataError, FastsegError, ImageReadError, MissingFileError, OutputError
from fastseg.predict import Predictor
from fastseg.types import DataFile, WeightsInfo
from toys import NearestColor, StridedModel
from trees.cityscapes import write_cityscapes

BASES = ["berlin_000000_000019", "berlin_000001_000019"]
SIZE = (12, 20)
ALLOWED = "7-8, 11-13, 17, 19-28, 31-33"
IDS = np.array(CITYSCAPES.official_ids, np.uint8)

Images = list[tuple[str, DataFile]]


class RedClass:
    """Predicts the red channel modulo the number of classes."""

    model = SimpleNamespace(num_classes=CITYSCAPES.num_classes, weights_info=None)

    def predict_array(self, image: np.ndarray) -> np.ndarray:
        return image[..., 0] % CITYSCAPES.num_classes


def predictor() -> Predictor:
    return cast(Predictor, RedClass())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_cityscapes(tmp_path / "cityscapes", size=SIZE, splits=("test",))


@pytest.fixture
def images(root: Path) -> Images:
    return split_images(str(root), "test", partial=True)


def ids_of(image: DataFile) -> np.ndarray:
    with Image.open(str(image)) as picture:
        return IDS[np.asarray(picture)[..., 0] % CITYSCAPES.num_classes]


def save(folder: Path, name: str, pixels: np.ndarray | Image.Image) -> None:
    folder.mkdir(exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(folder / name)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder of results without a fault, in folders and with endings of their own."""
    for index, base in enumerate(BASES):
        save(tmp_path / "results", f"{base}{'_mine' * index}.png", np.full(SIZE, 7 + index, np.uint8))
    return tmp_path / "results"


def test_results_are_official_ids_of_the_images_size_under_official_names(images: Images) -> None:
    results = predict_results(predictor(), images)
    assert [result.name for result in results] == [f"{base}_pred_labelIds.png" for base in BASES]
    for result, (_, image) in zip(results, images, strict=True):
        picture = Image.open(io.BytesIO(result.content))
        assert (picture.mode, picture.size) == ("L", SIZE[::-1])
        assert np.array_equal(np.asarray(picture), ids_of(image))


def test_images_may_still_be_in_their_archive(root: Path, images: Images, tmp_path: Path) -> None:
    unpacked = predict_results(predictor(), images)
    zipped = write_cityscapes(tmp_path / "zipped", size=SIZE, splits=("test",), zipped=True)
    members = split_images(str(zipped), "test", partial=True)
    assert predict_results(predictor(), members) == unpacked
    assert check_results(unpacked, members) == []


def test_the_archive_holds_the_results_and_nothing_else(images: Images, tmp_path: Path) -> None:
    size = submit(predictor(), images, tmp_path / "out" / "a.zip")
    assert (tmp_path / "out" / "a.zip").stat().st_size == size
    with zipfile.ZipFile(tmp_path / "out" / "a.zip") as archive:
        assert archive.namelist() == [f"{base}_pred_labelIds.png" for base in BASES]
        assert archive.testzip() is None
        assert {info.date_time[0] for info in archive.infolist()} == {1980}  # no time: equal results, equal archives
    assert check_results(find_results(tmp_path / "out" / "a.zip"), images) == []


def test_equal_results_give_equal_archives(images: Images, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        submit(predictor(), images, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_progress_counts_images(images: Images) -> None:
    calls: list[tuple[int, int]] = []
    results = predict_results(predictor(), images, progress=lambda *call: calls.append(call))
    check_results(results, images, progress=lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)] * 2


def test_an_archive_that_exists_is_kept_and_nothing_is_predicted(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_text("mine")
    calls: list[object] = []
    with pytest.raises(OutputError, match=r"a\.zip exists already; replace it with --overwrite"):
        submit(predictor(), images, path, progress=lambda *call: calls.append(call))
    assert (path.read_text(), calls) == ("mine", [])
    submit(predictor(), images, path, overwrite=True)
    assert zipfile.is_zipfile(path)


def test_a_name_that_is_no_zip_is_refused(images: Images, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"does not end in \.zip"):
        submit(predictor(), images, tmp_path / "results")


def test_an_interrupted_run_leaves_nothing(images: Images, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        submit(predictor(), images, tmp_path / "a.zip", progress=interrupt)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_the_old_archive(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    results = predict_results(predictor(), images)
    with pytest.raises(OutputError, match="No space left"):
        pack_results(tmp_path / "a.zip", results, overwrite=True)
    assert (tmp_path / "a.zip").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_faulty_results_are_not_packed(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = predict_results
    monkeypatch.setattr(module, "predict_results", lambda *args, **kwargs: make(*args, **kwargs)[:1])
    with pytest.raises(OutputError, match=f"1 fault in the results, nothing was written: {BASES[1]}: no result"):
        submit(predictor(), images, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_a_network_of_other_classes_is_refused_before_an_image_is_read(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_image", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(FastsegError, match="the model predicts 11 classes and cityscapes has 19"):
        predict_results(Predictor(StridedModel(11), device="cpu"), images)
    with pytest.raises(FastsegError, match="the model predicts 4 classes and cityscapes has 19"):
        predict_results(Predictor(NearestColor(), device="cpu"), images)


def test_a_network_that_knows_void_is_refused(images: Images) -> None:
    model = StridedModel(20)
    known = replace(
        CITYSCAPES,
        class_names=(*CITYSCAPES.class_names, "void"),
        palette=(*CITYSCAPES.palette, (0, 0, 0)),
    )
    model.weights_info = WeightsInfo("strided", "toy", "", "", known)
    with pytest.raises(FastsegError, match="predicts 20 classes, and results have cityscapes' 19 only"):
        predict_results(Predictor(model, device="cpu"), images)


def test_a_split_that_is_not_complete_is_refused_unless_asked_for(root: Path) -> None:
    with pytest.raises(DataError, match=r"has 2 images in test, and 1525 were published.*--partial"):
        split_images(str(root), "test")


def test_as_many_images_as_were_published_need_no_option(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.COUNTS, "test", 2)
    assert [base for base, _ in split_images(str(root), "test")] == BASES


def test_good_results_of_others_have_no_fault(good: Path, images: Images) -> None:
    (good / "deeper").mkdir()
    (good / f"{BASES[0]}.png").rename(good / "deeper" / f"{BASES[0]}.png")
    (good / "readme.txt").write_text("not looked at")
    (good / f"._{BASES[0]}.png").write_text("left by a Mac")
    assert check_results(find_results(good), images) == []


def remove(folder: Path) -> None:
    (folder / f"{BASES[0]}.png").unlink()


def double(folder: Path) -> None:
    save(folder, f"{BASES[0]}_color.png", np.full(SIZE, 7, np.uint8))


def stranger(folder: Path) -> None:
    save(folder, "bonn_000000_000019.png", np.full(SIZE, 7, np.uint8))


def small(folder: Path) -> None:
    save(folder, f"{BASES[0]}.png", np.full((6, 10), 7, np.uint8))


def colour(folder: Path) -> None:
    save(folder, f"{BASES[0]}.png", np.full((*SIZE, 3), 7, np.uint8))


def deep(folder: Path) -> None:
    save(folder, f"{BASES[0]}.png", np.full(SIZE, 7, np.uint16))


def train_ids(folder: Path) -> None:
    pixels = np.full(SIZE, 7, np.uint8)
    pixels[0, :3] = 0, 18, 0
    save(folder, f"{BASES[0]}.png", pixels)


def void(folder: Path) -> None:
    pixels = np.full(SIZE, 33, np.uint8)
    pixels[0, 0] = 29
    save(folder, f"{BASES[0]}.png", pixels)


def cut(folder: Path) -> None:
    path = folder / f"{BASES[0]}.png"
    path.write_bytes(path.read_bytes()[:50])


def jpeg(folder: Path) -> None:
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(folder / f"{BASES[0]}.png", "JPEG")


FAULTS: dict[Callable[[Path], None], str] = {
    remove: f"{BASES[0]}: no result; a file {BASES[0]}*.png is expected",
    double: f"{BASES[0]}: 2 results, of which the server cannot choose: F/{BASES[0]}.png, F/{BASES[0]}_color.png",
    stranger: "F/bonn_000000_000019.png: there is no such image; remove the file",
    small: f"F/{BASES[0]}.png: is 10x6, but its image is 20x12",
    colour: f"F/{BASES[0]}.png: has 3 channels of 8 bits; a result has one channel of 8 bits",
    deep: f"F/{BASES[0]}.png: has 1 channel of 16 bits; a result has one channel of 8 bits",
    train_ids: f"F/{BASES[0]}.png: has values {{0: 2 px, 18: 1 px}} that are no class; allowed are {ALLOWED}. "
    "These look like train ids: write official ids",
    void: f"F/{BASES[0]}.png: has values {{29: 1 px}} that are no class; allowed are {ALLOWED}",
    jpeg: f"F/{BASES[0]}.png: is no PNG",
}


@pytest.mark.parametrize(("spoil", "fault"), FAULTS.items(), ids=[spoil.__name__ for spoil in FAULTS])
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_every_fault_is_told(
    spoil: Callable[[Path], None], fault: str, zipped: bool, good: Path, images: Images
) -> None:
    spoil(good)
    place = f"{good}/"
    if zipped:
        with zipfile.ZipFile(good.parent / "results.zip", "w") as archive:
            for path in good.iterdir():
                archive.write(path, path.name)
        good, place = good.parent / "results.zip", f"{good.parent / 'results.zip'}!"
    assert check_results(find_results(good), images) == [fault.replace("F/", place)]


def test_a_damaged_result_is_a_fault(good: Path, images: Images) -> None:
    cut(good)
    (fault,) = check_results(find_results(good), images)
    assert fault.startswith(f"{good / BASES[0]}.png: ")
    assert "damaged or incomplete" in fault


def test_all_faults_are_told_at_once(good: Path, images: Images) -> None:
    small(good)
    void_in_small = np.full((6, 10), 29, np.uint8)
    save(good, f"{BASES[1]}_mine.png", void_in_small)
    stranger(good)
    assert len(check_results(find_results(good), images)) == 4


def test_what_is_no_folder_and_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        find_results(tmp_path / "nowhere")
    (tmp_path / "a.zip").write_text("text")
    with pytest.raises(ImageReadError, match="is no zip archive"):
        find_results(tmp_path / "a.zip")


def test_an_image_that_cannot_be_read_is_named(root: Path, good: Path, images: Images) -> None:
    Path(str(images[0][1])).write_text("nothing")
    with pytest.raises(ImageReadError, match=f"{BASES[0]}_leftImg8bit.png .7 bytes. is no image"):
        check_results(find_results(good), images)
