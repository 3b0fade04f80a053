"""Every kind of picture in eight bits and upright, against numpy and against what a viewer shows."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder

from neuronx.data import files, pixels
from neuronx.data.files import examined, open_rgb, scale_for
from neuronx.data.folder import FolderProbe
from neuronx.data.in_memory import probe_of
from neuronx.data.pixels import Scale, rgb
from neuronx.errors import UserError

RAMP = np.tile(np.linspace(0, 1, 40), (4, 1))
EIGHT = (RAMP * 255).round()


def turned_photo(orientation, suffix="jpg", side=(24, 16)):
    """A file that a viewer shows with a red corner, top left."""
    shown = np.full((side[1], side[0], 3), 40, np.uint8)
    shown[:6, :8] = (220, 40, 40)
    stored = Image.fromarray(shown)
    if orientation > 1:
        stored = stored.transpose(pixels.TURNS[pixels.BACK.get(orientation, orientation)])
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored.save(file, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix), exif=exif, quality=95)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "values", "white"),
    [
        ("a.png", (RAMP * 65535).round().astype(np.uint16), 65535),
        ("a.tif", (RAMP * 4095).round().astype(np.uint16), 4095),
        ("b.png", (RAMP * 4095).round().astype(np.uint16), 4095),
        ("c.png", (RAMP * 1000).round().astype(np.uint16), 1023),
        ("d.png", (RAMP * 200).round().astype(np.uint16), 255),
        ("e.tif", (RAMP * 1e5).round().astype(np.int32), 2**24 - 1),
        ("f.tif", RAMP.astype(np.float32), 1),
        ("g.tif", (RAMP * 0.3).astype(np.float32), 1),
        ("h.tif", (RAMP * 900).astype(np.float32), 900),
    ],
)
def test_grey_values_of_any_depth(tmp_path, name, values, white):
    Image.fromarray(values).save(tmp_path / name)
    shown = np.asarray(open_rgb(tmp_path / name)).astype(float)
    assert np.abs(shown - values[..., None] * (255.0 / white)).max() <= 0.51


def test_negative_values_nan_and_infinity():
    signed = rgb(Image.fromarray((RAMP * 4000 - 1000).round().astype(np.int32)))
    assert np.array_equal(np.asarray(signed)[..., 0], EIGHT)
    values = (RAMP * 20 - 5).astype(np.float32)
    values[1, 3], values[2, 3], values[3, 3] = np.nan, np.inf, -np.inf
    shown = np.asarray(rgb(Image.fromarray(values)))[..., 1]
    assert shown[1:, 3].tolist() == [0, 255, 0] and np.array_equal(shown[0], EIGHT[0])
    assert np.asarray(rgb(Image.fromarray(np.full((2, 2), 7, np.float32)))).max() == 0


def test_white_is_zero_tiffs_are_negatives(tmp_path):
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(tmp_path / "x.tif", tiffinfo={262: 0})
    if Image.open(tmp_path / "x.tif").tag_v2[262] != 0:
        pytest.skip("this Pillow writes no such file")
    assert np.asarray(open_rgb(tmp_path / "x.tif"))[0, 0, 0] == 255


def test_one_scale_for_all_pictures_of_a_data_set(tmp_path, caplog):
    for i, white in enumerate((300, 4000, 60)):
        Image.fromarray((RAMP * white).round().astype(np.uint16)).save(tmp_path / f"{i}.png")
    probe = FolderProbe(tmp_path)
    tops = [int(np.asarray(picture).max()) for picture in probe.load([0, 1, 2])]
    assert tops == [round(white * 255 / 4095) for white in (300, 4000, 60)]
    assert f"3 pictures of {probe.name} are grey of more than 8 bits: 0 is black, 4095 white" in caplog.text
    before = probe.fingerprint
    Image.fromarray((RAMP * 60000).round().astype(np.uint16)).save(tmp_path / "3.png")
    assert FolderProbe(tmp_path)._scale == Scale((0, 65535)) and FolderProbe(tmp_path).fingerprint != before


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16", "PA"])
def test_every_mode_of_pil_becomes_rgb(mode, recwarn):
    source = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8))
    shown = rgb(source.convert("P").convert(mode) if mode == "PA" else source.convert("L" if "I" in mode else mode))
    assert shown.mode == "RGB" and shown.size == (5, 6) and not recwarn


def test_transparent_palettes_and_moving_pictures(tmp_path, recwarn, caplog):
    still = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).convert("P")
    still.save(tmp_path / "p.png", transparency=bytes(range(48)))
    still.save(tmp_path / "m.gif", save_all=True, append_images=[still.transpose(Image.Transpose.ROTATE_180)])
    Image.new("L", (8, 6), 9).save(tmp_path / "s.tif", save_all=True, append_images=[Image.new("L", (3, 3))])
    found = FolderProbe(tmp_path).load([0, 1, 2])
    assert [picture.size for picture in found] == [(8, 6)] * 3 and not recwarn
    assert np.array_equal(np.asarray(found[0]), np.asarray(found[1])) and np.asarray(found[2]).max() == 9
    assert "2 files of" in caplog.text and "hold several pictures; the first of each is read" in caplog.text


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_unless_asked_not_to_be(tmp_path, suffix, orientation):
    (tmp_path / f"a.{suffix}").write_bytes(turned_photo(orientation, suffix))
    shown = np.asarray(open_rgb(tmp_path / f"a.{suffix}")).astype(int)
    assert shown.shape == (16, 24, 3) and shown[1:5, 1:7, 0].min() > 150 > shown[:, 10:, 0].max()
    stored = open_rgb(tmp_path / f"a.{suffix}", upright=False)
    assert stored.size == ((16, 24) if orientation > 4 else (24, 16))
    assert (
        np.abs(np.asarray(stored.transpose(pixels.TURNS[orientation]) if orientation > 1 else stored) - shown).max() < 9
    )
    file = examined(tmp_path, [f"a.{suffix}"], "x")[0]
    assert file.turn == orientation and file.size == stored.size[::-1] and file.lies() == (16, 24)


def test_damaged_and_senseless_exif_turns_nothing():
    picture = Image.new("RGB", (8, 4))
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage", b""):
        picture.info["exif"] = exif
        assert rgb(picture).size == (8, 4)
    exif = Image.Exif()
    exif[0x0112] = 9
    picture.info["exif"] = exif.tobytes()
    assert rgb(picture).size == (8, 4)


def test_turning_is_part_of_the_fingerprint(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(turned_photo(6 if i else 1))
    shown, stored = FolderProbe(tmp_path), FolderProbe(tmp_path, upright=False)
    assert shown.fingerprint != stored.fingerprint
    assert [picture.size for picture in stored.load([0, 1])] == [(24, 16), (16, 24)]
    for i in (1, 2):
        (tmp_path / f"{i}.jpg").write_bytes(turned_photo(1))
    assert FolderProbe(tmp_path).fingerprint == FolderProbe(tmp_path, upright=False).fingerprint


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_pictures_are_read_reduced(tmp_path, monkeypatch, suffix, orientation):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # PIL refuses more than twice as many
    monkeypatch.setattr(pixels, "WHOLE", 300)
    monkeypatch.setattr(pixels, "REDUCED", 200)
    (tmp_path / f"a.{suffix}").write_bytes(turned_photo(orientation, suffix, (50, 30)))
    file = examined(tmp_path, [f"a.{suffix}"], "x")[0]
    shown = open_rgb(tmp_path / f"a.{suffix}")
    assert not file.fault and file.lies() == (30, 50) and shown.size == (13, 8) == file.shown()[::-1]
    assert np.asarray(shown)[0, 0, 0] > 150 and Image.MAX_IMAGE_PIXELS == 300


def test_reduced_deep_pictures_keep_their_values(monkeypatch):
    monkeypatch.setattr(pixels, "WHOLE", 100)
    monkeypatch.setattr(pixels, "REDUCED", 50)
    shown = rgb(Image.fromarray((RAMP * 65535).astype(np.uint16)))
    assert shown.size == (20, 2) and np.abs(np.asarray(shown)[0, :, 0] - EIGHT[0].reshape(20, 2).mean(1)).max() <= 1


def test_what_is_no_picture_says_why(tmp_path):
    whole = turned_photo(1)
    said = {
        "empty.jpg": (b"", "is empty"),
        "lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer"),
        "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(40), "is HEIC"),
        "text.jpg": (b"hello", "is no picture"),
        "cut.jpg": (whole[: len(whole) * 2 // 3], "is damaged or cut short"),
        "nan.tif": (None, "holds no finite number"),
    }
    for name, (data, _) in said.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    Image.fromarray(np.full((3, 3), np.nan, np.float32)).save(tmp_path / "nan.tif")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    found = examined(tmp_path, [*said, "link.png"], "x")
    for file, (_, why) in zip(found, [*said.values(), (None, "no such file")], strict=True):
        assert file.fault.startswith(why)
    (tmp_path / "text.jpg").write_bytes(turned_photo(1, "png"))
    assert not examined(tmp_path, ["text.jpg"], "x")[0].fault, "a PNG that is called .jpg is a picture"
    assert scale_for([], "x") == Scale()


def colours_of_16_bits(values):
    """A PNG (H, W, 3) uint16, which PIL does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0), b"IDAT" + zlib.compress(rows), b"IEND")
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_colours_of_16_bits_and_of_12_in_16(tmp_path):
    for name, white in (("full.png", 65535), ("dark.png", 4095)):
        (tmp_path / name).write_bytes(colours_of_16_bits(np.repeat((RAMP * white).astype(np.uint16)[..., None], 3, 2)))
    assert np.abs(np.asarray(open_rgb(tmp_path / "full.png"))[..., 1] - EIGHT).max() <= 1
    with pytest.raises(UserError, match="at most 12 of their 16 bits"):
        open_rgb(tmp_path / "dark.png")
    with pytest.raises(UserError, match=r"1 of 2 images .*dark.png \(has colours that use at most 12 of their 16 bits"):
        FolderProbe(tmp_path)


