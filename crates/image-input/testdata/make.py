"""Writes the pictures and expected values of image-input's tests, with Pillow as the oracle.

Run by hand when a case is added; the output is committed. The same Pillow (13.0.0) gives the
same bytes.

    python make.py [FOLDER_OF_PHOTOGRAPHS]

`expected.zlib` holds what each picture decodes to, upright and over white: compressed, and per
picture a line `NAME WIDTH HEIGHT CHANNELS` and the pixels. `resize.txt` has one CRC-32 per
transformed pattern, `one_call.zlib` some of them in the form of `expected.zlib`. `photos.zlib`,
in that form too, is only written when the folder is given: every eighth pixel of each photograph
as an ImageNet model would see it.
"""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# As model.toml's default for a letterbox.
PAD = (114, 114, 114)

expected_values: dict[str, Image.Image] = {}


def scene(width: int, height: int) -> Image.Image:
    """A picture without symmetry: gradients, a bright corner, an edge."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    red = x * 255 // max(width - 1, 1)
    green = y * 255 // max(height - 1, 1)
    blue = np.where(x * height > y * width, 200, 40)
    pixels = np.stack([red, green, blue], -1).astype(np.uint8)
    pixels[: height // 3, : width // 4] = (250, 240, 20)
    return Image.fromarray(pixels)


def pattern(kind: int, width: int, height: int) -> np.ndarray:
    """The pictures of resize.txt; the test builds the same: a hash of each byte's index."""
    index = np.arange(width * height * 3, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    value = (index * np.uint64(0x9E3779B1)) & mask
    value ^= value >> np.uint64(15)
    value = (value * np.uint64(0x85EBCA77)) & mask
    value ^= value >> np.uint64(13)
    noise = (value & np.uint64(255)).astype(np.uint8).reshape(height, width, 3)
    if kind == 0:
        return noise
    if kind == 1:  # hard edges: bicubic overshoots everywhere
        return np.where(noise < 128, 0, 255).astype(np.uint8)
    return np.asarray(scene(width, height))


def upright_over_white(image: Image.Image) -> Image.Image:
    image.seek(0)
    grey = image.mode in ("1", "L", "LA") and image.format not in ("GIF", "BMP")
    if image.mode == "L" and "transparency" in image.info:
        image = image.convert("LA")
    if image.mode == "RGB" and "transparency" in image.info:
        image = image.convert("RGBA")
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "P", "PA"):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("RGB")
        if grey:
            image = image.getchannel(0)
    return image.convert("L" if grey else "RGB")


def expect(name: str, expected: Image.Image | None = None) -> None:
    """Notes what the picture decodes to; Pillow's own answer unless given."""
    if expected is None:
        with Image.open(HERE / name) as image:
            expected = upright_over_white(image)
    expected_values[name] = expected


def write_values(name: str, values: dict[str, Image.Image]) -> None:
    data = b"".join(
        f"{key} {image.width} {image.height} {len(image.getbands())}\n".encode() + image.tobytes()
        for key, image in sorted(values.items())
    )
    (HERE / name).write_bytes(zlib.compress(data, 9))


def save(name: str, image: Image.Image, **options: object) -> None:
    image.save(HERE / name, **options)
    expect(name)


def exif(orientation: int) -> bytes:
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(name: str, pixels: np.ndarray, colour_type: int, interlaced: bool) -> None:
    """Writes what Pillow cannot: 16 bits a sample, and Adam7."""
    height, width, _ = pixels.shape
    bits = pixels.dtype.itemsize * 8
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [
            (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]  # fmt: skip
    rows = b"".join(
        b"\0" + row.astype(f">u{bits // 8}").tobytes()
        for top, left, down, across in passes
        for row in pixels[top::down, left::across]
        if row.size
    )
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    (HERE / name).write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows, 9))
        + png_chunk(b"IEND", b"")
    )


def narrow(pixels: np.ndarray) -> np.ndarray:
    """16 bits to 8, rounded; alpha (the last of 2 or 4 samples) over white first."""
    wide = pixels.astype(np.float64)
    if pixels.shape[2] in (2, 4):
        alpha = wide[..., -1:] / 65535
        wide = wide[..., :-1] * alpha + 65535 * (1 - alpha)
    return np.floor(wide / 257 + 0.5).astype(np.uint8)


