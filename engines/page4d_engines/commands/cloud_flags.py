"""Flags that several commands have: which points a cloud has, what it is written as, where metres come from."""

from __future__ import annotations

import pathlib
from functools import partial
from typing import Annotated

import typer

from page4d_engines.options import Format, PointsSource

_option = partial(typer.Option, rich_help_panel="Points")

PointsFrom = Annotated[
    PointsSource | None,
    _option(
        help="what points are made from; default: depth and cameras where the engines give both",
    ),
]
MinConfidence = Annotated[
    float | None,
    _option(min=0, max=1, help="least probability of a point; default 0.1; for Pi3"),
]
ConfidencePercentile = Annotated[
    float | None,
    _option(
        min=0,
        max=100,
        help="least confidence of a point, as a percentile of a window; default 50, 40 for DA3, none for Pi3",
    ),
]
EdgeDepth = Annotated[
    float | None,
    _option(
        min=0,
        metavar="SHARE",
        help="leave out pixels if a neighbour's depth differs by more than this share; default 0.03; 0: keep them",
    ),
]
EdgeNormal = Annotated[
    float | None,
    _option(
        min=0,
        max=90,
        metavar="DEGREES",
        help="leave out pixels whose surface is turned further from the camera, such as 80; default 0: keep them",
    ),
]
StaticOnly = Annotated[
    bool | None,
    _option(
        "--static-only/--with-dynamic",
        help="leave out pixels that the mask says are dynamic; default: keep them",
    ),
]
MaxPoints = Annotated[
    int | None,
    _option(min=0, metavar="N", help="the most points of a scene, chosen evenly; default 0: all"),
]
Voxel = Annotated[
    float | None,
    _option(
        min=0,
        metavar="SIZE",
        help="keep the most confident point of each cube of this side, in the scene's unit; default 0: all points",
    ),
]
Formats = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Formats",
        metavar="LIST",
        help=(
            f"what points and cameras are written as, with commas between: {', '.join(Format)};"
            " default: ply, of a finished run those that it has"
        ),
    ),
]
SharedCamera = Annotated[
    bool | None,
    typer.Option(
        "--shared-camera/--camera-per-image",
        rich_help_panel="Formats",
        help="in a COLMAP model, photos of one folder and one size share a camera; default: one per image",
    ),
]
MetricFrom = Annotated[
    pathlib.Path | None,
    typer.Option(
        rich_help_panel="Metres",
        help="bring lengths to metres: a cameras.json in metres, or the output of a metric model's run on the photos",
    ),
]
KnownDistance = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Metres",
        metavar="A,B,METRES",
        help="bring lengths to metres by the distance between two cameras or images, of these names",
    ),
]