def test_files_that_vanish_are_named(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(turned_photo(i + 1))
    probe = FolderProbe(tmp_path)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(UserError, match=r"1.jpg cannot be read, but could be before: .*No such file"):
        probe.load([1])


def test_files_that_say_they_are_endless_are_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 100)
    (tmp_path / "a.png").write_bytes(turned_photo(1, "png"))
    assert examined(tmp_path, ["a.png"], "x")[0].fault == "24 x 16 pixels are too many"


def test_what_pil_shows_is_what_we_show():
    picture = Image.open(io.BytesIO(turned_photo(6)))
    assert np.array_equal(np.asarray(rgb(picture)), np.asarray(ImageOps.exif_transpose(picture).convert("RGB")))


def test_pictures_from_python_are_read_alike(tmp_path):
    root = tmp_path / "set" / "a"
    root.mkdir(parents=True)
    for i, orientation in enumerate((1, 6, 3)):
        (root / f"{i}.jpg").write_bytes(turned_photo(orientation))
    files_of = FolderProbe(root)
    opened = probe_of([Image.open(root / path) for path in files_of.paths])
    from_bytes = probe_of([(root / path).read_bytes() for path in files_of.paths])
    from_torchvision = probe_of(ImageFolder(tmp_path / "set"))
    for probe in (opened, from_bytes, from_torchvision):
        pairs = zip(probe.load([0, 1, 2]), files_of.load([0, 1, 2]), strict=True)
        assert all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in pairs)
    assert [picture.size for picture in probe_of(opened.pictures, upright=False).load([1, 2])] == [(16, 24), (24, 16)]


def test_deep_pictures_from_python_share_a_scale():
    pictures = [Image.fromarray((RAMP * white).round().astype(np.uint16)) for white in (300, 4000)]
    probe = probe_of(pictures)
    assert [int(np.asarray(picture).max()) for picture in probe.load([0, 1])] == [19, 249]
    assert probe.fingerprint != probe_of(pictures[::-1]).fingerprint


def test_damaged_pictures_from_python_are_named():
    whole = turned_photo(1)
    with pytest.raises(UserError, match="Picture 1 of `memory` does not decode: "):
        probe_of([Image.new("RGB", (3, 3)), Image.open(io.BytesIO(whole[:-20]))])
    with pytest.raises(UserError, match=r"Picture 1 of `memory` is no picture, but 5 bytes \(is no picture\)"):
        probe_of([whole, b"hello"])


def test_copies_are_said(tmp_path, caplog):
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(turned_photo(1 + i // 2))
    FolderProbe(tmp_path)
    assert "2 pictures of" in caplog.text and "are copies of others" in caplog.text
