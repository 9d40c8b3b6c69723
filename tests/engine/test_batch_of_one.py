"""Training on one image at a time: it works, or it is refused before the first step."""

from __future__ import annotations

import pytest
import torch

from fastseg.config import Config
from fastseg.engine.build import check_batch_norm
from fastseg.errors import DistributedError
from fastseg.models import MODELS, create_model


def config_of(name: str) -> Config:
    config = Config()
    config.model.name = name
    config.augment.crop = (64, 96)
    return config


@pytest.mark.parametrize("name", MODELS.names())
def test_one_image_trains_or_is_refused(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=5).train()
    images = torch.zeros(1, 3, 64, 96, device="meta")
    try:
        model(images)
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)  # noqa: PT017 - which of the two it is depends on the model
        with pytest.raises(DistributedError, match=rf"'{name}' pools the whole image before .*train\.total_batch=2"):
            check_batch_norm(config_of(name), 5, images_per_norm=1)
    else:
        check_batch_norm(config_of(name), 5, images_per_norm=1)


@pytest.mark.parametrize("name", MODELS.names())
def test_two_images_are_never_refused(name: str) -> None:
    check_batch_norm(config_of(name), 5, images_per_norm=2)
