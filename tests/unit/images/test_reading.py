from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from redis_consumer.errors import InvalidImage
from redis_consumer.images import Image, ImageLimits, get_image, open_image, read_image
from redis_consumer.images.windows import open_windowed
from support.attacks import Tag, plane, tiff

NUCLEI = Path(__file__).parents[3] / "data" / "nuclei.tif"
STACK = (np.arange(5 * 30 * 40).reshape(5, 30, 40) % 251).astype(np.uint8)
PLANE = STACK[1]
COLOUR = np.moveaxis(STACK[:3], 0, -1).copy()


def write_tiff(path: Path, array: Any, **options: Any) -> Path:
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    return path


def classic_header(width: int, height: int, *, bits: int = 8) -> bytes:
    """An uncompressed TIFF of one strip whose pixels are missing."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 200), (277, 1), (278, height)]
    tags.append((279, min(width * height * bits // 8, 2**32 - 1)))
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + body + b"\0\0\0\0" + b"\0" * 200


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InvalidImage) as caught:
        read_image(path, name="cells of Ann.tif", **options)
    message = str(caught.value)
    assert message.startswith("cells of Ann.tif: ")
    assert ";" in message
    assert str(path.parent) not in message
    return message


def test_reads_the_real_image() -> None:
    image = read_image(NUCLEI)
    assert (image.axes, image.array.shape) == ("YX", (1024, 1344))
    assert image.array.dtype == np.uint8
    assert image.name == "nuclei.tif"


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits", "lzma"])
def test_reads_every_usual_compression(tmp_path: Path, compression: str | None) -> None:
    image = read_image(write_tiff(tmp_path / "a.tif", STACK, compression=compression))
    assert np.array_equal(image.array, STACK)
    assert image.axes == "BYX"


def test_reads_jpeg_in_tiff(tmp_path: Path) -> None:
    flat = np.full((32, 48), 77, np.uint8)
    image = read_image(write_tiff(tmp_path / "a.tif", flat, compression="jpeg"))
    assert np.abs(image.array.astype(int) - 77).max() <= 1


@pytest.mark.parametrize(
    "options",
    [{"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16), "compression": "zlib"}, {"rowsperstrip": 7}],
    ids=["bigtiff", "big-endian", "tiles", "strips"],
)
def test_reads_every_layout(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = PLANE.astype(np.uint16) * 200
    assert np.array_equal(read_image(write_tiff(tmp_path / "a.tif", pixels, **options)).array, pixels)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64"]
)
def test_keeps_the_dtype_of_the_file(tmp_path: Path, dtype: str) -> None:
    assert read_image(write_tiff(tmp_path / "a.tif", PLANE.astype(dtype))).array.dtype == dtype


def test_imagej_gives_axes_and_pixel_size(tmp_path: Path) -> None:
    pixels = np.zeros((4, 3, 20, 30), np.uint16)
    path = write_tiff(
        tmp_path / "a.tif", pixels, imagej=True, resolution=(2, 2), metadata={"axes": "TCYX", "unit": "um"}
    )
    image = read_image(path)
    assert (image.axes, image.array.shape, image.pixel_size_um) == ("TCYX", (4, 3, 20, 30), 0.5)


def test_ome_gives_axes_and_pixel_size(tmp_path: Path) -> None:
    sizes = {f"PhysicalSize{axis}": 650.0 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    image = read_image(write_tiff(tmp_path / "a.ome.tif", STACK, ome=True, metadata={"axes": "CYX", **sizes}))
    assert image.axes == "CYX"
    assert image.pixel_size_um == pytest.approx(0.65)


@pytest.mark.parametrize(
    ("per_cm", "pixel_size_um"),
    [((20000, 20000), 0.5), ((28, 28), None), ((20000, 10000), None)],
    ids=["microscope", "print", "not square"],
)
def test_plain_resolution_counts_where_it_is_a_measurement(
    tmp_path: Path, per_cm: tuple[int, int], pixel_size_um: float | None
) -> None:
    path = write_tiff(tmp_path / "a.tif", PLANE, resolution=per_cm, resolutionunit="CENTIMETER")
    assert read_image(path).pixel_size_um == pixel_size_um


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_tiff_has_samples(tmp_path: Path, planar: str) -> None:
    pixels = COLOUR if planar == "contig" else STACK[:3]
    image = read_image(write_tiff(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar))
    assert image.axes == ("YXS" if planar == "contig" else "SYX")


def test_preview_behind_the_image_is_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(PLANE)
        tif.write(PLANE[::2, ::2])
    assert read_image(tmp_path / "a.tif").array.shape == PLANE.shape


@pytest.mark.parametrize(
    ("mode", "suffix", "axes", "dtype"),
    [
        ("L", "png", "YX", "uint8"),
        ("1", "png", "YX", "uint8"),
        ("LA", "png", "YX", "uint8"),
        ("P", "png", "YXS", "uint8"),
        ("RGB", "png", "YXS", "uint8"),
        ("RGBA", "png", "YXS", "uint8"),
        ("I;16", "png", "YX", "uint16"),
        ("L", "jpg", "YX", "uint8"),
        ("RGB", "jpg", "YXS", "uint8"),
        ("CMYK", "jpg", "YXS", "uint8"),
        ("L", "bmp", "YX", "uint8"),
        ("P", "gif", "YXS", "uint8"),
        ("L", "pgm", "YX", "uint8"),
        ("I;16", "pgm", "YX", "uint16"),
        ("RGB", "ppm", "YXS", "uint8"),
        ("L", "jp2", "YX", "uint8"),
    ],
)
def test_reads_pictures(tmp_path: Path, mode: str, suffix: str, axes: str, dtype: str) -> None:
    picture = (
        Pillow.fromarray(PLANE.astype(np.uint16) * 9) if mode == "I;16" else Pillow.fromarray(COLOUR).convert(mode)
    )
    picture.save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.axes == axes
    assert image.array.shape[:2] == PLANE.shape
    assert image.array.dtype == ("int32" if (mode, suffix) == ("I;16", "pgm") else dtype)


def test_grey_png_keeps_its_values(tmp_path: Path) -> None:
    Pillow.fromarray(PLANE).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").array, PLANE)


def test_colour_png_of_16_bits_keeps_them(tmp_path: Path) -> None:
    import imagecodecs

    deep = COLOUR.astype(np.uint16) * 257 + 3
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    assert np.array_equal(read_image(tmp_path / "a.png").array, deep)


@pytest.mark.parametrize(("shape", "axes"), [((4, 5), "YX"), ((4, 5, 2), "YXC"), ((3, 4, 5, 2), "BYXC")])
def test_reads_npy_of_image_ranks(tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
    pixels = np.arange(np.prod(shape), dtype=">i2").reshape(shape)
    np.save(tmp_path / "a.npy", pixels)
    image = read_image(tmp_path / "a.npy")
    assert image.axes == axes
    assert np.array_equal(image.array, pixels)
    assert image.array.dtype.isnative


def test_suffix_is_only_a_hint(tmp_path: Path) -> None:
    Pillow.fromarray(PLANE).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif").array, PLANE)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty"),
        (b"Dear colleague, attached are the cells.", "isn't an image of a known format"),
        (b"PK\x03\x04 and more", "zip archive"),
        (b"II*\0", "cut off"),
        (b"\x89PNG\r\n\x1a\nnothing", "damaged or cut off"),
        (b"\xff\xd8\xff\xe0", "damaged or cut off"),
        (b"\x93NUMPY\x01\x00", "damaged or cut off"),
        (classic_header(1_000_000, 1_000_000), "cut off"),
        (b"P5 1000000 1000000 255\n", "claims more pixels"),
        (b"P5 3000 20 255\n", "3000 px wide, allowed are 2048 px"),
    ],
    ids=[
        "empty",
        "text",
        "zip",
        "magic only",
        "png magic",
        "jpeg magic",
        "npy magic",
        "huge tiff",
        "huge pgm",
        "wide pgm",
    ],
)
def test_refuses_files_that_are_no_image(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "x.tif").write_bytes(content)
    assert part in refusal(tmp_path / "x.tif")


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)}, {"imagej": True},
     {"ome": True, "metadata": {"axes": "CYX"}}, {"bigtiff": True}, {"photometric": "rgb"}],
    ids=["plain", "zlib", "lzw tiles", "imagej", "ome", "bigtiff", "rgb"],
)  # fmt: skip
def test_refuses_truncated_tiff(tmp_path: Path, options: dict[str, Any], fraction: float) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (30, 40, 3) if "photometric" in options else (5, 30, 40)).astype(np.uint8)
    whole = write_tiff(tmp_path / "a.tif", pixels, **options).read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(len(whole) * fraction)])
    assert "cut off" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "pgm", "jp2", "npy"])
def test_refuses_truncated_pictures(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, pixels)
    else:
        Pillow.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged or cut off" in refusal(path)


@pytest.mark.parametrize(
    ("dtype", "value", "part"),
    [("float32", -np.inf, "infinite"), ("float16", np.inf, "infinite"),
     ("float64", 1e300, "range of float32"), ("complex64", 1, "aren't real numbers")],
)  # fmt: skip
def test_refuses_values_that_are_no_intensities(tmp_path: Path, dtype: str, value: float, part: str) -> None:
    pixels = np.zeros((6, 7), dtype)
    pixels[3, 4] = value
    np.save(tmp_path / "a.npy", pixels)
    assert part in refusal(tmp_path / "a.npy")
    assert part in refusal(write_tiff(tmp_path / "a.tif", pixels))


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((0, 5)), "no pixels"),
        (np.array([[{"a": 1}]], dtype=object), "NPY of Python objects"),
        (np.zeros(4, dtype=[("a", "i4")]).reshape(2, 2), "aren't real numbers"),
        (np.array([["a", "b"]]), "aren't real numbers"),
        (np.zeros(5), "rank 1"),
        (np.zeros((1, 1, 1, 1, 1, 2, 2)), "rank 7"),
        (np.float64(3), "rank 0"),
    ],
    ids=["0 px", "objects", "records", "texts", "rank 1", "rank 7", "rank 0"],
)
def test_refuses_arrays_that_are_no_image(tmp_path: Path, array: Any, part: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    assert part in refusal(tmp_path / "a.npy")


def test_refuses_npy_whose_header_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    (tmp_path / "a.npy").write_bytes(buffer.getvalue() + b"\0" * 64)
    assert "damaged or cut off" in refusal(tmp_path / "a.npy")


def test_refuses_a_decompression_bomb_by_its_header(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((1, 40_000), np.uint8), compression="zlib")
    assert "40000 px wide, allowed are 2048 px (MAX_IMAGE_WIDTH)" in refusal(path)


def test_refuses_a_png_bomb_without_a_warning(tmp_path: Path) -> None:
    Pillow.new("1", (12_000, 9_000)).save(tmp_path / "a.png")
    assert "9000 px high" in refusal(tmp_path / "a.png")


def test_refuses_more_bytes_than_allowed(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", STACK)
    assert "split the image" in refusal(path, limits=ImageLimits(max_bytes=STACK.nbytes - 1))
    assert read_image(path, limits=ImageLimits(max_bytes=STACK.nbytes)).array.shape == STACK.shape


def test_refuses_more_frames_than_allowed(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((4, 3, 8, 9), np.uint8), imagej=True, metadata={"axes": "TCYX"})
    assert "4 frames, allowed are 3 (MAX_IMAGE_FRAMES)" in refusal(path, limits=ImageLimits(max_frames=3))
    assert read_image(path, limits=ImageLimits(max_frames=4)).array.shape == (4, 3, 8, 9)


def test_counts_frames_before_it_decodes_them(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", STACK, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        start, length = tif.pages.first.dataoffsets[0], tif.pages.first.databytecounts[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + b"?" * length + whole[start + length :])
    assert "damaged" in refusal(path)
    assert "5 frames, allowed are 4" in refusal(path, limits=ImageLimits(max_frames=4))


def test_refuses_tiles_far_larger_than_the_image(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", PLANE, tile=(4096, 4096), compression="zlib")
    assert "MiB" in refusal(path, limits=ImageLimits(max_bytes=1 << 20))


def test_refuses_several_images_in_one_file(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(PLANE[:10])
        tif.write(PLANE)
    assert "holds 2 images (0, 1); name one in field field_of_view" in refusal(tmp_path / "a.tif")
    with open_image(tmp_path / "a.tif", limits=ImageLimits(), name="a.tif", field="0") as opened:
        assert np.array_equal(opened.read().array, PLANE[:10])
    with open_windowed(tmp_path / "a.tif", name="a.tif", field="1") as image:
        assert np.array_equal(image.read(0, (slice(0, 30), slice(0, 40)))[0, ..., 0], PLANE)


def test_refuses_an_animation(tmp_path: Path) -> None:
    frames = [Pillow.fromarray(plane) for plane in STACK]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "several pictures" in refusal(tmp_path / "a.gif")


def test_refuses_an_unknown_compression_by_its_code(tmp_path: Path) -> None:
    content = write_tiff(tmp_path / "a.tif", PLANE, compression="zlib").read_bytes()
    entry = struct.pack("<HHIHH", 259, 3, 1, 8, 0)
    assert content.count(entry) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(entry, struct.pack("<HHIHH", 259, 3, 1, 4242, 0)))
    assert "compression 4242" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["png", "lerc", "jpegxl", "jpegxr"])
def test_reads_compressions_that_are_pictures(tmp_path: Path, compression: str) -> None:
    assert np.array_equal(read_image(write_tiff(tmp_path / "a.tif", STACK, compression=compression)).array, STACK)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_reads_fax_compressions(tmp_path: Path, compression: str) -> None:
    Pillow.fromarray(PLANE > 125).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(read_image(tmp_path / "a.tif").array.astype(bool), PLANE > 125)


def test_a_tiff_that_does_not_say_what_white_is_is_read_as_it_is_stored(tmp_path: Path) -> None:
    tags = [each for each in plane() if each[0] != 262]
    (tmp_path / "a.tif").write_bytes(tiff(tags, pixels=bytes(range(256))))
    assert np.array_equal(read_image(tmp_path / "a.tif").array.ravel(), range(256))


def subsampled(path: Path) -> None:
    """A whole TIFF of YCbCr with a colour for 2 x 2 px, whose pixels are only deflated."""
    height, width = 16, 24
    data = zlib.compress(bytes(height // 2 * width // 2 * 6))
    values = {256: width, 257: height, 258: 8, 259: 8, 262: 6, 273: 8, 277: 3, 278: height, 279: len(data), 284: 1}
    tags = [*((code, 4, 1, value) for code, value in values.items()), (530, 3, 2, 2 | 2 << 16)]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    start = 8 + len(data)
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + data + struct.pack("<H", len(tags)) + body + bytes(4))


def test_subsampled_colours_are_refused_by_their_name(tmp_path: Path) -> None:
    subsampled(tmp_path / "a.tif")
    assert "YCbCr colours with 2 x 2 subsampling" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("tag", "value", "part"),
    [(317, 77, "TIFF predictor 77"), (339, 2, "TIFF of 24-bit signed samples"), (339, 3, "7-bit floating-point")],
)
def test_samples_that_no_decoder_knows_are_refused_by_their_kind(
    tmp_path: Path, tag: int, value: int, part: str
) -> None:
    bits = 24 if value == 2 else 7
    tags: dict[int, Tag] = {tag: (tag, 3, 1, value)}
    if tag == 339:
        tags[258] = (258, 3, 1, bits)
    given = {each[0]: each for each in plane(compression=8)} | tags
    (tmp_path / "a.tif").write_bytes(tiff(list(given.values()), pixels=bytes(2000)))
    assert part in refusal(tmp_path / "a.tif")


def test_name_defaults_to_the_file_name_without_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(InvalidImage, match=r"^a\.tif: "):
        read_image(tmp_path / "a.tif")


def test_a_missing_file_is_no_fault_of_the_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "a.tif")


def as_tiff() -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PLANE, compression="zlib")
    return buffer.getvalue()


def as_picture(kind: str) -> Callable[[], bytes]:
    def encode() -> bytes:
        buffer = io.BytesIO()
        Pillow.fromarray(PLANE).save(buffer, kind)
        return buffer.getvalue()

    return encode


def as_npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, PLANE.astype(np.float32))
    return buffer.getvalue()


WHOLE = [as_tiff(), as_picture("PNG")(), as_picture("JPEG")(), as_picture("GIF")(), as_picture("JPEG2000")(), as_npy()]


def check_image_or_refusal(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        image = read_image(path, limits=ImageLimits(max_bytes=1 << 26))
    except InvalidImage:
        return
    assert image.array.nbytes <= 1 << 26
    assert np.isfinite(image.array).all()


@given(magic=st.sampled_from([b"", *(content[:12] for content in WHOLE)]), rest=st.binary(max_size=300))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_an_image_or_a_refusal(tmp_path: Path, magic: bytes, rest: bytes) -> None:
    check_image_or_refusal(tmp_path / "a.tif", magic + rest)


@given(whole=st.sampled_from(WHOLE), position=st.integers(0, 10_000), change=st.binary(min_size=1, max_size=8))
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_give_an_image_or_a_refusal(tmp_path: Path, whole: bytes, position: int, change: bytes) -> None:
    at = position % min(len(whole), 400)
    check_image_or_refusal(tmp_path / "a.png", whole[:at] + change + whole[at + len(change) :])


def test_get_image_gives_tiff_a_channel_axis(tmp_path: Path) -> None:
    array = get_image(str(write_tiff(tmp_path / "a.tif", STACK)))
    assert array.shape == (5, 30, 40, 1)
    assert array.dtype == np.float32


def test_get_image_gives_pictures_channels_last(tmp_path: Path) -> None:
    Pillow.fromarray(PLANE).save(tmp_path / "a.png")
    Pillow.fromarray(COLOUR).save(tmp_path / "b.png")
    assert get_image(tmp_path / "a.png").shape == (30, 40, 1)
    assert get_image(tmp_path / "b.png").shape == (30, 40, 3)


def test_get_image_has_no_side_limit(tmp_path: Path) -> None:
    assert get_image(write_tiff(tmp_path / "a.tif", np.zeros((3000, 2), np.uint8))).shape == (3000, 2, 1)


def test_axes_of_an_image_fit_its_array() -> None:
    with pytest.raises(ValueError, match="don't fit"):
        Image(PLANE, "YXC")
