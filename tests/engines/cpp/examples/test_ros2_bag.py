"""The ROS 2 example without ROS, on a recorded bag: its worker and conversions with ONNX Runtime, beside page4d-run."""

import subprocess

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.engine_folder import EngineFolder
from page4d_export.sample_scene.clip import render
from tests.engines.clip.bags.recordings import STORE, stream, write_bag
from tests.support.cpp.parity_runs import onnxruntime_library, python_run

T, V, SCALE = 6, 2, 2  # SCALE: pixels of a camera for one of the engines, to each side


@pytest.fixture
def layout(made):
    return EngineFolder.open(made("default").folder).manifest.layout


@pytest.fixture
def bag(layout, tmp_path):
    """Two cameras of different encodings and stamps 2 ms apart, one with padded rows."""
    frames = render(T, V, SCALE * layout.W, SCALE * layout.H, seed=2).frames.swapaxes(0, 1)
    topics = {
        "/rig/a/image_raw": stream(frames[0], encoding="bgr8", padding=4),
        "/rig/b/image_raw": stream(frames[1], offset=2_000_000),
    }
    return write_bag(tmp_path / "bag", topics)


def messages(bag):
    """In the order of the recording: lines and data as play_messages reads them; the stamps by camera."""
    content, stamps = [], {camera: [] for camera in range(V)}
    with AnyReader([bag], default_typestore=STORE) as reader:
        cameras = {topic: camera for camera, topic in enumerate(sorted(reader.topics))}
        for connection, _, raw in reader.messages():
            image = reader.deserialize(raw, connection.msgtype)
            camera, time = cameras[connection.topic], image.header.stamp
            words = (camera, time.sec, time.nanosec, image.width, image.height, image.step, image.encoding)
            content.append(" ".join(map(str, (*words, image.data.size))).encode() + b"\n" + image.data.tobytes())
            stamps[camera].append((time.sec, time.nanosec))
    return b"".join(content), stamps


def published(output):
    """The masks that play_messages writes, by camera and stamp."""
    masks = {}
    while output:
        line, _, output = output.partition(b"\n")
        camera, sec, nanosec, width, height, size = map(int, line.split())
        masks[camera, (sec, nanosec)] = np.frombuffer(output[:size], np.uint8).reshape(height, width)
        output = output[size:]
    return masks


def test_a_bags_masks_are_those_of_page4d_run(ros2_parts, made, layout, bag, tmp_path):
    """Of every window the last timestep, with the image's stamp; each pixel has its patch's probability."""
    engines = made("default").folder
    content, stamps = messages(bag)
    command = [ros2_parts / "page4d_ros_play_messages", engines, onnxruntime_library()]
    completed = subprocess.run(command, input=content, capture_output=True, timeout=120)
    assert completed.returncode == 0, completed.stderr.decode()
    masks = published(completed.stdout)
    results = python_run(engines, FrameFolder.open(bag), tmp_path / "out", fit="crop")
    lasts = range(layout.T - 1, T, layout.T)
    assert len(lasts) == len(results) > 1
    assert masks.keys() == {(camera, stamps[camera][t]) for camera in range(V) for t in lasts}
    for t, result in zip(lasts, results, strict=True):
        for camera in range(V):
            probability = result["mask"][-1, camera].reshape(layout.h, layout.w)
            patches = np.floor(probability.clip(0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
            expected = np.kron(patches, np.ones((14 * SCALE, 14 * SCALE), np.uint8))
            np.testing.assert_array_equal(masks[camera, stamps[camera][t]], expected)
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)
