"""Engines that take `present`: manifests that are read and refused, and buffer plans."""

from page4d.precision import Precision
from tests.vectors.manifests import changes_of, manifest_of
from tests.vectors.plans import plan_of
from tests.vectors.published_manifests import manifest_of_model

# stages 2 to 6 are two layers of View-SA and Time-SA, and a Global-SA
BASE = manifest_of("default", absent_views=True)
_LAST = len(BASE["stages"][2]["inputs"]) - 1
_PRESENT = BASE["stages"][2]["inputs"][_LAST]


def _reading(number, *inputs):
    """The inputs of a stage without `present`, and more."""
    return [*(spec for spec in BASE["stages"][number]["inputs"] if spec != _PRESENT), *inputs]


WRONG = [
    *[(["stages", number, "inputs"], _reading(number)) for number in (2, 3, 6)],
    *[(["stages", number, "inputs"], _reading(number, _PRESENT)) for number in (0, 1)],
    (["stages", 2, "inputs"], _reading(2, _PRESENT, _PRESENT)),
    (["stages", 2, "inputs", _LAST, "shape"], [1, 3, 2]),
    (["stages", 2, "inputs", _LAST, "shape"], [2, 3]),
    (["stages", 2, "inputs", _LAST, "dtype"], "float32"),
    (["stages", 2, "inputs", _LAST, "suffix"], "_in"),
    (["stages", 2, "outputs"], [*BASE["stages"][2]["outputs"], _PRESENT]),
    (["layout", "V"], 1),
]
RIGHT = [
    (["stages", 2, "inputs"], [_PRESENT, *_reading(2)]),
    (["later"], "than us"),
]


def manifests():
    """As those of `tests.vectors.manifests`: a list of bases, with changes to each."""
    return {
        "cases": [
            {"base": BASE, "changed": changes_of(BASE, WRONG, RIGHT)},
            *({"base": base, "changed": changes_of(base, wrong, [])} for base, wrong in _published()),
        ]
    }


def _published():
    """Manifests with heads that see all images, each with changes that are wrong."""
    vggt = manifest_of("vggt", head_images=1, absent_views=True)
    known, pi3x = (manifest_of_model(name, V, absent_views=True) for name, V in (("known", 4), ("pi3x", 3)))
    yield vggt, [(["stages", 5, "inputs"], vggt["stages"][5]["inputs"][:-1]), (["model", "published"], None)]
    yield (
        known,
        [
            (["stages", 0, "inputs"], known["stages"][0]["inputs"][:1]),
            (["stages", 6, "inputs"], [*known["stages"][6]["inputs"], known["stages"][0]["inputs"][1]]),
        ],
    )
    yield _known_clips(), [(["later"], "than us"), (["unit"], None)]
    yield (
        pi3x,
        [
            (["stages", 8, "inputs"], pi3x["stages"][8]["inputs"][:1]),
            (["stages", 7, "inputs"], [pi3x["stages"][7]["inputs"][0], pi3x["stages"][8]["inputs"][1]]),
        ],
    )


def _known_clips():
    """Two clips side by side for known cameras, which `page4d-export` refuses to make."""
    manifest = manifest_of_model("known", 3, 2)
    for entry in manifest["stages"]:
        if entry["kind"] in ("camera_encoder", "view_sa"):
            entry["inputs"].append({"name": "present", "shape": [2, 1, 3], "dtype": "uint8"})
    return manifest


def plans():
    """As those of `tests.vectors.plans`."""
    small = [("default", Precision.BFLOAT16, 1), ("memory", Precision.FLOAT32, 2), ("vggt", Precision.FLOAT16, 1)]
    slides = [("default", Precision.FLOAT32, 2), ("memory", Precision.FLOAT16, 3)]
    published = {
        "da3": manifest_of_model("da3", 4, absent_views=True),
        "da3 of two views": manifest_of_model("da3", 2, absent_views=True),
        "da3 of two clips": manifest_of_model("da3", 3, 2, Precision.BFLOAT16, absent_views=True),
        "da3 of known cameras": manifest_of_model("known", 4, absent_views=True),
        "pi3x of two clips": manifest_of_model("pi3x", 3, 2, absent_views=True),
    }
    return {
        "plans": [
            plan_of(f"{variant} {precision} B={B}", manifest_of(variant, precision, B, absent_views=True))
            for variant, precision, B in small
        ],
        "published": [plan_of(name, manifest) for name, manifest in published.items()],
        "slides": [
            plan_of(
                f"{variant} {precision}", manifest_of(variant, precision, 1, images, absent_views=True), sliding=True
            )
            for variant, precision, images in slides
        ],
    }