def jpegs() -> None:
    image = scene(37, 29)
    for name, options in {
        "444": {"subsampling": "4:4:4"},
        "422": {"subsampling": "4:2:2"},
        "420": {"subsampling": "4:2:0"},
        "420_progressive": {"subsampling": "4:2:0", "progressive": True},
        "444_progressive": {"subsampling": "4:4:4", "progressive": True},
        "420_restart": {"subsampling": "4:2:0", "restart_marker_blocks": 1},
        "quality_30": {"quality": 30},
        "stored_rgb": {"keep_rgb": True, "quality": 95},
    }.items():
        save(f"jpeg_{name}.jpg", image, **({"quality": 85} | options))
    save("jpeg_grey.jpg", image.convert("L"))
    save("jpeg_grey_progressive.jpg", image.convert("L"), progressive=True)
    save("jpeg_cmyk.jpg", image.convert("CMYK"), quality=90)
    # Pillow writes CMYK; the transform byte of Adobe's segment makes it YCCK.
    cmyk = bytearray((HERE / "jpeg_cmyk.jpg").read_bytes())
    cmyk[cmyk.index(b"Adobe") + 11] = 2
    (HERE / "jpeg_ycck.jpg").write_bytes(cmyk)
    expect("jpeg_ycck.jpg")
    for orientation in range(1, 9):
        name = f"exif_{orientation}.jpg"
        save(name, scene(24, 16), quality=95, subsampling="4:4:4", exif=exif(orientation))


def pngs() -> None:
    image = scene(37, 29)
    alpha = Image.fromarray(np.asarray(image)[..., 0].copy())
    rgba = image.copy()
    rgba.putalpha(alpha)
    grey = image.convert("L")
    la = grey.copy()
    la.putalpha(alpha)
    palette = image.quantize(60, dither=Image.Dither.NONE)
    save("png_rgb.png", image)
    save("png_rgba.png", rgba)
    save("png_grey.png", grey)
    save("png_grey_alpha.png", la)
    save("png_palette.png", palette)
    save("png_palette_transparent.png", palette, transparency=bytes(range(0, 240, 4)))
    save("png_palette_4_bits.png", image.quantize(16, dither=Image.Dither.NONE), bits=4)
    save("png_palette_2_bits.png", image.quantize(4, dither=Image.Dither.NONE), bits=2)
    save("png_1_bit.png", grey.convert("1"))
    save("png_grey_transparent.png", grey, transparency=grey.getpixel((30, 20)))
    save("png_rgb_transparent.png", image, transparency=image.getpixel((2, 2)))
    save("png_exif_6.png", scene(24, 16), exif=exif(6))
    frames = [ImageOps.mirror(image), ImageOps.flip(image)]
    save("png_animated.png", image, save_all=True, append_images=frames)
    eight = np.asarray(image)
    write_png("png_interlaced.png", eight, 2, True)
    expect("png_interlaced.png")
    wide = (np.arange(29 * 37 * 4, dtype=np.uint64) * 40503 % 65536).astype(np.uint16)
    wide = wide.reshape(29, 37, 4)
    for name, samples, colour_type, interlaced in (
        ("png_grey_16.png", 1, 0, False),
        ("png_grey_16_interlaced.png", 1, 0, True),
        ("png_grey_alpha_16.png", 2, 4, False),
        ("png_rgb_16.png", 3, 2, False),
        ("png_rgba_16.png", 4, 6, False),
    ):
        pixels = wide[..., :samples]
        write_png(name, pixels, colour_type, interlaced)
        expected = narrow(pixels)
        expect(name, Image.fromarray(expected[..., 0] if samples < 3 else expected))


def others() -> None:
    image = scene(37, 29)
    rgba = image.copy()
    rgba.putalpha(Image.fromarray(np.asarray(image)[..., 1].copy()))
    grey = image.convert("L")
    frames = [ImageOps.mirror(image), ImageOps.flip(image)]
    save("webp_lossy.webp", image, quality=80)
    save("webp_lossy_alpha.webp", rgba, quality=80)
    save("webp_lossless.webp", image, lossless=True)
    save("webp_lossless_alpha.webp", rgba, lossless=True, exact=True)
    save("webp_animated.webp", image, save_all=True, append_images=frames, lossless=True)
    save("webp_exif_8.webp", scene(24, 16), lossless=True, exif=exif(8))

    palette = image.quantize(60, dither=Image.Dither.NONE)
    save("gif_palette.gif", palette)
    save("gif_interlaced.gif", palette, interlace=True)
    save("gif_grey.gif", grey)
    save("gif_transparent.gif", palette, transparency=palette.getpixel((2, 2)))
    save("gif_animated.gif", image, save_all=True, append_images=frames)
    # A frame smaller than its screen: made from a whole one by moving it.
    moved = bytearray((HERE / "gif_palette.gif").read_bytes())
    moved[6:10] = struct.pack("<HH", 50, 40)
    place = moved.index(b"," + struct.pack("<HHHH", 0, 0, 37, 29))
    moved[place + 1 : place + 5] = struct.pack("<HH", 7, 3)
    (HERE / "gif_frame_inside.gif").write_bytes(moved)
    screen = Image.new("RGB", (50, 40), (255, 255, 255))
    screen.paste(palette.convert("RGB"), (7, 3))
    expect("gif_frame_inside.gif", screen)

    save("bmp_rgb.bmp", image)
    save("bmp_rgba.bmp", rgba)
    save("bmp_palette.bmp", palette)
    save("bmp_grey.bmp", grey)
    save("bmp_1_bit.bmp", grey.convert("1"))


