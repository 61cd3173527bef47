"""Makes tests/fixtures/images/: small image files and what Pillow makes of them.

Run once, from the top folder, with numpy, Pillow and safetensors:  python tests/data/make_fixtures.py
Expected arrays are uint8 [height, width, 3]; names are "<file>.rgb" and "<file>.<width>x<height>".
"""
import struct
import zlib
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

# Kinds that are seldom met, and must be read all the same.
deep = np.clip(256 * smooth + rng.normal(0, 4000, smooth.shape), 0, 65535).astype(">u2")


def write_png16(path, pixels, colour_type):
    """Pillow writes no 16-bit colour."""
    height, width = pixels.shape[:2]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


write_png16(folder / "rgb16.png", deep, 2)
write_png16(folder / "rgba16.png", np.concatenate([deep, deep[..., :1]], -1), 6)
write_png16(folder / "grey16.png", deep[..., 0], 0)
write_png16(folder / "grey_alpha16.png", deep[..., :2], 4)
rgb.convert("LA").save(folder / "grey_alpha.png")
rgb.convert("1").save(folder / "bits.png")
Image.open(folder / "palette.png").save(folder / "palette_clear.png", transparency=3)
rgb.save(folder / "rgb_clear.png", transparency=tuple(int(v) for v in picture[0, 0]))
rgba.save(folder / "alpha.webp", lossless=True, exact=True)
rgb.save(folder / "lossy.webp", quality=60)
rgb.save(folder / "moving.webp", save_all=True, append_images=[rgb.rotate(180)], lossless=True)
rgb.save(folder / "progressive.jpg", quality=80, progressive=True)
rgb.save(folder / "full_colour.jpg", quality=80, subsampling=0)
exif = Image.Exif()
exif[0x0112] = 6
rgb.save(folder / "turned.jpg", quality=90, exif=exif)
rgb.save(folder / "broken_exif.jpg", quality=90, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(range(40)))
# libjpeg's four components: with Adobe's marker as they are, or said to be YCCK, or without that marker.
cmyk = (folder / "cmyk.jpg").read_bytes()
marker = cmyk.index(b"\xff\xee\x00\x0eAdobe")
ycck = bytearray(cmyk)
ycck[marker + 15] = 2
(folder / "ycck.jpg").write_bytes(ycck)
(folder / "cmyk_plain.jpg").write_bytes(cmyk[:marker] + cmyk[marker + 16:])

expected = {}
for file in sorted(folder.iterdir()):
    if file.suffix != ".safetensors":
        expected[f"{file.name}.rgb"] = np.asarray(Image.open(file).convert("RGB"))
for width, height in [(36, 27), (20, 15), (53, 17), (100, 40), (106, 80), (8, 6), (1, 1)]:
    expected[f"rgb.png.{width}x{height}"] = np.asarray(rgb.resize((width, height), Image.Resampling.LANCZOS))
save_file({k: np.ascontiguousarray(v) for k, v in expected.items()}, folder / "expected.safetensors")
