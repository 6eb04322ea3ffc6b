"""The kernels of cameras' images in Triton's interpreter against the CPU, byte for byte; their machine code."""

import importlib
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from page4d.errors import UsageError
from page4d.layout import Layout
from page4d_engines.clip.fit import Fit, FitMode
from page4d_engines.clip.pixels.formats import PixelFormat
from page4d_plugins.kernel_pack import shipped
from page4d_plugins.launch_plan import Ref
from page4d_plugins.modes import Bytes
from page4d_plugins.parameters import ParameterBlock
from page4d_plugins.pixels.pixel_launch import FORMATS, Picture, PixelKernel, Place, pixel_plan
from page4d_plugins.pixels.resize_weights import axis
from tests.support.examples import examples

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
KINDS = pytest.mark.parametrize("pixels", PixelFormat, ids=lambda pixels: pixels.value)
MODES = [FitMode.STRETCH, FitMode.CROP, FitMode.PAD, FitMode.PUBLISHED, FitMode.PUBLISHED_PAD]
FENCE = 40  # bytes before and behind every plane


@pytest.fixture(scope="module")
def images(attention):
    """page4d_plugins.pixels.camera_images, its kernels in Triton's interpreter."""
    return importlib.import_module("page4d_plugins.pixels.camera_images")


def place_of(fit):
    return Place(
        size=(fit.layout.W, fit.layout.H),
        box=fit.box,
        target=fit.target,
        ground=fit.ground,
        scaled_height=None if fit.scaled is None else fit.scaled[1],
    )


def plane(rows, spare):
    """The rows as a tensor with `spare` bytes between them, and bytes before and behind that no result may show."""
    padded = np.pad(rows, ((0, 0), (0, spare)), constant_values=201).ravel()
    return torch.from_numpy(np.pad(padded, FENCE, constant_values=99))[FENCE:-FENCE]


def check(images, pixels, fit, spare, seed):
    width, height = fit.source_size
    rows = np.random.default_rng(seed).integers(0, 256, (pixels.rows(height), width * pixels.channels), np.uint8)
    expected = fit.image(Image.fromarray(pixels.rgb(rows.ravel(), width, height)))
    picture = Picture(pixels.value, width, height, rows.shape[1] + spare, rows.shape[1] + 2 * spare)
    chroma = plane(rows[height:], 2 * spare) if len(rows) > height else None
    actual = images.fitted(picture, place_of(fit), plane(rows[:height], spare), chroma)
    np.testing.assert_array_equal(actual.numpy(), expected)


@KINDS
@examples(10)
@given(st.integers(3, 45), st.integers(3, 24), st.sampled_from(MODES[:3]), st.integers(0, 9), st.integers(0, 1 << 30))
def test_images_are_the_cpus(images, pixels, width, height, mode, spare, seed):
    if pixels.size_needed(width, height):
        width, height = width + width % 2, height + height % 2
    check(images, pixels, Fit.choose((width, height), Layout(1, 1, 14, 28), mode), spare, seed)


@pytest.mark.parametrize(
    ("source", "engine", "mode"),
    [
        ((28, 14), (28, 14), FitMode.STRETCH),  # nothing is scaled
        ((28, 30), (28, 14), FitMode.STRETCH),
        ((40, 14), (28, 14), FitMode.STRETCH),
        ((16, 42), (14, 14), FitMode.PUBLISHED),  # of 42 rows the middle 14
        ((50, 26), (28, 28), FitMode.PUBLISHED_PAD),  # on white
        ((300, 12), (182, 14), FitMode.PAD),  # several blocks a row
    ],
)
def test_every_way_of_fitting_is_the_cpus(images, source, engine, mode):
    check(images, PixelFormat.NV12, Fit.choose(source, Layout(1, 1, engine[1], engine[0]), mode), 6, 1)


