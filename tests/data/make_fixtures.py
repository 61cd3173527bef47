"""Makes tests/fixtures/images/: small image files and what Pillow makes of them.

Run once, from the top folder, with numpy, Pillow and safetensors:  python tests/data/make_fixtures.py
Expected arrays are uint8 [height, width, 3]; names are "<file>.rgb" and "<file>.<width>x<height>".
"""
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

folder = Path("tests/fixtures/images")
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
y, x = np.mgrid[0:40, 0:53]
smooth = np.stack([128 + 100 * np.sin(x / 7 + y / 11), 255 * x / 53, 255 * ((x // 6 + y // 5) % 2)], -1)
picture = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8)
rgb = Image.fromarray(picture)

rgb.save(folder / "rgb.png")
rgb.convert("L").save(folder / "grey.png")
rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(folder / "palette.png")
rgba = rgb.copy()
rgba.putalpha(Image.fromarray((255 * x / 53).astype(np.uint8)))
rgba.save(folder / "alpha.png")
rgb.save(folder / "photo.jpg", quality=90)
rgb.convert("L").save(folder / "grey.JPEG", quality=90)
rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
rgb.save(folder / "lossless.webp", lossless=True)

expected = {}
for file in sorted(folder.iterdir()):
    if file.suffix != ".safetensors":
        expected[f"{file.name}.rgb"] = np.asarray(Image.open(file).convert("RGB"))
for width, height in [(36, 27), (20, 15), (53, 17), (100, 40), (106, 80), (8, 6), (1, 1)]:
    expected[f"rgb.png.{width}x{height}"] = np.asarray(rgb.resize((width, height), Image.Resampling.LANCZOS))
save_file({k: np.ascontiguousarray(v) for k, v in expected.items()}, folder / "expected.safetensors")
