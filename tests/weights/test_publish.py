"""From a run's weights to a published file: half precision, no auxiliary heads, terms and score inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fastseg.models import create_model
from fastseg.predict import Predictor
from fastseg.types import DatasetInfo, Preprocessing, WeightsInfo
from fastseg.weights import load_model, read_weights, save_weights
from fastseg.weights.publish import publish

TWO = DatasetInfo("two", ("ground", "rest"), ((0, 0, 0), (255, 255, 255)))
CAMVID = Path(os.environ.get("FASTSEG_CAMVID", "data/CamVid"))


def test_a_published_file_is_half_the_run_without_what_inference_never_uses(tmp_path: Path) -> None:
    model = create_model("fast_scnn", num_classes=2, aux=True).eval()
    info = WeightsInfo("fast_scnn", "two", "", "", TWO, Preprocessing(input_scale=2.0), {"aux": True})
    run = save_weights(tmp_path / "run" / "last.safetensors", model.state_dict(), info)
    path = publish(run.parent, name="best", licence="free", measured="50 mIoU", folder=tmp_path / "zoo")
    assert path == tmp_path / "zoo" / "fast_scnn_best.safetensors"
    state, published = read_weights(path)
    assert not any(name.startswith("aux_heads") for name in state)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16, torch.int64}
    assert (published.name, published.licence, published.metric_measured) == ("best", "free", "50 mIoU")
    assert published.preprocessing.input_scale == 2.0
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        difference = load_model(path)(images).logits - model(images).logits
    assert difference.abs().max() < 0.01  # what rounding the weights to half precision costs


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs CamVid: set FASTSEG_CAMVID=/path/to/CamVid")
def test_the_packaged_camvid_weights_reach_what_the_readme_says() -> None:
    from fastseg.data import build_dataset
    from fastseg.engine.evaluate import evaluate

    dataset = build_dataset("camvid", "test", root=str(CAMVID))
    scores = evaluate(Predictor("fast_scnn", weights="camvid", device="cpu"), dataset)
    assert len(dataset) == 233
    assert scores.miou == pytest.approx(0.5755, abs=0.0005)  # kernels of other machines round differently
