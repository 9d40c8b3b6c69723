"""Folders in, mirrored folders out; one bad file does not stop the rest, and nothing else is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastseg.data.readers import IMAGE_SUFFIXES, read_label
from fastseg.engine.export import export_model
from fastseg.errors import ConfigError, DataError, ImageReadError, MissingFileError, OutputError
from fastseg.folders import find_inputs, predict_files
from fastseg.output import Prediction
from fastseg.predict import Predictor
from fastseg.types import SegOutput
from toys import RANDOM, NearestColor, RedEdges, save_image, tree


@pytest.fixture(scope="module")
def exact() -> Predictor:
    return Predictor(NearestColor(), device="cpu")


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
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("[!.]*") if path.is_file()}
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
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["a_overlay.png"]


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
    assert len(list((folder / "out").iterdir())) == 4  # two results, failures.json and the journal


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


def test_a_failures_json_of_someone_else_is_never_touched(exact: Predictor, tmp_path: Path) -> None:
    (tmp_path / "failures.json").write_text('{"my": "notes"}')
    save_image(tmp_path / "in" / "a.png")
    assert predict_files(exact, [tmp_path / "in"], tmp_path, kinds=["ids"]).exit_code == 0
    assert predict_files(exact, [tmp_path / "in"], tmp_path, kinds=["ids"]).exit_code == 1  # exists already
    assert (tmp_path / "failures.json").read_text() == '{"my": "notes"}'


def test_neighbours_of_one_size_run_together_and_give_what_they_give_alone(tmp_path: Path) -> None:
    predictor, seen = Predictor(NearestColor(), device="cpu"), []
    predictor.deployed.network.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    for index, shape in enumerate([(6, 9)] * 4 + [(5, 5)] + [(6, 9)]):
        save_image(tmp_path / "in" / f"{index}.png", RANDOM.integers(0, 4, shape))
    (tmp_path / "in" / "2b.png").write_bytes(b"broken")
    summary = predict_files(predictor, [tmp_path / "in"], tmp_path / "together", kinds=["ids"], batch_size=3)
    assert seen == [3, 1, 1, 1]  # 0 1 2, broken, 3, another size, 5
    assert [path.name for path, _ in summary.failed] == ["2b.png"]
    assert [path.name for path in summary.done] == [f"{index}.png" for index in range(6)]
    predict_files(predictor, [tmp_path / "in"], tmp_path / "alone", kinds=["ids"])
    assert {k: v for k, v in tree(tmp_path / "together").items() if k.endswith(".png")} == {
        k: v for k, v in tree(tmp_path / "alone").items() if k.endswith(".png")
    }
    with pytest.raises(ConfigError, match="batch size is 0"):
        predict_files(predictor, [tmp_path / "in"], tmp_path / "out", batch_size=0)


def test_an_image_that_fails_in_a_batch_fails_alone(tmp_path: Path) -> None:
    class Fussy(NearestColor):
        """Gives NaN for images that are blue in their first pixel."""

        def forward(self, images: Tensor) -> SegOutput:
            logits = super().forward(images).logits
            blue = logits[..., 0, 0].argmax(dim=1) == 2
            return SegOutput(torch.where(blue[:, None, None, None], torch.nan, logits), {})

    for index, number in enumerate((0, 2, 1)):
        save_image(tmp_path / "in" / f"{index}.png", np.full((4, 4), number))
    predictor = Predictor(Fussy(), device="cpu")
    summary = predict_files(predictor, [tmp_path / "in"], tmp_path / "out", kinds=["ids"], batch_size=3)
    assert [path.name for path in summary.done] == ["0.png", "2.png"]
    assert [path.name for path, _ in summary.failed] == ["1.png"]
    assert "1.png" in summary.failed[0][1]


def test_an_interrupt_leaves_whole_files_only(exact: Predictor, tmp_path: Path) -> None:
    for index in range(12):
        save_image(tmp_path / "in" / f"{index:02}.png")
    calls = 0

    def predict(file: Path, *, max_pixels: int) -> Prediction:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return exact(file, max_pixels=max_pixels)

    with pytest.raises(KeyboardInterrupt):
        predict_files(predict, [tmp_path / "in"], tmp_path / "out", kinds=["ids", "overlay"])
    for path in (tmp_path / "out").glob("[!.]*"):
        assert path.suffix == ".png"
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert calls == 6


def test_what_a_predictor_does_not_give_is_one_error_before_the_first_image(tmp_path: Path) -> None:
    file = save_image(tmp_path / "a.png")
    within_memory = Predictor(RedEdges(), device="cpu", max_mem="1GB")
    with pytest.raises(ConfigError, match="not for edges"):
        predict_files(within_memory, [file], tmp_path / "out", kinds=["edges"])
    exported = Predictor(export_model(NearestColor().eval(), tmp_path / "net.pt2").path)
    with pytest.raises(ConfigError, match="exported file, which gives no confidence"):
        predict_files(exported, [file], tmp_path / "out", kinds=["ids", "confidence"])
    assert not (tmp_path / "out").exists()


def test_confidence_is_saved_where_it_is_wanted(exact: Predictor, tmp_path: Path) -> None:
    picture = save_image(tmp_path / "in/a.png")
    summary = predict_files(exact, [picture], tmp_path / "out", kinds=["confidence", "ids"])
    assert [path.name for path in summary.written] == ["a_confidence.png", "a_ids.png"]
    # exp(-8) beside 1: pure colours are told apart with a probability of more than 0.999
    assert read_label(tmp_path / "out" / "a_confidence.png").min() >= 254


def test_edges_are_asked_of_the_predictor_only_where_they_are_wanted(tmp_path: Path) -> None:
    asked: list[bool] = []
    predictor = Predictor(RedEdges())

    def predict(file: Path, *, max_pixels: int, edges: bool = False) -> Prediction:
        asked.append(edges)
        return predictor(file, max_pixels=max_pixels, edges=edges)

    picture = save_image(tmp_path / "in/a.png")
    predict_files(predict, [picture], tmp_path / "plain")
    predict_files(predict, [picture], tmp_path / "edges", kinds=["edges", "ids"])
    assert asked == [False, True]
    assert {path.name for path in (tmp_path / "edges").glob("[!.]*")} == {"a_edges.png", "a_ids.png"}
