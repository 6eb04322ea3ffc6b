"""`RunOptions`: how to run engines over a clip."""

from __future__ import annotations

from dataclasses import dataclass, field

from page4d_engines.options import CPU, Backend, FitMode, Format, PointsSource
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.results.scene.cloud_options import EDGES, CloudOptions
from page4d_engines.results.world.metres import MetricSource
from page4d_engines.timing import Stopwatch


@dataclass(frozen=True)
class RunOptions:
    """How to run engines over a clip.

    Attributes:
        stride: frames from one window's start to the next's; None is T.
        fit: what becomes of another aspect ratio; None makes it an error, except for VGGT and PAGE-4D, whose photos are
            then scaled as they are published.
        backend: what to run on.
        pool: threads of a CPU; None takes every CPU.
        device: of the backend `openvino`, as OpenVINO names it.
        min_confidence: least probability of a point in a point cloud, for engines that give one; None, without a
            percentile: 0.1.
        clock: since the run began, for the summary; a command's began with its process.
        points_from: what a point cloud is made from; None: depth with cameras where the engines give these, else the
            points head.
        confidence_percentile: least confidence of a point in a point cloud, as a percentile of all images of a window;
            None: 50 for engines without a probability, 40 for Depth Anything 3.
        edges, normals, static_only, max_points, voxel: which pixels become points, as `CloudOptions` has them.
        formats: what points and cameras are written as.
        shared_camera: whether photos of one folder and one size share a camera in a COLMAP model.
        align: bring overlapping windows into the first one's world; without a stride they overlap by a quarter of T.
        close_loop: the clip's end sees its begin again.
        metric: where metres come from; None: lengths stay as the engines give them.
    """

    stride: int | None = None
    fit: FitMode | None = None
    backend: Backend = Backend.AUTO
    pool: ThreadPool | None = None
    device: str = CPU
    min_confidence: float | None = None
    clock: Stopwatch = field(default_factory=Stopwatch)
    points_from: PointsSource | str | None = None
    confidence_percentile: float | None = None
    edges: float | None = EDGES
    normals: float | None = None
    static_only: bool = False
    max_points: int | None = None
    voxel: float | None = None
    formats: tuple[Format, ...] = (Format.PLY,)
    shared_camera: bool = False
    align: bool = False
    close_loop: bool = False
    metric: MetricSource | None = None

    @property
    def cloud(self) -> CloudOptions:
        """Which pixels become points.

        Raises:
            UsageError: a number is out of range.
        """
        return CloudOptions(**{name: getattr(self, name) for name in CloudOptions.__struct_fields__})
