"""Any image in, a label map of its displayed size out; folders in, mirrored folders out, nothing else touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from fastseg.edges import EdgeModel
from fastseg.errors import CheckpointError, ConfigError, DataError, MissingFileError
from fastseg.export_info import ExportInfo
from fastseg.exported import ExportedModel
from fastseg.layers.resize import resize
from fastseg.ops import normalize_images
from fastseg.predict import Predictor
from fastseg.types import Preprocessing, SegModel, WeightsInfo
from toys import COLORS, INFO, RANDOM, ColorEdges, NearestColor, RedEdges, StridedModel, encoded

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
    predictor.deployed.network.register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape[2:])))
    assert predictor.predict_array(COLORS[RANDOM.integers(0, 4, (5, 7))]).shape == (5, 7)
    assert seen == inputs


def test_the_one_pass_labels_are_the_argmax_of_the_full_logits() -> None:
    model = StridedModel()
    strided = Predictor(model, device="cpu")
    image = RANDOM.integers(0, 256, (37, 51, 3), dtype=np.uint8)
    normalized = (torch.from_numpy(image / 255).float() - torch.tensor(Preprocessing().mean)) / torch.tensor(
        Preprocessing().std
    )
    with torch.inference_mode():
        full = model.predict_logits(normalized.permute(2, 0, 1)[None])
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


def test_a_model_set_back_to_training_predicts_the_same_and_keeps_its_statistics() -> None:
    model = StridedModel()
    strided = Predictor(model, device="cpu")
    image = RANDOM.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    before = strided.predict_array(image)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    assert np.array_equal(strided.predict_array(image), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


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
    asked: list[tuple[object, ...]] = []

    def load_model(source: object, *, weights: object, weights_format: object) -> SegModel:
        asked.append((source, weights, weights_format))
        return NearestColor()

    monkeypatch.setattr("fastseg.predict.load_model", load_model)
    assert Predictor("fast_scnn", weights="toy", device="cpu").dataset is INFO
    Predictor("espnet", weights="toy.pth", weights_format="espnet", device="cpu")
    assert asked == [("fast_scnn", "toy", None), ("espnet", "toy.pth", "espnet")]


def test_weights_that_give_nan_are_an_error_and_not_class_zero() -> None:
    model = NearestColor()
    model.scale.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        Predictor(model, device="cpu").predict_array(COLORS[:, None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "one or more factors"),
        ({"scales": (0.0,)}, "factors from 0.01 to 100"),
        ({"scales": (1e-9, 1.0)}, "factors from 0.01 to 100"),
        ({"scales": (1000.0,)}, "factors from 0.01 to 100"),
        ({"scales": (float("nan"),)}, "factors from 0.01 to 100"),
        ({"precision": "fp8"}, "'fp8'"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 10**6}, "threads is 1000000; give 1 to "),
        ({"device": "meta"}, "'meta' cannot be used"),
        ({"max_mem": "1GB", "compile": True}, "max_mem and compile exclude each other"),
        ({"device": "cuda:99"}, "'cuda:99' cannot be used"),
        ({"device": "gpu"}, "'gpu' cannot be used"),
        ({"weights": "camvid"}, "built already"),
        ({"weights_format": "espnet"}, "built already"),
    ],
)
def test_arguments_outside_their_range_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Predictor(StridedModel(), **options)  # type: ignore[arg-type]


def test_a_long_reason_against_a_device_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Could not run it. This could be because of " + "many things " * 100)

    model = StridedModel()
    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(ConfigError, match=r"^device 'mps' cannot be used \(Could not run it\); use 'cpu'"):
        Predictor(model, device="mps")


@pytest.mark.parametrize(("scales", "seen"), [((1.0,), ""), ((0.5, 40.0), " and seen at scale 40")])
def test_too_little_memory_names_the_scale_and_no_device_that_is_in_use(
    scales: tuple[float, ...], seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    predictor = Predictor(StridedModel(), device="cpu", scales=scales)
    monkeypatch.setattr(type(predictor.deployed), "logits", fail)
    monkeypatch.setattr(type(predictor.deployed), "forward", fail)
    with pytest.raises(DataError, match=f"is 24x16{seen}, too large for the memory of cpu;.* a smaller batch$"):
        predictor.predict_array(noise(16, 24))


def test_no_images_have_no_predictions(strided: Predictor) -> None:
    assert strided.predict_images([], []) == []


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


# A model that changes


def test_a_predictor_follows_a_model_that_is_trained_further(strided: Predictor) -> None:
    model = StridedModel()
    predictor, image = Predictor(model, device="cpu"), noise(20, 24)
    before = predictor.predict_array(image)
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    model.train()
    logits = model(torch.randn(2, 3, 16, 16)).logits
    nn.functional.cross_entropy(logits, torch.zeros(2, 4, 4, dtype=torch.long)).backward()
    optimizer.step()
    after = predictor.predict_array(image)
    assert np.array_equal(after, Predictor(model, device="cpu").predict_array(image))
    assert not np.array_equal(after, before)


def test_statistics_alone_are_followed_too() -> None:
    model = StridedModel()
    predictor, image = Predictor(model, device="cpu"), noise(20, 24)
    before = predictor.predict_array(image)
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 16, 16) * 9 + 5)
    after = predictor.predict_array(image)
    assert np.array_equal(after, Predictor(model, device="cpu").predict_array(image))
    assert not np.array_equal(after, before)


def test_loaded_weights_and_replaced_tensors_are_followed() -> None:
    model, other = StridedModel(), StridedModel()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    predictor, image = Predictor(model, device="cpu"), noise(20, 24)
    predictor.predict_array(image)
    model.load_state_dict(other.state_dict())
    wanted = Predictor(other, device="cpu").predict_array(image)
    assert np.array_equal(predictor.predict_array(image), wanted)
    model.layers[0] = StridedModel().layers[0]
    assert not np.array_equal(predictor.predict_array(image), wanted)


def test_a_model_that_stays_is_deployed_once() -> None:
    model = StridedModel()
    strided = Predictor(model, device="cpu")
    strided.predict_array(noise(8, 8))
    first = strided.deployed
    strided.predict_array(noise(9, 8))
    model.train()
    assert strided.deployed is first


# Batches


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([(5, 7), (6, 9), (1, 1)]), max_size=9),
    batch_size=st.integers(1, 4),
)
def test_a_batch_gives_each_image_the_labels_that_it_has_alone(
    exact: Predictor, sizes: list[tuple[int, int]], batch_size: int
) -> None:
    images = [COLORS[RANDOM.integers(0, 4, size)] for size in sizes]
    together = exact.predict_batch(images, batch_size=batch_size)
    assert len(together) == len(images)
    assert all(np.array_equal(a, exact.predict_array(b)) for a, b in zip(together, images, strict=True))


def test_images_of_one_size_run_together_and_no_more_than_the_batch_size() -> None:
    predictor = Predictor(StridedModel(), device="cpu")
    seen: list[int] = []
    predictor.deployed.network.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    predictor.predict_batch([noise(8, 8), noise(4, 8), *(noise(8, 8) for _ in range(4))], batch_size=3)
    assert sorted(seen) == [1, 2, 3]


def test_a_batch_of_less_than_one_image_is_refused(strided: Predictor) -> None:
    with pytest.raises(ConfigError, match="batch size is 0"):
        strided.predict_batch([noise()], batch_size=0)


# torch.compile


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_labels_and_is_not_compiled_for_every_size() -> None:
    model = StridedModel()
    compiled, plain = Predictor(model, device="cpu", compile=True), Predictor(model, device="cpu")
    counters = torch._dynamo.utils.counters
    torch.compiler.reset()
    counters.clear()
    for size in ((16, 24), (16, 32), (20, 32), (33, 47), (64, 31), (7, 9), (120, 90)):
        image = noise(*size)
        assert (compiled.predict_array(image) == plain.predict_array(image)).mean() > 0.99
    assert 1 <= counters["stats"]["unique_graphs"] <= 4


def test_a_compiler_that_fails_is_one_line_that_says_what_to_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class CompilerError(RuntimeError):
        """Stands for those of PyTorch's compiler, by the module that defines it."""

    CompilerError.__module__ = "torch._inductor.exc"

    def fail(*_: object, **__: object) -> None:
        raise CompilerError("InvalidCxxCompiler: No working C++ compiler found\nlong advice")

    predictor = Predictor(StridedModel(), device="cpu", compile=True)
    monkeypatch.setattr(type(predictor.deployed), "logits", fail)
    with pytest.raises(ConfigError, match=r"No working C\+\+ compiler found\); leave compile \(--compile\) out$"):
        predictor.predict_array(noise())


