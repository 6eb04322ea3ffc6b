"""Chooses the photos that `demo.sh --photos` runs, and the size of engine that fits them.

python scripts/demo_photos.py FOLDER OUT: puts the photos into OUT and prints `V HEIGHT WIDTH`.
"""

from __future__ import annotations

import pathlib
import sys

from page4d.errors import UsageError
from page4d.files import link_or_copy
from page4d_engines import console
from page4d_engines.clip.da3.sizes import common_size, passes
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages

MOST_PHOTOS = 8  # all views attend to each other: more would take long on a laptop


def evenly(count: int, most: int) -> list[int]:
    """Places of `most` of `count` things, the first and the last among them; all of them where they are no more."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


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
    width, height = common_size(sizes)  # as Depth Anything 3 is published: the run scales the photos so by itself
    if len({passes(size)[-1] for size in sizes}) > 1:
        console.say(f"the photos differ in size: of each the middle of {width}x{height} is used")
    out.mkdir()
    for place in places:
        file = folder.frame_files[place][0].file
        link_or_copy(file, out / file.name)
    return f"{len(places)} {height} {width}"


def main() -> None:
    """The script."""
    source, out = map(pathlib.Path, sys.argv[1:])
    sys.exit(console.run(lambda: print(choose(source, out))))


if __name__ == "__main__":
    main()
