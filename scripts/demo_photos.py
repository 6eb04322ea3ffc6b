"""Chooses the photos that `demo.sh --photos` runs, and the size of engine that fits them.

python scripts/demo_photos.py FOLDER OUT: puts the photos into OUT and prints `V HEIGHT WIDTH`, and flags of page4d-run.
"""

from __future__ import annotations

import collections
import pathlib
import sys

from page4d.errors import UsageError
from page4d.files import link_or_copy
from page4d.layout import Layout
from page4d_engines import console
from page4d_engines.clip.fit import keeps_aspect
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages

MOST_PHOTOS = 8  # all views attend to each other: more would take long on a laptop
LONGER_SIDE = 504  # pixels, as Depth Anything 3 is published


def evenly(count: int, most: int) -> list[int]:
    """Places of `most` of `count` things, the first and the last among them; all of them where they are no more."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def engine_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the engine for photos of this width and height, in whole patches."""
    width, height = size
    scale = LONGER_SIDE / max(size)
    rows, columns = (max(1, round(side * scale / Layout.PATCH)) * Layout.PATCH for side in (height, width))
    return rows, columns


def choose(source: pathlib.Path, out: pathlib.Path) -> str:
    """Put the chosen photos into `out`; what the script prints.

    Raises:
        UsageError: the folder has no photos, or is a clip of several cameras.
    """
    folder = FrameFolder.open(source, loose=UngroupedImages.VIEWS)
    if not folder.photos:
        raise UsageError(
            "this is a clip, not a folder of photos", got=source, allowed="photos of one scene in one folder"
        )
    places = evenly(len(folder.frame_files), MOST_PHOTOS)
    if len(places) < len(folder.frame_files):
        console.say(f"{len(places)} of the {len(folder.frame_files)} photos are used, spread over their order of names")
    sizes = [folder.sizes[place][0] for place in places]
    height, width = engine_size(collections.Counter(sizes).most_common(1)[0][0])
    layout = Layout(T=1, V=len(places), H=height, W=width)
    fits = len(set(sizes)) == 1 and keeps_aspect(sizes[0], layout)
    if not fits:
        console.say(f"the photos differ in size: of each the middle of {width}x{height} is used")
    out.mkdir()
    for place in places:
        file = folder.frame_files[place][0].file
        link_or_copy(file, out / file.name)
    return f"{len(places)} {height} {width}{'' if fits else ' --fit crop'}"


def main() -> None:
    """The script."""
    source, out = map(pathlib.Path, sys.argv[1:])
    sys.exit(console.run(lambda: print(choose(source, out))))


if __name__ == "__main__":
    main()