# Exported files


class TopRow:
    """An exported file in place of a real one: labels are the red channel modulo 4."""

    opened: tuple[int | None, str | None] = (None, None)

    @classmethod
    def open(cls, path: Path, *, threads: int | None, device: str | None) -> ExportedModel:
        cls.opened = (threads, device)
        info = WeightsInfo("toy", "", "", "", INFO)
        return ExportedModel(path, ExportInfo(info), lambda images: images[..., 0] % 4)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("fastseg.predict.open_exported", TopRow.open)
    return Path("model.onnx")


def test_an_exported_file_predicts_like_a_network(exported: Path) -> None:
    image = noise(6, 9)
    predictor = Predictor(exported, threads=torch.get_num_threads(), device="cpu")
    assert TopRow.opened == (torch.get_num_threads(), "cpu")
    assert np.array_equal(predictor.predict_array(image), image[..., 0] % 4)
    assert predictor(image).dataset is INFO
    images = [noise(6, 9), noise(4, 4), noise(6, 9)]
    for labels, each in zip(predictor.predict_batch(images), images, strict=True):
        assert np.array_equal(labels, each[..., 0] % 4)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scales": (0.5, 1.0)}, "scales"),
        ({"flip": True, "precision": "bf16"}, "flip and precision"),
        ({"compile": True}, "compile"),
        ({"max_mem": "1GB"}, "max_mem"),
        ({"weights": "camvid"}, "weights"),
    ],
)
def test_what_an_exported_file_has_built_in_cannot_be_chosen(
    exported: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=f"model.onnx is an exported file, for which {named} cannot be chosen"):
        Predictor(exported, **options)


