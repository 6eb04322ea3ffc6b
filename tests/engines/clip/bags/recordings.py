"""Bags as ROS 2 records them, written by rosbags."""

import io

import numpy as np
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_HUMBLE)
START = 1_790_000_000 * 10**9
PERIOD = 33_333_333
_CHANNELS = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2, 3], "bgra8": [2, 1, 0, 3], "mono8": [0]}


def header(stamp):
    time = STORE.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id="camera")


def raw(frame, stamp, encoding="rgb8", padding=0, **changed):
    """A `sensor_msgs/Image` of a frame uint8 `[H,W,3]`; `changed` are fields that say something else."""
    height, width = frame.shape[:2]
    pixels = np.dstack([frame, np.zeros((height, width), np.uint8)])[..., _CHANNELS.get(encoding, [0])]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=255)
    fields = {
        "header": header(stamp),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": rows.shape[1],
        "data": np.ascontiguousarray(rows).ravel(),
    }
    return STORE.types["sensor_msgs/msg/Image"](**fields | changed)


def compressed(frame, stamp, kind="png", said=None):
    """A `sensor_msgs/CompressedImage` of a frame."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, kind)
    data = np.frombuffer(file.getvalue(), np.uint8)
    return STORE.types["sensor_msgs/msg/CompressedImage"](header=header(stamp), format=said or kind, data=data)


def camera_info(width, height, K, distortion=(0.0,) * 5):
    """A `sensor_msgs/CameraInfo`."""
    K = np.asarray(K, np.float64)
    return STORE.types["sensor_msgs/msg/CameraInfo"](
        header=header(START),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.array(distortion),
        k=K.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([K, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=STORE.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def write_bag(path, topics, storage="MCAP"):
    """A folder of rosbag2: by topic the messages, each with the nanoseconds at which it was recorded; gives it."""
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage]) as writer:
        entries = []
        for topic, messages in topics.items():
            kind = messages[0][1].__msgtype__
            connection = writer.add_connection(topic, kind, typestore=STORE)
            entries += [(recorded, connection, STORE.serialize_cdr(message, kind)) for recorded, message in messages]
        for recorded, connection, content in sorted(entries, key=lambda entry: entry[0]):
            writer.write(connection, recorded, content)
    return path


def stream(frames, make=raw, offset=0, delay=5_000_000, **options):
    """Messages of frames `[n,H,W,3]` at 30 Hz, `offset` nanoseconds late, recorded `delay` after their stamps."""
    stamps = [START + PERIOD * number + offset for number in range(len(frames))]
    return [
        (stamp + delay, make(frame, stamp, **options)) for frame, stamp in zip(np.asarray(frames), stamps, strict=True)
    ]