def extremes() -> None:
    for extension in ("jpg", "png", "webp", "gif", "bmp"):
        save(f"one_pixel.{extension}", Image.new("RGB", (1, 1), (200, 100, 50)))
    for name, size in (("tall", (1, 16384)), ("wide", (16384, 1))):
        line = scene(1, 16384) if name == "tall" else scene(16384, 1)
        assert line.size == size
        save(f"{name}.png", line.convert("L"), optimize=True)
        save(f"{name}.jpg", line.convert("L"), quality=50)


def transform(image: Image.Image, policy: str, shorter: int, height: int, width: int,
              resample: Image.Resampling, one_call: bool = False) -> Image.Image:  # fmt: skip
    """Resizes as torchvision (`shorter-side`) and Ultralytics (`letterbox`) do."""
    w, h = image.size
    fill = (0, 0, 0)
    if policy == "exact":
        new_w, new_h = width, height
    elif policy == "shorter-side":
        short, long = (w, h) if w <= h else (h, w)
        new_short, new_long = shorter, int(shorter * long / short)
        new_w, new_h = (new_short, new_long) if w <= h else (new_long, new_short)
    else:
        ratio = min(height / h, width / w)
        new_w, new_h = max(round(w * ratio), 1), max(round(h * ratio), 1)
        fill = PAD
    if not one_call and resample != FILTERS["nearest"]:
        # Rows first, as every Pillow before 13 does in one call. Pillow 13 takes columns first
        # where the height shrinks more, which rounds otherwise, by at most 1 level when bilinear.
        image = image.resize((new_w, h), resample)
    image = image.resize((new_w, new_h), resample)
    if new_w < width or new_h < height:
        left, top = max((width - new_w) // 2, 0), max((height - new_h) // 2, 0)
        grown = (max(new_w, width), max(new_h, height))
        colour = fill if image.mode == "RGB" else fill[0]
        canvas = Image.new(image.mode, grown, colour)
        canvas.paste(image, (left, top))
        image = canvas
        new_w, new_h = grown
    top, left = int(round((new_h - height) / 2.0)), int(round((new_w - width) / 2.0))
    return image.crop((left, top, left + width, top + height))


def resizes() -> None:
    cases = [
        # kind, source (w, h), policy, shorter side, tensor (h, w)
        *[(kind, size, "shorter-side", 256, (224, 224))
          for kind in range(3)
          for size in ((500, 375), (375, 500), (256, 256), (343, 256), (640, 480))],
        (0, (500, 332), "shorter-side", 236, (224, 224)),
        (0, (61, 47), "shorter-side", 256, (224, 224)),
        (1, (1200, 900), "shorter-side", 256, (224, 224)),
        (0, (97, 1001), "shorter-side", 32, (28, 28)),
        (0, (40, 30), "shorter-side", 20, (24, 24)),
        *[(kind, size, "exact", 0, tensor)
          for kind in range(3)
          for size, tensor in (((500, 375), (227, 227)), ((1, 1), (7, 5)), ((1000, 3), (64, 64)),
                               ((3, 1000), (64, 64)), ((224, 500), (224, 224)),
                               ((500, 224), (224, 224)), ((61, 47), (47, 61)),
                               ((9, 7), (97, 131)))],
        *[(0, size, "letterbox", 0, (96, 128))
          for size in ((500, 375), (375, 500), (640, 480), (30, 20), (128, 96), (2, 1000))],
    ]  # fmt: skip
    lines = []
    for kind, (w, h), policy, shorter, (height, width) in cases:
        source = Image.fromarray(pattern(kind, w, h))
        for channels, mode in (("rgb", "RGB"), ("grey", "L")):
            for name, resample in FILTERS.items():
                made = transform(source.convert(mode), policy, shorter, height, width, resample)
                crc = zlib.crc32(made.tobytes())
                lines.append(
                    f"{kind} {w} {h} {policy} {shorter} {height} {width} {channels} {name} {crc:08x}"
                )
    (HERE / "resize.txt").write_text("\n".join(lines) + "\n")

    # What Pillow 13 gives in one call, within 1 level.
    values = {}
    for kind, w, h, height, width in (
        (0, 97, 1001, 28, 28), (1, 97, 1001, 28, 28), (1, 3, 1000, 30, 30), (1, 61, 47, 30, 50),
    ):  # fmt: skip
        source = Image.fromarray(pattern(kind, w, h))
        made = transform(source, "exact", 0, height, width, FILTERS["bilinear"], one_call=True)
        values[f"{kind}_{w}_{h}"] = made
    write_values("one_call.zlib", values)


def photos(folder: Path) -> None:
    values = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".jpg", ".png"):
            with Image.open(path) as image:
                bilinear = FILTERS["bilinear"]
                made = transform(image.convert("RGB"), "shorter-side", 256, 224, 224, bilinear)
            values[path.name] = Image.fromarray(np.asarray(made)[4::8, 4::8].copy())
    write_values("photos.zlib", values)


def main() -> None:
    jpegs()
    pngs()
    others()
    extremes()
    write_values("expected.zlib", expected_values)
    resizes()
    if len(sys.argv) > 1:
        photos(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