@pytest.mark.parametrize("asked", [{"edges": True}, {"confidence": True}])
def test_an_exported_file_gives_labels_only(exported: Path, asked: dict[str, bool]) -> None:
    with pytest.raises(ConfigError, match=r"gives no confidence|finds no edges"):
        Predictor(exported)(noise(), **asked)
    with pytest.raises(ConfigError, match="whose scale is built in"):
        Predictor(exported).predict_array(noise(), scale=0.5)


# Confidence


@pytest.mark.parametrize("options", [{}, {"scales": (0.5, 1.0), "flip": True}])
def test_confidence_is_the_mean_probability_of_the_label(options: dict[str, Any]) -> None:
    model, image = StridedModel().eval(), noise(22, 30)
    predictor = Predictor(model, device="cpu", **options)
    result = predictor(image, confidence=True)
    assert result.confidence is not None
    assert result.confidence.dtype == np.float32
    shares = []
    x = normalize_images(torch.from_numpy(image)[None], Preprocessing())
    with torch.inference_mode():
        for scale in predictor.scales:
            scaled = resize(x, (round(22 * scale), round(30 * scale)))
            for flip in (False, True) if predictor.flip else (False,):
                logits = model(scaled.flip(-1) if flip else scaled).logits
                full = resize(logits.flip(-1) if flip else logits, (22, 30))
                shares.append(full.softmax(dim=1))
    mean = torch.stack(shares).mean(0)
    wanted = mean.gather(1, torch.from_numpy(result.labels).long()[None, None])[0, 0].numpy()
    assert np.abs(result.confidence - wanted).max() < 1e-5  # float32, in another order
    assert predictor(image).confidence is None


# Edges


