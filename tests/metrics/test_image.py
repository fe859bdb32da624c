"""Likeness of pictures and of sets of pictures, against scikit-image, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

from mien.metrics.image import fid, kid, l1, mse, psnr, ssim

rng = np.random.default_rng(0)
A = rng.random((3, 3, 24, 24)).astype(np.float32)
B = np.clip(A + rng.normal(0, [[[[0.02]]], [[[0.1]]], [[[0.3]]]], A.shape), 0, 1).astype(np.float32)


def test_pairs_are_measured_as_scikit_image_does() -> None:
    assert mse(A, B) == pytest.approx([mean_squared_error(a, b) for a, b in zip(A, B, strict=True)])
    assert psnr(A, B) == pytest.approx(
        [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(A, B, strict=True)], rel=1e-5
    )
    assert l1(A, A + np.float32(0.25)) == pytest.approx([0.25] * 3)
    assert np.isinf(psnr(A, A)).all()


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    assert ssim(A, A) == pytest.approx([1, 1, 1])
    found = ssim(A, B)
    assert found[0] > found[1] > found[2]
    # Formula 13 of Wang et al. where the window of 11 pixels lies within the picture.
    for a, b, value in zip(A.astype(np.float64), B.astype(np.float64), found, strict=True):
        blur = lambda x: gaussian_filter(x, (0, 1.5, 1.5), truncate=3.5)[:, 5:-5, 5:-5]  # noqa: E731
        m, n = blur(a), blur(b)
        spread, covariance = blur(a * a) - m * m + blur(b * b) - n * n, blur(a * b) - m * n
        one = (2 * m * n + 1e-4) * (2 * covariance + 9e-4) / ((m * m + n * n + 1e-4) * (spread + 9e-4))
        assert value == pytest.approx(one.mean())
    # Constant pictures leave only the luminance term (2ab + c) / (a^2 + b^2 + c).
    flat = np.full((1, 3, 16, 16), 0.3), np.full((1, 3, 16, 16), 0.8)
    assert ssim(*flat) == pytest.approx([(2 * 0.24 + 1e-4) / (0.09 + 0.64 + 1e-4)])


def test_fid_of_gaussians_is_the_closed_form() -> None:
    first = rng.normal(0, 1, (60_000, 3))
    second = rng.normal([1, 0, -2], [2, 1, 0.5], (60_000, 3))
    # Diagonal covariances: |m|^2 + sum (s1 - s2)^2.
    assert fid(first, second) == pytest.approx(5 + 1 + 0 + 0.25, rel=0.02)
    assert fid(first, first) == pytest.approx(0, abs=1e-6)
    few, others = first[:8], second[:5]
    mine, theirs = np.cov(few.T), np.cov(others.T)
    root = np.trace(sqrtm(mine @ theirs)).real
    expected = np.square(few.mean(0) - others.mean(0)).sum() + np.trace(mine) + np.trace(theirs) - 2 * root
    assert fid(few, others) == pytest.approx(expected)


def test_kid_is_the_unbiased_sum_over_pairs() -> None:
    a, b = rng.normal(size=(7, 4)), rng.normal(0.5, 1, (5, 4))

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 4 + 1) ** 3)

    own = np.mean([k(a[i], a[j]) for i in range(7) for j in range(7) if i != j])
    other = np.mean([k(b[i], b[j]) for i in range(5) for j in range(5) if i != j])
    between = np.mean([k(x, y) for x in a for y in b])
    assert kid(a, b) == pytest.approx(own + other - 2 * between)
    assert np.isnan([kid(a[:1], b), kid(a, b[:1])]).all()
    assert np.isfinite(kid(a[:2], b[:2]))
    many = rng.normal(size=(400, 4))
    assert abs(kid(many[:200], many[200:])) < 0.1 < kid(many[:200], many[200:] + 1)