@examples(100)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 0.4), st.floats(0.6, 1), st.integers(0, 1 << 30))
def test_weights_are_pillows(source, target, low, high, seed):
    box = (low * source, 0, high * source, 1)
    row = np.random.default_rng(seed).integers(0, 256, (1, source), np.uint8)
    expected = np.asarray(Image.fromarray(row).resize((target, 1), Image.Resampling.BICUBIC, box=box))[0]
    weights = axis(source, box[0], box[2], target, 0, target)
    most = weights.weights.shape[1]
    taps = np.minimum(weights.first[:, None] + np.arange(most), source - 1)
    sums = (row[0][taps].astype(np.int64) * weights.weights).sum(1) + (1 << 21)
    np.testing.assert_array_equal(np.clip(sums >> 22, 0, 255), expected)
    assert weights.stop <= source and weights.first.min() >= 0


def test_the_kernels_have_every_format_of_the_cpu():
    assert set(FORMATS) == {pixels.value for pixels in PixelFormat}


def test_what_the_plan_refuses():
    place = Place((42, 28), (0.0, 0.0, 65536.0, 32768.0), (0, 0, 42, 28))
    with pytest.raises(UsageError, match="not known"):
        pixel_plan(Picture("rgb16", 42, 28, 252), place)
    with pytest.raises(UsageError, match="too large"):
        pixel_plan(Picture("mono8", 65536, 32768, 65536), place)


def test_a_gpu_is_asked_for_outside_of_the_interpreter(images, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    place = Place((4, 4), (0.0, 0.0, 4.0, 4.0), (0, 0, 4, 4))
    with pytest.raises(UsageError, match="on a GPU"):
        images.fitted(Picture("mono8", 4, 4, 4), place, torch.zeros(16, dtype=torch.uint8))


USED = {
    PixelKernel.CHANNELS: {"source", "workspace"},
    PixelKernel.PACKED: {"source", "workspace"},
    PixelKernel.BAYER: {"source", "workspace"},
    PixelKernel.SEMIPLANAR: {"source", "chroma", "workspace"},
    PixelKernel.ACROSS: {"workspace", "x_first", "x_weights"},
    PixelKernel.DOWN: {"workspace", "y_first", "y_weights", "target"},
}
EXAMPLES = {PixelKernel.SEMIPLANAR: "nv12", PixelKernel.PACKED: "uyvy", PixelKernel.BAYER: "bayer_gbrg8"}


@pytest.mark.parametrize("kernel", PixelKernel, ids=lambda kernel: kernel.value)
def test_launches_are_laid_out_as_the_machine_code_reads_them(kernel):
    """Every parameter at its size, for every GPU architecture; a launch has all values that are asked of it."""
    fit = Fit.choose((1920, 1080), Layout(1, 1, 294, 518), FitMode.CROP)
    plan = pixel_plan(Picture(EXAMPLES.get(kernel, "bgr8"), 1920, 1080, 5760, 1920), place_of(fit))
    (launch,) = [launch for launch in plan.launches if launch.kernel == kernel.value]
    addresses = {name: (i + 1) << 40 for i, name in enumerate(sorted(USED[kernel]))}
    entries = [other.entry for other in shipped().kernels.values() if other.entry.kernel == kernel.value]
    assert len(entries) == 10 and {entry.dtype for entry in entries} == {Bytes.UINT8.value}
    for entry in entries:
        block = ParameterBlock(entry.parameters, launch.values)
        block.point(addresses, lambda descriptor, address: b"")
        read = set()
        for i, parameter in enumerate(entry.parameters):
            value = launch.values.get(parameter.name)
            if isinstance(value, Ref):
                read.add(value.tensor)
                value = addresses[value.tensor] + value.offset
            raw = block.bytes_of(i)
            assert len(raw) == parameter.size
            assert parameter.name == "" or value is not None, parameter
            assert struct.unpack("<q" if parameter.size == 8 else "<i", raw)[0] == (value or 0), parameter
        assert read == set(addresses), entry.path
