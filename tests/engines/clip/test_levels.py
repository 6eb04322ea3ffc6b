"""Kinds of masks: each becomes brightness, and values that look like labels are noted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.image_file import ImageFile
from page4d_engines.clip.levels import Channel, Levels
from tests.support.clips import write_png

RAMP = np.tile(np.arange(48, dtype=np.uint8) * 5, (36, 1))
MASK = np.zeros((36, 48), np.uint8)
MASK[8:20, 10:30] = 1


def palette(indices, colours):
    image = Image.fromarray(indices, "P")
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def alpha(grey, opacity):
    image = Image.fromarray(grey)
    image.putalpha(Image.fromarray(opacity))
    return image


DAVIS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
KINDS = {  # the mask, what its values become, a word of the note
    "black and white": (Image.fromarray(MASK * 255), MASK * 255, None),
    "one bit": (Image.fromarray(MASK * 255).convert("1"), MASK * 255, None),
    "soft": (Image.fromarray(RAMP), RAMP, None),
    "0 and 1": (Image.fromarray(MASK), MASK, "only the values 0, 1 of 255: they look like labels"),
    "labels": (Image.fromarray(MASK * 3), MASK * 3, "only the values 0, 3 of 255"),
    "large labels": (Image.fromarray(MASK * 200), MASK * 200, "only the values 0, 200 of 255: if these are labels"),
    "palette of labels": (palette(MASK * 2, DAVIS), MASK * 75, "0, 75, colours of a palette,"),
    "palette of black and white": (palette(MASK, [(0, 0, 0), (255, 255, 255)]), MASK * 255, None),
    "colours": (Image.fromarray(np.stack([MASK * 255, MASK * 0, MASK * 0], -1)), MASK * 76, "only the values 0, 76"),
    "opaque": (alpha(MASK * 255, MASK * 0 + 255), MASK * 255, None),
    "transparent background": (alpha(MASK * 0 + 255, MASK * 255), MASK * 255, None),
    "black on nothing": (alpha(MASK * 0, MASK * 255), MASK * 0, "transparency alone"),
    "16 bits": (Image.fromarray(MASK.astype(np.uint16) * 65535), MASK * 255, None),
    "16 bits, labels": (Image.fromarray(MASK.astype(np.uint16) * 2), MASK * 0, "16 bits and no value above 2 of 65535"),
    "16 bits, 8 used": (Image.fromarray(MASK.astype(np.uint16) * 255), MASK, "16 bits and no value above 255 of 65535"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mask_becomes_brightness_and_odd_values_are_noted(tmp_path, kind):
    image, brightness, words = KINDS[kind]
    for folder in ("frames", "masks"):
        (tmp_path / folder / "cam0").mkdir(parents=True)
        (Image.new("RGB", (48, 36)) if folder == "frames" else image).save(tmp_path / folder / "cam0" / "0.png")
    frames = FrameFolder.open(tmp_path)
    assert frames.notes == ()
    assert (frames.mask(0, 0) == brightness).all()
    if words is None:
        assert frames.notes == ()
    else:
        (note,) = frames.notes
        assert words in note and "masks" in note


def test_masks_are_judged_together():
    """One of several may be black, or small."""
    levels = Levels("masks")
    for values in (MASK * 0, MASK, MASK * 255):
        levels.add(Channel(values))
    assert list(levels.notes) == [
        "the masks have only the values 0, 1, 255 of 255: if these are labels, make what is meant 255; each counts as a"
        " share of 255"
    ]


@given(st.integers(0, 65535))
def test_16_bits_go_to_the_nearest_of_256_values(value):
    (rounded,) = Channel.of(Image.fromarray(np.array([[value]], np.uint16))).values.ravel()
    assert rounded == round(value / 257)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_stretched(tmp_path, bits):
    whole = (np.arange(16) % 2**bits).reshape(4, 4)
    binary = (whole[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = b"".join(b"\0" + np.packbits(row.astype(np.uint8)).tobytes() for row in binary)
    write_png(tmp_path / "p0.png", 4, 4, bits, rows, grey=True)
    assert (ImageFile(tmp_path / "p0.png").channel("it").values == whole * (255 // (2**bits - 1))).all()