def noise(height: int = 5, width: int = 7) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"precision": "bf16"}])
def test_edges_lie_where_the_network_finds_them(options: dict[str, Any]) -> None:
    image = noise()
    edges = Predictor(RedEdges(), device="cpu", **options).edges(image)
    assert edges.dtype == np.float32
    # float32 of a normalised and restored value, averaged over two views
    assert np.abs(edges - image[..., 0] / 255).max() < 1e-6


def test_several_edge_maps_become_one_by_their_largest_value() -> None:
    image = noise()
    edges = Predictor(ColorEdges(), device="cpu").edges(image)
    assert np.abs(edges - image.max(axis=2) / 255).max() < 1e-6  # as above


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    input_scale=st.sampled_from([0.3, 1.0, 1.7]),
    scales=st.sampled_from([(1.0,), (0.5, 1.25)]),
)
def test_edges_have_the_images_size_at_any_input_scale(
    height: int, width: int, input_scale: float, scales: tuple[float, ...]
) -> None:
    model = RedEdges(Preprocessing(input_scale=input_scale))
    edges = Predictor(model, device="cpu", scales=scales).edges(noise(height, width))
    assert edges.shape == (height, width)
    assert 0 <= edges.min() <= edges.max() <= 1


def test_edges_stay_in_place_when_the_network_sees_the_image_enlarged() -> None:
    """Bilinear resizing keeps a ramp, so up by 2 and down again is the ramp, except beside the frame."""
    ramp = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(4, axis=0)
    edges = Predictor(RedEdges(Preprocessing(input_scale=2.0)), device="cpu").edges(ramp)
    assert np.abs(edges - ramp[..., 0] / 255)[:, 1:-1].max() < 1e-6  # one grey level is 0.004


def test_edges_are_the_mean_over_scales() -> None:
    class WideIsEdge(RedEdges):
        def predict_edges(self, images: Tensor) -> Tensor:
            return torch.full_like(images[:, :1], 1.0 if images.shape[-1] > 7 else 0.0)

    edges = Predictor(WideIsEdge(), device="cpu", scales=(0.5, 1, 1.5, 2)).edges(noise())
    assert (edges == 0.5).all()


def test_a_prediction_has_edges_only_when_asked() -> None:
    predictor, image = Predictor(RedEdges(), device="cpu"), noise()
    result = predictor(image, edges=True)
    assert predictor(image).edges is None
    assert np.array_equal(result.labels, predictor(image).labels)
    assert result.edges is not None
    assert np.array_equal(result.edges, predictor.edges(image))


def test_edges_are_found_in_eval_mode() -> None:
    modes: list[bool] = []

    class Watched(RedEdges):
        def predict_edges(self, images: Tensor) -> Tensor:
            modes.append(self.training)
            return super().predict_edges(images)

    model = Watched()
    predictor = Predictor(model, device="cpu")
    model.train()
    predictor.edges(noise())
    assert modes == [False]


def test_edges_of_a_network_without_any_are_refused_by_its_name_before_the_image_is_read() -> None:
    known, unknown = Predictor(NearestColor(), device="cpu"), Predictor(StridedModel(), device="cpu")
    for ask in (known.edges, lambda path: known(path, edges=True)):
        with pytest.raises(ConfigError, match=r"^nearest finds no edges .* gscnn_r50"):
            ask("no_such.png")
    with pytest.raises(ConfigError, match=r"^StridedModel finds no edges"):
        unknown.edges(noise())
    with pytest.raises(MissingFileError):
        Predictor(RedEdges(), device="cpu").edges("no_such.png")


def test_edges_that_are_nan_are_an_error() -> None:
    class Broken(RedEdges):
        def predict_edges(self, images: Tensor) -> Tensor:
            return super().predict_edges(images) * float("nan")

    with pytest.raises(CheckpointError, match="NaN or infinity"):
        Predictor(Broken(), device="cpu").edges(noise())


def test_only_a_network_with_predict_edges_is_an_edge_model() -> None:
    assert isinstance(RedEdges(), EdgeModel)
    assert not isinstance(NearestColor(), EdgeModel)
