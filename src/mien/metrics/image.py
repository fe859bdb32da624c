"""How like two pictures are, and two sets of pictures: MSE, L1, PSNR, SSIM; FID and KID of features."""

from __future__ import annotations

import numpy as np


def mse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared difference of each pair of pictures (N, 3, H, W) in [0, 1]: (N,)."""
    return np.square(a.astype(np.float64) - b).mean(axis=(1, 2, 3))


def l1(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each pair of pictures (N, 3, H, W) in [0, 1]: (N,)."""
    return np.abs(a.astype(np.float64) - b).mean(axis=(1, 2, 3))


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal to noise ratio of each pair of pictures (N, 3, H, W) in [0, 1], in dB: (N,), infinite for equal."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(mse(a, b))


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al., 2004; Gaussian window of sigma 1.5) of each pair of pictures (N, 3, H, W)
    in [0, 1], mean over the channels: (N,)."""
    from skimage.metrics import structural_similarity

    return np.array(
        [
            structural_similarity(
                x, y, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for x, y in zip(a.astype(np.float64), b.astype(np.float64), strict=True)
        ]
    )


def fid(real: np.ndarray, made: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to two sets of features (N, F), (M, F) (Heusel et al., 2017).

    Biased upwards for few pictures, more so for long features: name the extractor and both counts beside it.
    """
    mean = np.square(real.mean(0) - made.mean(0)).sum()
    a, b = ((one.astype(np.float64) - one.mean(0)) / np.sqrt(len(one) - 1) for one in (real, made))
    # tr sqrt(A B) of the covariances A = a'a and B = b'b is the sum of the singular values of a b', and those are the
    # ones of their triangles: no root of a matrix is taken, which has none where features hardly vary.
    first, second = (np.asarray(np.linalg.qr(one, mode="r")) for one in (a, b))
    root = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    return float(max(mean + np.square(a).sum() + np.square(b).sum() - 2 * root, 0.0))


def kid(real: np.ndarray, made: np.ndarray) -> float:
    """Kernel distance between two sets of features (N, F), (M, F): unbiased squared MMD with the kernel
    (x.y / F + 1)^3 (Binkowski et al., 2018). Negative values are noise about 0; NaN with fewer than two in a set."""
    n, m = len(real), len(made)
    if n < 2 or m < 2:
        return float("nan")

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        result: np.ndarray = (x.astype(np.float64) @ y.T / x.shape[1] + 1) ** 3
        return result

    own, other, between = kernel(real, real), kernel(made, made), kernel(real, made)
    same = (own.sum() - np.trace(own)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(same - 2 * between.mean())
