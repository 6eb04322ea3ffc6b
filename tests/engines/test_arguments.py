"""What a pipeline's `run` takes, and what it refuses before anything is copied."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.errors import UsageError
from page4d_engines import Pipeline
from page4d_engines.arguments import map_argument
from tests.support.examples import examples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": np.zeros((2, 2, 56, 70, 3), np.uint8)},
            r"images has another shape.*\s+got:\s+\[2, 2, 56, 70, 3\]\s+allowed: uint8 \[3, 2, 56, 70, 3\]",
        ),
        ({"images": np.zeros((3, 2, 56, 70, 3), np.float32)}, r"images have the wrong type\s+got:\s+float32"),
        ({"mask_ext": np.zeros((3, 2, 5, 1))}, r"mask_ext has another shape"),
        ({"keypoints": None}, r"exported with --keypoints and need them"),
        ({"cameras": None}, r"need the calibration of every view"),
        ({"cameras": {}}, r"number of cameras is not the engines'\s+got:\s+0\s+allowed: 2"),
        ({"memory": np.zeros((2, 4, 128))}, r"memory has another shape"),
    ],
)
def test_wrong_arguments_are_named(made, change, message):
    made_ = made("memory")
    arguments = {"images": made_.clip.frames, **made_.inputs(keypoints=True), **change}
    with pytest.raises(UsageError, match=message):
        Pipeline.load(made_.folder).run(**arguments)


def test_keypoints_need_engines_that_take_them(made):
    made_ = made()
    with pytest.raises(UsageError, match=r"take no keypoints\s+try:\s+page4d-export --keypoints"):
        Pipeline.load(made_.folder).run(made_.clip.frames, keypoints=np.zeros(made_.plan.layout.patch_map_shape))


def test_a_published_model_takes_no_mask(made):
    made_ = made("page4d 2026")
    with pytest.raises(UsageError, match="take no external mask"):
        Pipeline.load(made_.folder).run(
            made_.clip.frames, mask_ext=np.zeros(made_.plan.layout.patch_map_shape, np.float32)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "images have the wrong type"),
        ({"images": [[1], [2, 3]]}, "images cannot be made an array"),
        ({"images": np.uint8(3)}, r"images has another shape than the engines'\s+got:\s+\[\]"),
        (
            {"mask_ext": np.full((3, 2, 20, 1), np.nan)},
            r"mask_ext holds numbers that are no probabilities\s+got:\s+nan",
        ),
        ({"mask_ext": np.full((3, 2, 20, 1), 255, np.uint8)}, r"no probabilities(.|\n)*divide by 255"),
        ({"mask_ext": "white"}, "mask_ext holds no real numbers"),
        ({"mask_ext": np.full((3, 2, 20, 1), None)}, r"mask_ext holds no real numbers\s+got:\s+object"),
        ({"mask_ext": np.zeros((3, 2, 20, 1), "datetime64[s]")}, "mask_ext holds no real numbers"),
        ({"keypoints": np.zeros((3, 2, 20, 1), complex)}, "keypoints holds no real numbers"),
        ({"keypoints": np.full((3, 2, 20, 1), -0.5)}, "keypoints holds numbers that are no probabilities"),
        ({"cameras": [1, 2]}, "cameras are no mapping of names to cameras"),
        ({"cameras": {"a": 3, "b": None}}, "camera a is no camera"),
        ({"cameras": np.zeros((2, 2, 3))}, "fundamental has another shape"),
        ({"cameras": np.full((2, 2, 3, 3), np.inf)}, "fundamental holds numbers that are not finite"),
        ({"memory": np.full((2, 5, 128), np.nan)}, "memory holds numbers that are not finite"),
        ({"memory": np.full((2, 5, 128), 1e300)}, "memory holds numbers that are not finite, or too large"),
        ({"memory": 0.0}, "memory has another shape"),
        ({"shared": 1.0}, r"got:\s+shared = 1\.0"),
        ({"shared": True}, r"got:\s+shared = True"),
        ({"shared": None}, r"got:\s+shared = None"),
        ({"shared": 10**30}, "shared = 1000"),
        ({"progress": 3}, "progress is no function"),
        ({"observe": "all"}, "observe is no function"),
    ],
)
def test_a_refused_call_changes_nothing(made, change, message, on_cpu):
    """Whatever comes first is not copied either: the inputs lie as they did, and the next call is right."""
    made_ = made("memory")
    pipeline = Pipeline.load(made_.folder, on_cpu, threads=1)
    arguments = {"images": made_.clip.frames, **made_.inputs(keypoints=True)}
    pipeline.run(**arguments)
    before = {name: array.copy() for name, array in pipeline._chain.inputs.items()}
    others = {
        "images": made_.clip.frames[:, ::-1],
        "mask_ext": np.ones((3, 2, 20, 1)),
        "keypoints": np.ones((3, 2, 20, 1)),
        "memory": np.ones((2, 5, 128)),
    }
    with pytest.raises(UsageError, match=message):
        pipeline.run(**{**arguments, **others, **change})
    for name, array in pipeline._chain.inputs.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_cameras_of_another_image_size_are_refused(made):
    """Their K would put every line in another place."""
    made_ = made("memory")
    arguments = made_.inputs(keypoints=True)
    cameras = {name: {**entry, "width": 1920, "height": 1080} for name, entry in arguments["cameras"].items()}
    with pytest.raises(UsageError, match=r"another size than the engines see\s+got:\s+1920x1080\s+allowed: 70x56"):
        Pipeline.load(made_.folder).run(made_.clip.frames, **{**arguments, "cameras": cameras})


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int64, bool])
def test_maps_of_other_types_are_taken(made, dtype):
    made_ = made()
    pipeline = Pipeline.load(made_.folder, threads=1)
    mask = np.random.default_rng(0).integers(0, 2, made_.plan.layout.patch_map_shape)
    expected = pipeline.run(made_.clip.frames, mask_ext=mask.astype(np.float32)).copy()
    for value in (mask.astype(dtype), mask.astype(dtype).tolist()):
        np.testing.assert_array_equal(pipeline.run(made_.clip.frames, mask_ext=value).mask, expected.mask)
    np.testing.assert_array_equal(
        pipeline.run(made_.clip.frames, mask_ext=1).layers[1],
        pipeline.run(made_.clip.frames, mask_ext=np.ones(mask.shape, np.float32)).copy().layers[1],
    )


@examples(150)
@given(
    hnp.arrays(
        st.one_of(
            hnp.boolean_dtypes(),
            hnp.integer_dtypes(),
            hnp.floating_dtypes(),
            hnp.complex_number_dtypes(),
            hnp.unicode_string_dtypes(),
        ),
        st.sampled_from([(), (3, 2, 20, 1), (2,)]),
    )
)
def test_any_array_is_probabilities_or_refused(array):
    try:
        checked = map_argument("mask_ext", array, (3, 2, 20, 1))
    except UsageError:
        return
    target = np.full((3, 2, 20, 1), np.nan, np.float32)
    np.copyto(target, checked, casting="same_kind")
    assert target.min() >= -1e-4 and target.max() <= 1 + 1e-4
