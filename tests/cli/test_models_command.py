"""`fastseg models`: a table, filters, details, JSON, backbones and heads, without building every network."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fastseg.cli import main
from fastseg.cli.models import number, short_metric, short_score
from fastseg.models import BACKBONES, HEADS, MODELS
from fastseg.models.papers import PAPERS

SMALL_NETS = ("dfanet_a", "dfanet_b", "espnet", "espnet_c")  # below 2 M parameters and 20 GMACs


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["models", *arguments, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_the_table_has_a_line_for_every_network_within_120_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(MODELS)]] == MODELS.names()
    assert max(map(len, lines)) <= 120
    (line,) = [line for line in lines if line.startswith("fast_scnn ")]
    assert " ".join(line.split()) == "fast_scnn 1,138,051 6.71 8 68.0 test (paper) 57.55 CamVid test Apache-2.0"


def test_the_table_ends_with_the_terms_of_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "licence: of the code. Weights have their own terms" in text
    assert "published for research without a stated licence: ask its authors before commercial use" in text


def test_listing_builds_no_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in MODELS.names():
        monkeypatch.setitem(MODELS._builders, name, pytest.fail)
    assert main(["models"]) == 0
    assert "fast_scnn" in capsys.readouterr().out


def test_json_holds_every_fact_of_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    rows = as_json(capsys)
    assert [row["name"] for row in rows] == MODELS.names()
    assert all({"512x1024", "1024x2048"} <= row["gmacs"].keys() for row in rows)
    assert all(score["source"] for row in rows for score in row["published"])
    (row,) = [row for row in rows if row["name"] == "fast_scnn"]
    assert row["aux"] == {"detail": 8, "context": 32}
    assert (row["parameters"], row["parameters_training"], row["stride"]) == (1_138_051, 1_194_729, 8)
    assert row["gmacs"]["512x1024"] == pytest.approx(1.68, abs=0.005)
    assert row["reference"]["parameters"] == 1_138_051
    assert [weights["name"] for weights in row["weights"]] == ["camvid", "road_scenes"]
    assert row["arguments"]["pyramid_fuse_kernel"] == 1


def test_one_network_is_shown_with_arguments_auxiliary_outputs_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fast_scnn"]) == 0
    text = capsys.readouterr().out
    for part in (
        "https://arxiv.org/abs/1902.04502",
        "1,138,051; 1,194,729 with auxiliary heads",
        "1.68 at 512x1024, 6.71 at 1024x2048",
        "detail (stride 8), context (stride 32)",
        "68.0 on test: paper, abstract",
        "Tramac/awesome-semantic-segmentation-pytorch",
        "pyramid_fuse_kernel=1",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "keep"),
    [
        (["*scnn*"], lambda row: "scnn" in row["name"]),
        (["--pretrained"], lambda row: row["weights"]),
        (["--max-params", "1.5M"], lambda row: row["parameters"] <= 1_500_000),
        (["--max-params", "900k"], lambda row: row["parameters"] <= 900_000),
        (["--max-params", "1138051"], lambda row: row["parameters"] <= 1_138_051),
        (["--max-gmacs", "10"], lambda row: row["gmacs"]["1024x2048"] <= 10),
        (["*net*", "--max-params", "2M", "--max-gmacs", "20"], lambda row: row["name"] in SMALL_NETS),
    ],
)
def test_filters_keep_what_they_say(capsys: pytest.CaptureFixture[str], arguments: list[str], keep: Any) -> None:
    rows = as_json(capsys)
    kept = as_json(capsys, *arguments)
    assert kept == [row for row in rows if keep(row)]
    assert 0 < len(kept) < len(rows)


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", lambda row: row["name"]), ("params", lambda row: row["parameters"]), ("gmacs", lambda row: full(row))],
)
def test_sorting_puts_the_smallest_first(capsys: pytest.CaptureFixture[str], key: str, value: Any) -> None:
    values = [value(row) for row in as_json(capsys, "--sort", key)]
    assert values == sorted(values)
    assert len(values) == len(MODELS)


def full(row: dict[str, Any]) -> float:
    return float(row["gmacs"]["1024x2048"])


def test_backbones_have_parameters_strides_and_channels(capsys: pytest.CaptureFixture[str]) -> None:
    rows = as_json(capsys, "--backbones")
    assert [row["name"] for row in rows] == BACKBONES.names()
    (row,) = as_json(capsys, "--backbones", "resnet18")
    assert (row["strides"], row["channels"]) == ([4, 8, 16, 32], [64, 128, 256, 512])
    assert row["parameters"] == 11_689_512 - 513_000  # torchvision's, without the classifier
    assert row["pretrained"]
    assert main(["models", "--backbones", "resnet18"]) == 0
    text = capsys.readouterr().out
    assert "output_stride=32" in text
    assert "timm:NAME" in text


def test_heads_have_parameters_and_stride(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["name"] for row in as_json(capsys, "--heads")] == HEADS.names()
    (row,) = as_json(capsys, "--heads", "fcn")
    assert (row["parameters"], row["stride"]) == (9 * 512 * 128 + 256 + 129 * 19, 32)
    assert row["arguments"].keys() == {"channels", "dropout"}
    assert main(["models", "--heads", "fcn"]) == 0
    assert "dropout=0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["fast_scn"], ["no model matches 'fast_scn'", "did you mean 'fast_scnn'"]),
        (["--backbones", "resnet19"], ["no backbone matches 'resnet19'", "resnet18"]),
        (["--heads", "fnc"], ["no head matches 'fnc'", "fcn"]),
        (["--max-params", "many"], ["'many' is no number", "5M"]),
        (["--max-params", "1.2.3M"], ["'1.2.3M' is no number"]),
        (["--max-params", "10"], ["meets the other conditions", "the smallest is espnet_c with 349,193 parameters"]),
        (["dfanet_a", "--pretrained"], ["that match 'dfanet_a'"]),
        (["--heads", "--sort", "params"], ["--sort", "are for networks"]),
        (["--heads", "--backbones"], ["--backbones", "not allowed with", "--heads"]),
        (["--sort", "size"], ["'size'", "params"]),
    ],
)
def test_a_mistake_is_answered_with_what_is_allowed(
    arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *arguments]) == 2
    error = capsys.readouterr().err
    for part in parts:
        assert part in error


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("57.55 mIoU on CamVid test (233 images, 480x360, one pass), 2026-11-21", "57.55 CamVid test"),
        ("75.1 mIoU on Cityscapes val, 2026-12-01", "75.1 Cityscapes val"),
        ("", ""),
    ],
)
def test_a_measured_score_is_shortened_to_number_and_data(text: str, short: str) -> None:
    assert short_metric({"metric_measured": text}) == short


def test_gmacs_are_written_with_three_digits_or_more() -> None:
    assert [number(gmacs) for gmacs in (0.966, 6.713, 27.76, 103.72, 2094.29)] == [
        "0.97",
        "6.71",
        "27.8",
        "103.7",
        "2,094",
    ]


def test_a_published_score_is_shortened_to_its_source_and_keeps_its_caveat() -> None:
    score = {"miou": 75.5, "split": "test", "source": "paper, table 3"}
    assert short_score({"published": [score], "caveat": ""}) == "75.5 test (paper)"
    assert (
        short_score({"published": [score], "caveat": "reconstructed here"}) == "75.5 test (paper; reconstructed here)"
    )
    assert short_score({"published": [], "caveat": ""}) == ""


def test_scores_that_nobody_reproduced_say_so_in_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "dfanet_a"]) == 0
    assert "71.3 test (paper; not reproduced)" in capsys.readouterr().out
    monkeypatch.setitem(PAPERS, "dfanet_a", replace(PAPERS["dfanet_a"], caveat=""))
    assert main(["models", "dfanet_a"]) == 0
    assert "71.3 test (paper)" in capsys.readouterr().out
