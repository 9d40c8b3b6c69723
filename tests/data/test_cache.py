"""The cache on disk: the same arrays, built once, never half, never stale."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from fastseg.config import AugmentConfig
from fastseg.data import build_dataset
from fastseg.data.cache import DiskCachedDataset, _amount, default_folder, disk_cached, find_cache
from fastseg.data.cache_file import PAGE, CacheFile
from fastseg.data.coding import Values
from fastseg.data.dataset import ConcatDataset, FileDataset, SegDataset
from fastseg.data.headers import image_size
from fastseg.data.loader import Batch, StreamSampler, training_loader
from fastseg.engine.train import train
from fastseg.errors import ConfigError, DataError, ImageReadError, LabelError, OutputError
from fastseg.types import DatasetInfo, Sample
from workers import short_config

INFO = DatasetInfo("farm", ("field", "barn"), ((0, 99, 0), (99, 0, 0)))
CODING = Values.of((1, 7), (0,), "farm")


def write_farm(root: Path, count: int = 5) -> list[Sample]:
    """Pictures of different sizes with labels beside them."""
    root.mkdir(parents=True, exist_ok=True)
    samples = []
    for index in range(count):
        random = np.random.default_rng(index)
        height, width = 20 + 7 * index, 31 + 3 * index
        image, label = root / f"{index}.png", root / f"{index}_label.png"
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(image)
        Image.fromarray(random.choice(np.array([0, 1, 7], np.uint8), (height, width))).save(label)
        samples.append(Sample(image, label))
    return samples


class Farm(NamedTuple):
    root: Path
    samples: list[Sample]
    folder: Path  # of the cache

    def dataset(self) -> FileDataset:
        dataset = FileDataset(INFO, self.samples, CODING)
        dataset.origin = f"farm train {self.root}"
        return dataset

    def cached(self) -> tuple[SegDataset, str]:
        """The data set from its cache, and what was said."""
        said: list[str] = []
        return disk_cached(self.dataset(), self.folder, say=said.append), "\n".join(said)

    @property
    def file(self) -> Path:
        (path,) = self.folder.glob("*.cache")
        return path


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path / "farm", write_farm(tmp_path / "farm"), tmp_path / "cache")


def assert_equal(one: SegDataset, other: SegDataset) -> None:
    assert len(one) == len(other)
    for index in range(len(one)):
        for a, b in zip(one.load(index), other.load(index), strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
        assert np.array_equal(one.load_label(index), other.load_label(index))
        assert one.size(index) == other.size(index)
        assert one.sample_name(index) == other.sample_name(index)
        assert one.identity(index) == other.identity(index)


def test_a_cached_data_set_is_the_data_set(farm: Farm) -> None:
    cached, said = farm.cached()
    assert isinstance(cached, DiskCachedDataset)
    assert_equal(cached, farm.dataset())
    assert said.splitlines()[0].startswith(f"cache: decoding 5 samples of farm into {farm.file}: 41 kB, ")
    assert "GB free there" in said


def test_the_second_run_decodes_nothing_and_says_that_it_reads_the_cache(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = farm.cached()
    expected = [first.load(index) for index in range(5)]
    monkeypatch.setattr(FileDataset, "load", None)
    second, said = farm.cached()
    assert said == f"cache: reading 5 samples from {farm.file} (41 kB)"
    for index in range(5):
        assert np.array_equal(second.load(index)[0], expected[index][0])


def test_arrays_are_views_that_cannot_be_written_to_and_a_sample_begins_a_page(farm: Farm) -> None:
    cached, _ = farm.cached()
    assert isinstance(cached, DiskCachedDataset)
    for array in cached.load(2):
        assert not array.flags.writeable
        assert not array.flags.owndata
    assert (cached.file.table["place"] % PAGE == 0).all()


def test_a_cache_larger_than_memory_gives_the_same_arrays(farm: Farm) -> None:
    cached, _ = farm.cached()
    assert isinstance(cached, DiskCachedDataset)
    cached.file = CacheFile(cached.file.path, fits=False)
    assert_equal(cached, farm.dataset())


def test_the_size_is_said_before_anything_is_decoded(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def load(self: FileDataset, index: int) -> tuple[np.ndarray, np.ndarray]:
        assert said, "decoded before the size was said"
        raise LabelError("seen")

    monkeypatch.setattr(FileDataset, "load", load)
    with pytest.raises(LabelError, match="seen"):
        disk_cached(farm.dataset(), farm.folder, say=said.append)
    assert len(said) == 1


def touch(farm: Farm, index: int) -> None:
    """Paint a picture anew, at another size."""
    path = farm.samples[index].image
    assert isinstance(path, Path)
    height, width = np.asarray(Image.open(path)).shape[:2]
    Image.new("RGB", (width + 2, height), (1, 2, 3)).save(path)
    label = farm.samples[index].label
    Image.fromarray(np.full((height, width + 2), 7, np.uint8)).save(label)  # type: ignore[arg-type]
    for file in (path, label):
        os.utime(file, ns=(time.time_ns(), time.time_ns() + 1))  # type: ignore[arg-type]


def change_image(farm: Farm) -> Farm:
    touch(farm, 1)
    return farm


def change_label(farm: Farm) -> Farm:
    """Paint a label anew, its image left alone."""
    path = farm.samples[1].label
    assert isinstance(path, Path)
    label = np.asarray(Image.open(path))
    Image.fromarray(np.where(label == 7, 1, 7).astype(np.uint8)).save(path)
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 1))
    return farm


def add_sample(farm: Farm) -> Farm:
    return farm._replace(samples=write_farm(farm.root, 6))


def remove_sample(farm: Farm) -> Farm:
    return farm._replace(samples=farm.samples[:2] + farm.samples[3:])


def reorder(farm: Farm) -> Farm:
    return farm._replace(samples=farm.samples[::-1])


@pytest.mark.parametrize("change", [change_image, change_label, add_sample, remove_sample, reorder])
def test_a_change_of_the_files_builds_the_cache_anew_in_its_place(farm: Farm, change: Callable[[Farm], Farm]) -> None:
    before = farm.cached()[0], farm.file
    old = [tuple(array.copy() for array in before[0].load(index)) for index in range(5)]
    farm = change(farm)
    cached, said = farm.cached()
    assert "cache: decoding" in said
    assert_equal(cached, farm.dataset())
    assert farm.file == before[1]  # one file, of the same name
    for index in range(5):  # a run that had mapped the old file goes on with it
        for a, b in zip(before[0].load(index), old[index], strict=True):
            assert np.array_equal(a, b)


def test_what_did_not_change_is_not_decoded_again(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    farm.cached()
    touch(farm, 1)
    decoded = []
    load = FileDataset.load

    def counting(self: FileDataset, index: int) -> tuple[np.ndarray, np.ndarray]:
        decoded.append(index)
        return load(self, index)

    monkeypatch.setattr(FileDataset, "load", counting)
    _, said = farm.cached()
    assert decoded == [1]
    assert "decoding 1 sample of farm" in said
    assert "4 unchanged and copied" in said


def test_another_coding_of_the_same_files_is_another_cache(farm: Farm) -> None:
    farm.cached()
    other = FileDataset(INFO, farm.samples, Values.of((7, 1), (0,), "farm"))
    other.origin = farm.dataset().origin
    assert_equal(disk_cached(other, farm.folder, say=print), other)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - PAGE)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def lose_the_table(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(60)
        file.write(b"\0" * 8)


def age(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(8)
        file.write(b"\xff\xff\0\0")  # the version


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize("damage", [cut, cut_to_nothing, lose_the_table, age, grow])
def test_a_damaged_cache_is_found_out_and_built_anew(farm: Farm, damage: Callable[[Path], None]) -> None:
    farm.cached()
    damage(farm.file)
    with pytest.raises(DataError, match="cache"):
        CacheFile(farm.file)
    cached, said = farm.cached()
    assert re.match(rf"cache: {re.escape(str(farm.file))} .+; it is built anew\ncache: decoding 5 samples", said)
    assert_equal(cached, farm.dataset())


def test_a_cache_that_is_not_there_is_no_damage(farm: Farm) -> None:
    assert "built anew" not in farm.cached()[1]


def test_caches_of_the_split_at_other_roots_are_named_with_their_size_when_one_is_built(farm: Farm) -> None:
    elsewhere = []
    for number in range(2):
        other = farm._replace(root=farm.root / str(number))
        _, said = other.cached()
        elsewhere = [path.name for path in farm.folder.glob("*.cache")]
    assert "1 other cache of this data set and split" in said
    for name in ("farm-val-0123456789ab.cache", "farm-train-mine.cache"):  # another split's, and not ours
        (farm.folder / name).write_bytes(b"x" * 10**6)
    _, said = farm.cached()
    assert said.splitlines()[-2] == (
        f"cache: 2 other caches of this data set and split (another data.root or data.args) in {farm.folder} take "
        f"82 kB; delete what no run uses: {', '.join(sorted(elsewhere))}"
    )
    _, said = farm.cached()
    assert "other caches" not in said  # built already: once is enough


@pytest.mark.parametrize(
    ("size", "text"),
    [(86_016, "86 kB"), (3_240_000, "3.2 MB"), (999_000_000, "999.0 MB"), (52_400_000_000, "52.40 GB")],
)
def test_sizes_are_said_in_the_unit_that_shows_them(size: int, text: str) -> None:
    assert _amount(size) == text


def test_joined_splits_share_the_cache_of_each(farm: Farm) -> None:
    others = write_farm(farm.root / "more", 2)
    more = FileDataset(INFO, others, CODING)
    joined = ConcatDataset([farm.dataset(), more])
    assert_equal(disk_cached(joined, farm.folder, say=print), joined)
    assert "cache: decoding" not in farm.cached()[1]
    assert len(list(farm.folder.glob("*.cache"))) == 2


def test_an_undefined_label_is_its_own_error_and_leaves_no_cache(farm: Farm) -> None:
    Image.fromarray(np.full((34, 37), 9, np.uint8)).save(str(farm.samples[2].label))
    with pytest.raises(LabelError, match=r"2_label\.png has values \{9: 1258 px\}"):
        farm.cached()
    assert [path.name for path in farm.folder.iterdir() if not path.name.endswith(".lock")] == []


def test_a_disk_that_is_too_small_is_refused_with_both_numbers(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 20_000))
    with pytest.raises(
        OutputError, match=r"farm needs .*\(40960 bytes\) decoded and .*cache has .*\(20000 bytes\) free;"
    ):
        farm.cached()
    assert not list(farm.folder.glob("*.cache"))


def test_a_stale_cache_makes_room_for_its_successor(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    farm.cached()
    touch(farm, 0)
    file = farm.file

    def usage(_: object) -> Any:
        free = 20_000 if file.exists() else 10**9
        return shutil._ntuple_diskusage(10**12, 10**12, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    cached, said = farm.cached()
    assert "decoding 5 samples" in said
    assert_equal(cached, farm.dataset())


def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(farm: Farm) -> None:
    farm.folder.write_text("a file")
    with pytest.raises(
        OutputError, match=r"cache cannot be written: .*; choose another folder \(data\.cache_dir=\.\.\.\)"
    ):
        farm.cached()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_serves_a_cache_and_refuses_to_build_one(farm: Farm) -> None:
    farm.cached()
    farm.folder.chmod(0o555)
    try:
        assert_equal(farm.cached()[0], farm.dataset())
        touch(farm, 0)
        with pytest.raises(OutputError, match="cannot be written"):
            farm.cached()
    finally:
        farm.folder.chmod(0o755)


def test_a_cache_is_used_where_no_lock_can_be_taken(farm: Farm) -> None:
    farm.cached()
    lock = farm.file.with_name(f"{farm.file.name}.lock")
    lock.unlink()
    lock.mkdir()
    assert_equal(farm.cached()[0], farm.dataset())


def test_a_data_set_without_identities_is_refused_and_offered_the_memory() -> None:
    scenes = build_dataset("road_scenes", "val", args={"count": 2, "height": 32, "width": 64})
    if scenes.identity(0) is not None:
        pytest.skip("road scenes have identities now")
    with pytest.raises(ConfigError, match=r"road_scenes have no identity .* use data\.cache=memory or none"):
        disk_cached(scenes, "/nowhere")


def test_find_cache_builds_nothing(farm: Farm) -> None:
    assert find_cache(farm.dataset(), farm.folder) is None
    assert not farm.folder.exists()
    farm.cached()
    found = find_cache(farm.dataset(), farm.folder)
    assert found is not None
    assert_equal(found, farm.dataset())
    touch(farm, 0)
    assert find_cache(farm.dataset(), farm.folder) is None


def test_the_default_folder_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "fastseg"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "fastseg"


def test_a_copy_in_another_process_maps_the_file_instead_of_copying_it(farm: Farm) -> None:
    cached, _ = farm.cached()
    packed = pickle.dumps(cached)
    assert len(packed) < 4000 < farm.file.stat().st_size
    assert_equal(pickle.loads(packed), farm.dataset())
    touch(farm, 0)
    farm.cached()
    with pytest.raises(DataError, match="built anew while it was in use; start again"):
        pickle.loads(packed)


def test_an_image_whose_header_lies_is_refused(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileDataset, "size", lambda self, index: (3, 3))
    with pytest.raises(DataError, match="sample 0 is 31x20 and its image's header says 3x3"):
        farm.cached()


# several processes


def python(code: str, farm: Farm) -> subprocess.Popen[str]:
    """Python with `dataset` and `folder` of the farm; `slow(seconds)` delays every load."""
    begin = f"""
        import sys, time
        sys.path[:0] = {[str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]!r}
        from pathlib import Path
        from fastseg.data.cache import disk_cached
        from fastseg.data.coding import Values
        from fastseg.data.dataset import FileDataset
        from fastseg.types import DatasetInfo, Sample
        names = [(f"{{i}}.png", f"{{i}}_label.png") for i in range(5)]
        root, folder = Path({str(farm.root)!r}), {str(farm.folder)!r}
        info = DatasetInfo("farm", ("field", "barn"), ((0, 99, 0), (99, 0, 0)))
        samples = [Sample(root / image, root / label) for image, label in names]
        dataset = FileDataset(info, samples, Values.of((1, 7), (0,), "farm"))
        dataset.origin = {farm.dataset().origin!r}
        load = FileDataset.load
        def slow(seconds):
            def slowly(self, index):
                time.sleep(seconds)
                return load(self, index)
            FileDataset.load = slowly
        def say(text):
            print(text, flush=True)
    """
    program = textwrap.dedent(begin) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_of_two_processes_one_builds_and_the_other_waits_and_both_are_right(farm: Farm) -> None:
    code = """
        slow(0.3)
        cached = disk_cached(dataset, folder, say=say)
        print(all((a == b).all() for i in range(5) for a, b in zip(cached.load(i), load(dataset, i))))
    """
    both = [python(code, farm) for _ in range(2)]
    said = [process.communicate(timeout=100)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("cache: decoding" in text for text in said) == 1
    assert all(text.splitlines()[-1] == "True" for text in said)
    waited = next(text for text in said if "cache: decoding" not in text)
    # unless it came so late that the file was there
    assert waited.startswith(("cache: waiting for process ", "cache: reading 5 samples"))


def test_a_build_that_was_killed_leaves_nothing_that_counts(farm: Farm) -> None:
    with python("slow(60)\ndisk_cached(dataset, folder, say=say)", farm) as process:
        assert process.stdout is not None
        assert "cache: decoding" in process.stdout.readline()
        while not list(farm.folder.glob(".*.tmp")):
            assert process.poll() is None
        process.kill()
    assert not list(farm.folder.glob("*.cache"))
    cached, said = farm.cached()
    assert "decoding 5 samples" in said
    assert_equal(cached, farm.dataset())
    assert not list(farm.folder.glob(".*.tmp"))  # what the dead one left is gone


# in training


def batches(dataset: SegDataset, workers: int) -> list[Batch]:
    sampler = StreamSampler(5, batch_size=2, rank=0, world_size=1, seed=9, start=0, stop=4)
    config = AugmentConfig(crop=(24, 40), rotate=5)
    loader = training_loader(
        dataset, config, input_scale=1.0, seed=9, sampler=sampler, workers=workers, pin_memory=False
    )
    return list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_the_cache(farm: Farm, workers: int) -> None:
    for a, b in zip(batches(farm.dataset(), 0), batches(farm.cached()[0], workers), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert a.names == b.names


def test_a_run_ends_with_the_same_weights_whatever_its_cache(farm: Farm, light_runs: None) -> None:
    weights = {}
    for name, first, then in (("none", "none", None), ("disk", "disk", None), ("resumed", "disk", "none")):
        config = short_config(farm.root / "runs" / name)
        config.data.name, config.data.args, config.data.root = "camvid", {}, str(camvid_tree(farm.root / "camvid"))
        config.data.val_split = "train"
        config.data.cache = first  # type: ignore[assignment]
        config.data.cache_dir = str(farm.folder)
        config.train.checkpoint_every = 2
        train(config)
        if then is not None:
            newest = sorted((Path(config.run_dir) / "checkpoints").glob("step_*.pt"))
            for path in newest[1:]:
                path.unlink()
            config.data.cache = then  # type: ignore[assignment]
            train(config, resume="auto")
        weights[name] = load_file(Path(config.run_dir) / "last.safetensors")
    assert len(list(farm.folder.glob("*.cache"))) == 1
    for name in ("disk", "resumed"):
        assert all(torch.equal(weights["none"][key], weights[name][key]) for key in weights["none"])


def camvid_tree(root: Path) -> Path:
    if not root.exists():
        scenes = build_dataset("road_scenes", "train", args={"count": 4, "height": 32, "width": 64})
        for folder in ("train", "trainannot"):
            (root / folder).mkdir(parents=True)
        for index in range(4):
            image, label = scenes.load(index)
            Image.fromarray(image).save(root / "train" / f"{index}.png")
            Image.fromarray(label.clip(0, 10)).save(root / "trainannot" / f"{index}.png")
    return root


# headers


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm", "gif"])
@given(height=st.integers(1, 60), width=st.integers(1, 60))
@settings(max_examples=5, deadline=None)
def test_the_size_of_an_image_is_in_its_header(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, height: int, width: int
) -> None:
    path = tmp_path_factory.mktemp("sizes") / f"a.{suffix}"
    Image.new("RGB", (width, height)).save(path)
    assert image_size(path) == (height, width)


def test_a_header_behind_much_else_is_found_and_none_is_the_readers_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (40, 30)).save(path)
    data = path.read_bytes()
    comment = b"\xff\xfe\xff\xff" + b"x" * 65533  # the longest that JPEG allows; two are more than is read at first
    path.write_bytes(data[:2] + 2 * comment + data[2:])
    assert image_size(path) == (30, 40)
    path.write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"a\.jpg \(8 bytes\) is no image"):
        image_size(path)
