"""Writes tests/fixtures/image_quality.safetensors: image pairs and their PSNR and SSIM by the plain formulas.

    python3 tests/evaluate/make_fixtures.py

numpy alone, in float64. SSIM is summed window by window over the 2-D Gaussian, as Wang et al. 2004 define it.
"""

from pathlib import Path

import numpy
from safetensors.numpy import save_file

SIDE, DEVIATION = 11, 1.5


def window():
    place = numpy.arange(SIDE) - SIDE // 2
    weight = numpy.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / (2 * DEVIATION**2))
    return weight / weight.sum()


def ssim(a, b, peak):
    """[C,H,W] float64."""
    weight, c1, c2 = window(), (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for x, y in zip(a, b):
        for top in range(x.shape[0] - SIDE + 1):
            for left in range(x.shape[1] - SIDE + 1):
                p = x[top : top + SIDE, left : left + SIDE]
                q = y[top : top + SIDE, left : left + SIDE]
                mean_p, mean_q = (weight * p).sum(), (weight * q).sum()
                var_p = (weight * (p - mean_p) ** 2).sum()
                var_q = (weight * (q - mean_q) ** 2).sum()
                cov = (weight * (p - mean_p) * (q - mean_q)).sum()
                values.append((2 * mean_p * mean_q + c1) * (2 * cov + c2)
                              / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2)))
    return numpy.mean(values)


def psnr(a, b, peak):
    return 10 * numpy.log10(peak**2 / numpy.mean((a - b) ** 2))


def main():
    random = numpy.random.RandomState(7)
    y, x = numpy.mgrid[0:19, 0:26]
    smooth = 127.5 + 90 * numpy.sin(x / 4 + y / 7 + numpy.arange(3)[:, None, None])
    rough = random.uniform(0, 255, smooth.shape)
    a = numpy.stack([smooth, smooth, rough, smooth]).round().astype(numpy.uint8)
    b = numpy.stack([smooth + random.normal(0, 8, smooth.shape), 255 - smooth, 0.5 * rough + 30, smooth + 20])
    b = b.round().clip(0, 255).astype(numpy.uint8)
    pairs = [(p.astype(float), q.astype(float)) for p, q in zip(a, b)]
    save_file({"a_u8": a, "b_u8": b,
               "psnr": numpy.array([psnr(p, q, 255) for p, q in pairs]),
               "ssim": numpy.array([ssim(p, q, 255) for p, q in pairs])},
              Path(__file__).parents[1] / "fixtures" / "image_quality.safetensors")


if __name__ == "__main__":
    main()
