"""The loss of a whole network: named terms, checked names, logits resized to the labels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastseg.errors import ConfigError
from fastseg.losses import (
    TERMS,
    LossTerm,
    SegLoss,
    class_boundary,
    cross_entropy,
    edge_cross_entropy,
    ohem_cross_entropy,
)
from fastseg.types import SegOutput

LABELS = torch.randint(0, 3, (2, 16, 24), generator=torch.Generator().manual_seed(0))
LABELS[0, :4] = 255
LOGITS = torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(1))
DETAIL = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(2))


def build(aux: dict[str, float], names: tuple[str, ...] = ("detail",), align_corners: bool = False) -> SegLoss:
    return SegLoss(cross_entropy(), aux_weights=aux, aux_names=names, align_corners=align_corners)


@pytest.mark.parametrize("align_corners", [False, True])
def test_terms_are_the_losses_of_logits_resized_to_the_labels(align_corners: bool) -> None:
    loss = build({"detail": 0.4}, align_corners=align_corners)
    terms = loss(SegOutput(LOGITS, {"detail": DETAIL}), LABELS)
    assert list(terms) == ["main", "aux.detail"]
    assert loss.weights == {"main": 1.0, "aux.detail": 0.4}
    for name, logits in {"main": LOGITS, "aux.detail": DETAIL}.items():
        full = F.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=align_corners)
        torch.testing.assert_close(terms[name].mean(), F.cross_entropy(full, LABELS, ignore_index=255))


def test_in_eval_only_the_main_term_remains() -> None:
    assert list(build({"detail": 0.4})(SegOutput(LOGITS, {}), LABELS)) == ["main"]


def test_a_misspelt_auxiliary_name_offers_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"loss\.aux\.detial: .* did you mean 'detail'"):
        build({"detial": 0.4})


def test_a_weight_for_a_model_without_auxiliary_outputs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.aux\.detail: the model has no auxiliary outputs; .*aux=true"):
        build({"detail": 0.4}, names=())


def test_an_auxiliary_output_without_a_weight_is_refused_with_the_key_to_set() -> None:
    with pytest.raises(ConfigError, match=r"without a weight: context; set loss\.aux\.context=0\.4"):
        build({"detail": 0.4}, names=("detail", "context"))


def test_an_auxiliary_output_may_have_a_loss_of_its_own() -> None:
    own = {"detail": ohem_cross_entropy(0.5, 0)}
    weights = {"detail": 1.0, "context": 1.0}
    loss = SegLoss(cross_entropy(), aux_weights=weights, aux_names=["detail", "context"], aux_losses=own)
    terms = loss(SegOutput(LOGITS, {"detail": LOGITS, "context": LOGITS}), LABELS)
    assert terms["aux.detail"].normalizer < terms["main"].normalizer == (LABELS != 255).sum()
    torch.testing.assert_close(terms["aux.context"], terms["main"])
    assert loss.normalizers(LABELS) is None


def test_contours_may_supervise_an_auxiliary_output() -> None:
    own = {"detail": class_boundary(radius=1)}
    loss = SegLoss(cross_entropy(), aux_weights={"detail": 0.5}, aux_names=["detail"], aux_losses=own, aux_stride=2)
    terms = loss(SegOutput(LOGITS, {"detail": DETAIL}), LABELS)
    seen = LABELS[:, 1::2, 1::2]
    small = F.interpolate(DETAIL, size=tuple(seen.shape[1:]), mode="bilinear")
    torch.testing.assert_close(terms["aux.detail"], class_boundary(radius=1)(small, seen))
    normalizers = loss.normalizers(LABELS)
    assert normalizers is not None
    assert normalizers["aux.detail"] == (seen != 255).sum()


def test_a_loss_for_an_auxiliary_output_that_is_not_there_offers_the_right_name() -> None:
    own = {"detial": class_boundary()}
    with pytest.raises(ConfigError, match=r"loss\.aux_losses\.detial: .* did you mean 'detail'"):
        SegLoss(cross_entropy(), aux_weights={"detail": 0.4}, aux_names=["detail"], aux_losses=own)


def test_normalisers_come_from_labels_alone_where_every_loss_allows_it() -> None:
    normalizers = build({"detail": 0.4}).normalizers(LABELS)
    assert normalizers is not None
    assert {name: int(x) for name, x in normalizers.items()} == dict.fromkeys(
        ("main", "aux.detail"), int((LABELS != 255).sum())
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    term = build({}, names=())(SegOutput(LOGITS.to(dtype), {}), LABELS)["main"]
    assert term.total.dtype == torch.float32
    expected = build({}, names=())(SegOutput(LOGITS.to(dtype).float(), {}), LABELS)["main"]
    torch.testing.assert_close(term.total, expected.total)


@pytest.mark.parametrize("size", [(16, 24), (1, 1), (3, 2), (7, 5)])
def test_auxiliary_losses_may_see_every_nth_label_only(size: tuple[int, int]) -> None:
    height, width = size
    labels = LABELS[:, :height, :width]
    loss = SegLoss(cross_entropy(), aux_weights={"detail": 0.4}, aux_names=("detail",), aux_stride=4)
    terms = loss(SegOutput(LOGITS, {"detail": DETAIL}), labels)
    seen = labels[:, min(2, height - 1) :: 4, min(2, width - 1) :: 4]
    small = F.interpolate(DETAIL, size=tuple(seen.shape[1:]), mode="bilinear")
    torch.testing.assert_close(terms["aux.detail"], cross_entropy()(small, seen))
    assert terms["main"].normalizer == (labels != 255).sum()
    normalizers = loss.normalizers(labels)
    assert normalizers is not None
    assert normalizers["aux.detail"] == terms["aux.detail"].normalizer == (seen != 255).sum()


class Product:
    """A loss of the whole output: the sum of the main logits times the detail map."""

    reads: tuple[str, ...] = ("detail",)

    def __call__(self, output: SegOutput, labels: torch.Tensor) -> LossTerm:
        assert output.logits.shape[2:] == output.aux["detail"].shape[2:] == labels.shape[1:]
        return LossTerm((output.logits * output.aux["detail"]).sum(), torch.tensor(float(len(labels))))

    def normalizer(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.tensor(float(len(labels)))


class Whole:
    """A loss of an output as it is, per image."""

    learns = "presence"
    resizes = False

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> LossTerm:
        assert logits.shape[2:] == (4, 6)
        assert labels.shape == LABELS.shape
        return LossTerm(logits.sum(), torch.tensor(2.0))

    def normalizer(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.tensor(2.0)


def with_product(aux_stride: int = 1) -> SegLoss:
    return SegLoss(
        cross_entropy(),
        aux_weights={"detail": 0.4},
        aux_names=["detail"],
        aux_stride=aux_stride,
        terms={"product": (3.0, Product())},
    )


@pytest.mark.parametrize("aux_stride", [1, 2])
def test_a_further_term_sees_outputs_at_the_size_of_the_labels(aux_stride: int) -> None:
    loss = with_product(aux_stride)
    terms = loss(SegOutput(LOGITS, {"detail": DETAIL}), LABELS)
    assert list(terms) == list(loss.weights) == ["main", "aux.detail", "product"]
    assert loss.weights["product"] == 3.0
    full = [F.interpolate(x, size=(16, 24), mode="bilinear") for x in (LOGITS, DETAIL)]
    torch.testing.assert_close(terms["product"].total, (full[0] * full[1]).sum())
    normalizers = loss.normalizers(LABELS)
    assert normalizers is not None
    assert normalizers["product"] == 2


def test_in_eval_a_term_that_reads_an_auxiliary_output_is_left_out() -> None:
    assert list(with_product()(SegOutput(LOGITS, {}), LABELS)) == ["main"]


def test_a_term_that_reads_an_output_which_the_model_lacks_is_refused() -> None:
    terms = {"product": (1.0, Product())}
    with pytest.raises(ConfigError, match=r"loss\.terms\.product \(which reads the output 'detail'\).*aux=true"):
        SegLoss(cross_entropy(), aux_weights={}, aux_names=[], terms=terms)
    with pytest.raises(ConfigError, match=r"loss\.terms\.product .*no such auxiliary output; "):
        SegLoss(cross_entropy(), aux_weights={"details": 1.0}, aux_names=["details"], terms=terms)


def test_a_loss_of_the_output_as_it_is_gets_it_with_every_label() -> None:
    loss = SegLoss(
        cross_entropy(), aux_weights={"detail": 1.0}, aux_names=["detail"], aux_losses={"detail": Whole()}, aux_stride=4
    )
    terms = loss(SegOutput(LOGITS, {"detail": DETAIL}), LABELS)
    assert terms["aux.detail"].total == DETAIL.sum()


def test_a_term_sends_its_gradient_into_every_output_that_it_reads() -> None:
    """A term that is logged and teaches nothing would look the same in every log."""
    logits, detail = LOGITS.clone().requires_grad_(), DETAIL.clone().requires_grad_()
    with_product()(SegOutput(logits, {"detail": detail}), LABELS)["product"].total.backward()
    full = [F.interpolate(x, size=(16, 24), mode="bilinear") for x in (LOGITS, DETAIL)]
    assert logits.grad is not None
    assert detail.grad is not None
    # bilinear weights add up to one per pixel, so a gradient keeps its sum
    torch.testing.assert_close(logits.grad.sum((2, 3)), full[1].sum((2, 3)))
    torch.testing.assert_close(detail.grad.sum((2, 3)), full[0].sum((2, 3)))


@pytest.mark.parametrize("name", ["dual_task", "edge_attention"])
def test_the_registered_terms_teach_the_main_logits(name: str) -> None:
    logits = LOGITS.clone().requires_grad_()
    edges = torch.full((2, 1, 16, 24), 5.0)
    loss = SegLoss(
        cross_entropy(), aux_weights={"edge": 1.0}, aux_names=["edge"], aux_losses={"edge": edge_cross_entropy()},
        terms={name: (1.0, TERMS.build(name))},
    )  # fmt: skip
    loss(SegOutput(logits, {"edge": edges}), LABELS)[name].total.backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() > 0
