"""Every network is as large, as costly and as fine as its reference; the stored counts and tables say what is counted.

The expectations are written by hand: what public implementations have, counted on them with 19 classes in eval mode.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fastseg.errors import UnknownNameError
from fastseg.models import MODELS
from fastseg.models import facts as facts_module
from fastseg.models.facts import FULL, HALF, ModelFacts, measure, model_facts, stored_facts
from fastseg.models.papers import PAPERS
from fastseg.types import SegModel, SegOutput

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Expected:
    """`gmacs` maps sizes to billions of multiply-adds, counted with `options`; `aux` maps names to strides.

    None is the stride of what speaks of the image as a whole.
    """

    parameters: int
    parameters_training: int
    gmacs: dict[str, float]
    stride: int
    aux: dict[str, int | None] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)


# torchvision's ResNets without their classifiers, and Gated-SCNN beside one: shape stream and fusion of edges, sides of
# the gates, ASPP with its edge branch, 1x1 to 256, fine map, head
RESNET50, RESNET101 = 25_557_032 - 2_049_000, 44_549_160 - 2_049_000
GSCNN = (
    (103_016 + 2)
    + (512 + 1024 + 2048 + 3)
    + (2 * (2048 * 256 + 512) + 3 * (9 * 2048 * 256 + 512) + 256 + 512)
    + 6 * 256 * 256
    + 256 * 48
    + (9 * 304 * 256 + 512 + 9 * 256 * 256 + 512 + 256 * 19)
)

EXPECTED = {
    # TorchSeg, cityscapes.bisenet.{R18,X39}.speed
    "bisenet_r18": Expected(
        12_894_163, 13_194_489, {HALF: 25.9, FULL: 103.7}, stride=8, aux={"context16": 16, "context8": 8}
    ),
    "bisenet_x39": Expected(
        1_541_963, 1_842_289, {HALF: 6.94, FULL: 27.8}, stride=8, aux={"context16": 16, "context8": 8}
    ),
    # no public code of the authors: our reading of the paper, which has 1.7 and 3.4 G for A at these sizes
    "dfanet_a": Expected(1_831_051, 1_831_051, {HALF: 1.835, "1024x1024": 3.668}, stride=4),
    "dfanet_b": Expected(1_099_883, 1_099_883, {HALF: 0.967, FULL: 3.865}, stride=4),
    # prototxt files of lixincn2015/Partial-Order-Pruning
    "dfseg_df1": Expected(13_107_243, 13_107_243, {FULL: 41.6}, stride=8),
    "dfseg_df2_1": Expected(22_498_216, 22_498_216, {FULL: 84.3}, stride=8),
    "dfseg_df2_2": Expected(24_115_147, 24_115_147, {FULL: 95.3}, stride=8),
    # torchvision's ResNet-18 without its classifier, and FCN heads: 3x3 to a quarter of the channels, norm, 1x1
    "encoder_decoder": Expected(
        11_689_512 - 513_000 + (9 * 512 * 128 + 256 + 129 * 19),
        11_689_512 - 513_000 + (9 * 512 * 128 + 256 + 129 * 19) + (9 * 256 * 64 + 128 + 65 * 19),
        {HALF: 19.25, FULL: 77.01},
        stride=32,
        aux={"auxiliary": 16},
    ),
    # sacmehta/ESPNet, test/Model.py with p=2, q=8; ESPNet-C is 349,449 at 20 classes
    "espnet": Expected(362_949, 362_949, {HALF: 4.60}, stride=1),
    "espnet_c": Expected(349_449 - 256, 349_449 - 256, {HALF: 3.47}, stride=8),
    # Tramac/awesome-semantic-segmentation-pytorch, models/fast_scnn.py; auxiliary heads as in mmsegmentation
    "fast_scnn": Expected(
        1_138_051, 1_138_051 + 56_678, {HALF: 1.68, FULL: 6.71}, stride=8, aux={"detail": 8, "context": 32}
    ),
    # wuhuikai/FastFCN, encoding/models/{encnet,deeplabv3,psp}.py, without the backbone's classifier, 2,049,000, and
    # without the auxiliary head, 2,364,691 parameters and 4.84 GMACs, which theirs runs in eval, too; EncNet's
    # classifier of the classes present, 512 * 19 + 19, is an auxiliary head here
    "fastfcn_r50_encnet": Expected(
        44_978_758 - 9_747,
        49_392_449 - 2_049_000,
        {HALF: 132.6 - 4.84},
        stride=8,
        aux={"layer3": 16, "se": None},
    ),
    "fastfcn_r50_deeplabv3": Expected(
        59_497_683, 63_911_374 - 2_049_000, {HALF: 249.6 - 4.84}, stride=8, aux={"layer3": 16}
    ),
    "fastfcn_r50_psp": Expected(66_450_899, 70_864_590 - 2_049_000, {HALF: 276.5 - 4.84}, stride=8, aux={"layer3": 16}),
    "fastfcn_r101_encnet": Expected(
        63_970_886 - 9_747,
        68_384_577 - 2_049_000,
        {HALF: 171.4 - 4.84},
        stride=8,
        aux={"layer3": 16, "se": None},
    ),
    "fastfcn_r101_deeplabv3": Expected(
        78_489_811, 82_903_502 - 2_049_000, {HALF: 288.4 - 4.84}, stride=8, aux={"layer3": 16}
    ),
    "fastfcn_r101_psp": Expected(
        85_443_027, 89_856_718 - 2_049_000, {HALF: 315.3 - 4.84}, stride=8, aux={"layer3": 16}
    ),
    # leftthomas/GatedSCNN, model.py, whose stem is deep
    "gscnn_r50": Expected(
        RESNET50 + GSCNN, RESNET50 + GSCNN, {HALF: 421.8}, stride=4, aux={"edge": 1}, options={"stem": "deep"}
    ),
    "gscnn_r101": Expected(
        RESNET101 + GSCNN, RESNET101 + GSCNN, {HALF: 577.0}, stride=4, aux={"edge": 1}, options={"stem": "deep"}
    ),
    # nv-tlabs/GSCNN, network/gscnn.py, without a side of the gates that it builds and never runs
    "gscnn_wrn38": Expected(137_278_190 - 65, 137_278_190 - 65, {}, stride=2, aux={"edge": 1}),
    # mmsegmentation, icnet_r18-d8 and icnet_r50-d8, whose maps are larger by a row here and there; two FCN heads
    "icnet_r18": Expected(
        24_874_067,
        24_874_067 + 2 * (9 * 128 * 128 + 256 + 129 * 19),
        {HALF: 18.6, FULL: 74.2},
        stride=8,
        aux={"sub4": 16, "sub24": 8},
        options={"mmseg_sizes": True},
    ),
    "icnet_r50": Expected(
        47_527_507,
        47_527_507 + 2 * (9 * 128 * 128 + 256 + 129 * 19),
        {HALF: 30.6, FULL: 122.0},
        stride=8,
        aux={"sub4": 16, "sub24": 8},
        options={"mmseg_sizes": True},
    ),
    # meetps/pytorch-semseg, ptsemseg/models/icnet.py, which takes 1025x2049: 7,757,945 parameters with two classifiers
    # and four 1x1 convolutions (with norm) that never run; 30.6 GMACs with a stage of three blocks that runs once more
    # at 33x65 for nothing, and with the classifier after the upsampling to 257x513 instead of before it, at 129x257
    "icnet_r50_half": Expected(
        7_757_945 - 4 * (1024 * 256 + 2 * 256) - (257 + 129) * 19,
        7_757_945 - 4 * (1024 * 256 + 2 * 256),
        {"1025x2049": 30.6 - (3 * (2 * 256 * 64 + 9 * 64 * 64) * 33 * 65 + 128 * 19 * (257 * 513 - 129 * 257)) / 1e9},
        stride=4,
        aux={"sub4": 16, "sub24": 8},
    ),
    # no public code: a reconstruction
    "msfnet": Expected(14_400_859, 15_135_846, {HALF: 24.16, FULL: 96.65}, stride=8, aux={"boundary": 8}),
    # semseg, model/pspnet.py with its auxiliary head of 2,364,691; semseg has no ResNet-18
    "pspnet_r18": Expected(12_641_267, 12_790_086, {}, stride=8, aux={"layer3": 8}),
    "pspnet_r50": Expected(49_080_038 - 2_364_691, 49_080_038, {"513x1025": 376.6}, stride=8, aux={"layer3": 8}),
    "pspnet_r101": Expected(68_072_166 - 2_364_691, 68_072_166, {"513x1025": 535.4}, stride=8, aux={"layer3": 8}),
    # orsic/swiftnet, resnet_single_scale.py and resnet_pyramid.py with SemsegModel
    "swiftnet_r18": Expected(11_797_071, 11_797_071, {HALF: 25.9, FULL: 103.6}, stride=4),
    "swiftnet_r18_pyramid": Expected(12_056_275, 12_056_275, {HALF: 32.0, FULL: 128.2}, stride=4),
}


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_tables", ROOT / "tools/model_tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()


@pytest.fixture(scope="module")
def counted() -> dict[str, ModelFacts]:
    """Counted now, at the usual sizes and those of the references."""
    return TOOL.measure_all()


def test_every_network_has_expectations_and_a_paper() -> None:
    assert sorted(EXPECTED) == MODELS.names()
    assert sorted(PAPERS) == MODELS.names()


@pytest.mark.parametrize("name", EXPECTED)
def test_parameters_are_the_references(counted: dict[str, ModelFacts], name: str) -> None:
    expected = EXPECTED[name]
    assert counted[name].parameters == expected.parameters
    assert counted[name].parameters_training == expected.parameters_training


@pytest.mark.parametrize("name", EXPECTED)
def test_multiply_adds_are_the_references(counted: dict[str, ModelFacts], name: str) -> None:
    """Within 0.5 %: the references are rounded to three digits."""
    expected, options = EXPECTED[name].gmacs, EXPECTED[name].options
    facts = measure(name, sizes=tuple(expected), **options) if options else counted[name]
    assert {size: facts.gmacs(size) for size in expected} == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("name", EXPECTED)
def test_outputs_stand_at_the_strides_of_the_papers(counted: dict[str, ModelFacts], name: str) -> None:
    assert counted[name].stride == EXPECTED[name].stride
    assert counted[name].aux == EXPECTED[name].aux


@pytest.mark.parametrize(
    ("name", "arguments", "parameters"),
    [
        # the other forms of the references, at the authors' 20 classes
        ("espnet_c", {"num_classes": 20, "q": 3}, 187_529),
        ("espnet_c", {"num_classes": 20, "q": 5}, 252_297),
        ("espnet_c", {"num_classes": 20, "q": 8}, 349_449),
        ("espnet", {"num_classes": 20, "q": 3}, 202_649),
        ("espnet", {"num_classes": 20, "q": 5}, 267_417),
        ("espnet", {"num_classes": 20, "q": 8}, 364_569),
        # FastFCN's later JPU, counted as above
        ("fastfcn_r50_encnet", {"jpu": "jpu_x"}, 49_376_065 - 2_049_000 - 2_364_691 - 9_747),
        ("fastfcn_r50_deeplabv3", {"jpu": "jpu_x"}, 63_894_990 - 2_049_000 - 2_364_691),
        ("fastfcn_r50_psp", {"jpu": "jpu_x"}, 70_848_206 - 2_049_000 - 2_364_691),
        # the reference of Gated-SCNN over ResNets, without the backbone's classifier
        ("gscnn_r50", {"stem": "deep"}, 42_592_181 - 2_049_000),
        ("gscnn_r101", {"stem": "deep"}, 61_584_309 - 2_049_000),
    ],
)
def test_parameters_with_other_arguments(name: str, arguments: dict[str, object], parameters: int) -> None:
    assert measure(name, sizes=(), **arguments).parameters == parameters


class OneConvolution(SegModel):
    """Counts that can be worked out by hand; an auxiliary head at stride 4, and one for the image as a whole."""

    def __init__(self, num_classes: int, in_channels: int, aux: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(in_channels, num_classes, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(num_classes)
        self.aux_heads = nn.ModuleDict()
        if aux:
            self.aux_heads["coarse"] = nn.Conv2d(num_classes, num_classes, 1, stride=2)
            self.aux_heads["scene"] = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> SegOutput:
        logits = self.norm(self.conv(images))
        return SegOutput(logits, {key: head(logits) for key, head in self.aux_heads.items()} if self.training else {})


def one_convolution(num_classes: int = 19, in_channels: int = 3, aux: bool = False) -> SegModel:
    return OneConvolution(num_classes, in_channels, aux)


def without_aux(num_classes: int = 5) -> SegModel:
    return OneConvolution(num_classes, 3, False)


@pytest.fixture
def own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._builders, "one_convolution", one_convolution)
    monkeypatch.setitem(MODELS._builders, "without_aux", without_aux)


@pytest.mark.usefixtures("own_models")
def test_counts_agree_with_those_worked_out_by_hand() -> None:
    facts = measure("one_convolution", sizes=("10x20", "7x5"), num_classes=4, in_channels=2)
    parameters = 4 * 2 * 9 + 4 + 2 * 4
    macs = {"10x20": 4 * 2 * 9 * 5 * 10, "7x5": 4 * 2 * 9 * 4 * 3}
    assert facts == ModelFacts(parameters, parameters + 4 * 4 + 4, macs, stride=2, aux={"coarse": 4, "scene": None})
    assert facts.gmacs("10x20") == 3600 / 1e9


@pytest.mark.usefixtures("own_models")
def test_a_model_that_is_not_stored_is_counted_when_it_is_asked_for() -> None:
    assert "without_aux" not in stored_facts()
    assert model_facts("without_aux").parameters == 5 * 27 + 5 + 10
    assert model_facts("without_aux").aux == {}


def test_a_stored_model_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "measure", pytest.fail)
    assert model_facts("fast_scnn").parameters == 1_138_051


def test_counting_leaves_no_memory_and_no_gradient_behind() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    measure("fast_scnn", sizes=(HALF,))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_a_misspelt_argument_of_a_counted_model_offers_the_right_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'num_classes'"):
        measure("fast_scnn", num_clases=3)


def test_references_in_the_tables_are_those_expected_here() -> None:
    """What readers see is what is tested; multiply-adds may hold what a reference does for nothing."""
    for name, paper in PAPERS.items():
        reference = paper.reference
        if reference is None or reference.parameters is None:
            continue
        assert reference.parameters == EXPECTED[name].parameters, name
        assert reference.parameters_training in (None, EXPECTED[name].parameters_training), name
        assert dict(reference.gmacs) == pytest.approx(EXPECTED[name].gmacs, rel=0.03), name


def test_every_published_score_names_split_and_source() -> None:
    for name, paper in PAPERS.items():
        for score in paper.scores:
            assert score.split in ("val", "test"), name
            assert 50 < score.miou < 85, name
            assert score.source.startswith(("paper", "authors", "mmsegmentation", "PaddleSeg")), name


def test_every_published_speed_names_size_and_source() -> None:
    for name, paper in PAPERS.items():
        if paper.speed is not None:
            assert re.fullmatch(r"\d+x\d+", paper.speed.size), name
            assert 10 < paper.speed.fps < 200, name
            assert paper.speed.source.startswith(("paper", "authors", "PaddleSeg")), name


def test_counts_and_tables_in_the_repository_are_up_to_date(counted: dict[str, ModelFacts]) -> None:
    assert TOOL.stale(counted) == [], "run tools/model_tables.py --write"


def test_another_count_makes_every_table_stale(counted: dict[str, ModelFacts]) -> None:
    facts = counted["fast_scnn"]
    other = {**counted, "fast_scnn": replace(facts, parameters=facts.parameters + 1)}
    assert TOOL.stale(other) == [TOOL.FACTS, TOOL.DOCUMENT, TOOL.README]


def test_a_network_more_makes_every_table_stale(counted: dict[str, ModelFacts]) -> None:
    fewer = {name: facts for name, facts in counted.items() if name != "fast_scnn"}
    assert TOOL.stale(fewer) == [TOOL.FACTS, TOOL.DOCUMENT, TOOL.README]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that the tool writes, for writing."""
    for name in (TOOL.FACTS, TOOL.DOCUMENT, TOOL.README):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_writing_mends_what_is_stale_and_leaves_the_rest_of_the_readme(
    counted: dict[str, ModelFacts], copy: Path
) -> None:
    readme = (copy / TOOL.README).read_text()
    (copy / TOOL.README).write_text(readme.replace("| 1,138,051 |", "| 1,138,052 |"))
    (copy / TOOL.DOCUMENT).unlink()
    assert TOOL.stale(counted, copy) == [TOOL.DOCUMENT, TOOL.README]
    TOOL.write(counted, copy)
    assert TOOL.stale(counted, copy) == []
    assert (copy / TOOL.README).read_text() == readme
    assert json.loads((copy / TOOL.FACTS).read_text()).keys() == counted.keys()


def test_a_readme_without_markers_is_refused(counted: dict[str, ModelFacts], copy: Path) -> None:
    (copy / TOOL.README).write_text("# no table\n")
    with pytest.raises(SystemExit, match="models:begin"):
        TOOL.stale(counted, copy)


@pytest.mark.parametrize(("names", "code"), [([], 0), (["README.md"], 1)])
def test_the_check_exits_with_1_when_a_file_is_stale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: list[str], code: int
) -> None:
    monkeypatch.setattr(TOOL, "measure_all", dict)
    monkeypatch.setattr(TOOL, "stale", lambda facts: names)
    assert TOOL.main([]) == code
    assert ("run tools/model_tables.py --write" in capsys.readouterr().out) == bool(names)
