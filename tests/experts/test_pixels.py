"""What published networks take their pictures to be."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mien.experts.pixels import PIXELS, Pixels, prepared, view


def test_colours_stand_in_the_order_and_scale_of_the_weights() -> None:
    image = torch.tensor([255, 128, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert prepared(image, PIXELS["torchvision"]).flatten().tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225], rel=1e-5
    )
    assert prepared(image, PIXELS["caffe"]).flatten().tolist() == pytest.approx(
        [0 - 103.939, 128 - 116.779, 255 - 123.68], rel=1e-5
    )


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValidationError, match="'rgb' or 'bgr'"):
        Pixels("gbr")
    with pytest.raises(ValidationError, match="greater than 0"):
        Pixels(std=(1, 0, 1))


def test_a_view_is_the_middle_and_its_mirror_image() -> None:
    image = np.arange(3 * 10 * 20).reshape(3, 10, 20).astype(np.uint8)
    assert np.array_equal(view(image, False, 1.0), image)
    assert np.array_equal(view(image, False, 0.8), image[:, 1:9, 2:18])
    assert np.array_equal(view(image, True, 0.5), image[:, 2:8, 5:15][:, :, ::-1])
