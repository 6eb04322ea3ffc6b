"""Manifests of Depth Anything 3 and Pi3X, by hand: every kind of stage that other models lack."""

WIDTH, H, W, PATCHES = 32, 56, 70, 20
HASH = "0" * 64
ORDER = ["time", "view"]


def manifest(layout, model, stages, keep=(), **fields):
    """As plain values, with names of files, but no files."""
    files = [f"onnx/{entry['name']}.onnx" for entry in stages]
    for entry, file in zip(stages, files, strict=True):
        entry["file"] = file
    has_constants = any(spec["name"] == "special" for entry in stages for spec in entry["inputs"])
    makes_special = stages[0]["kind"] == "camera_encoder"
    files += ["onnx/constants.safetensors"] if has_constants and not makes_special else []
    width = {"width": WIDTH, "streams": 1, "order": ORDER, "global_layers": []}
    return {
        "page4d": "0.1.0",
        "model": width | model,
        "weights": "seeded",
        "layout": {"T": 1, "H": H, "W": W, "B": 1} | layout,
        "precision": "float32",
        "encoder_images": 2,
        "stages": stages,
        "keep": list(keep),
        "files": dict.fromkeys(files, HASH),
        "format": 1,
    } | fields


def stage(name, inputs, outputs, calls=1):
    """name: the kind, and the layer after a point. inputs, outputs: tensors' shapes by name."""
    kind, _, layer = name.partition(".")
    counts = {"weight_bytes": 1, "flop": 1, "largest": 1}
    specs = [_specs(kind, tensors, inputs, side) for side, tensors in (("", inputs), ("_out", outputs))]
    own = {"name": name, "kind": kind, "layer": int(layer) if layer else None, "calls": calls}
    return own | {"inputs": specs[0], "outputs": specs[1]} | counts


def _specs(kind, tensors, inputs, suffix):
    specs = []
    for name, shape in tensors.items():
        dtype = "uint8" if name == "images" else "float32"
        specs.append({"name": name, "shape": shape, "dtype": dtype, "suffix": suffix if name in inputs else ""})
    return specs


def blocks(layout, tokens):
    """Two pairs of blocks over tokens of so many an image, and the layers that are kept of them."""
    shape = [1, *clip(layout, [1, layout["V"], tokens, WIDTH])]
    stages = [stage(f"{block}_sa.{layer}", {"tokens": shape}, {"tokens": shape}) for layer in (0, 1) for block in ORDER]
    keep = [{"layer": layer, "stages": [f"{block}_sa.{layer}" for block in ORDER], "streams": 1} for layer in (0, 1)]
    return stages, keep


def clip(layout, shape):
    """With an axis of clips in front if there are several."""
    return [layout["B"], *shape] if layout.get("B", 1) > 1 else shape


def da3(V=4, B=1, known=False, selects=True):
    """Depth Anything 3: two images a call of the encoder, one of the depth head."""
    layout = {"V": V, "B": B, "registers": 0}
    tokens, pair, images = 1 + PATCHES, 2 * WIDTH, V * B
    middle, keep = blocks(layout, tokens)
    encoded = {"tokens": [2, tokens, WIDTH]} | ({"select": [2, WIDTH]} if selects and not known else {})
    encoder = stage("encoder", {"images": [2, H, W, 3], "special": [2, 1, WIDTH]}, encoded, images // 2)
    known_cameras = stage("camera_encoder", {"cameras": [V, 9]}, {"special": [images, 1, WIDTH]})
    camera = stage("camera", {"layers.1": clip(layout, [1, V, tokens, pair])}, {"camera": clip(layout, [1, V, 9])})
    layers = {"layers.0": [1, tokens, pair], "layers.1": [1, tokens, pair]}
    depth = stage("depth", layers, {"depth": [1, H, W], "depth_confidence": [1, H, W]}, images)
    stages = [*([known_cameras] if known else []), encoder, *middle, camera, depth]
    model = {"published": "da3", "depth": 2}
    return manifest(layout, model, stages, keep, pose_direction="camera_to_world")


def pi3x(V=3, B=1):
    """Pi3X: heads of convolutions in chunks of an image, and metres."""
    layout, tokens, pair = {"V": V, "B": B, "registers": 4}, 5 + PATCHES, 2 * WIDTH
    middle, keep = blocks(layout, tokens)
    whole, part, images = clip(layout, [1, V, tokens, pair]), [1, tokens, pair], V * B
    encoder = stage(
        "encoder", {"images": [1, H, W, 3], "special": [1, 5, WIDTH]}, {"tokens": [1, tokens, WIDTH]}, images
    )
    heads = [
        stage("points", {"layers.1": part}, {"points": [1, H, W, 3]}, images),
        stage("confidence", {"layers.1": part}, {"confidence": [1, H, W]}, images),
        stage("camera", {"layers.1": whole}, {"camera": clip(layout, [1, V, 12])}),
        stage("metric", {"layers.1": whole}, {"metric": [B]}),
    ]
    fields = {"points_frame": "camera", "unit": "metres", "encoder_images": 1}
    return manifest(layout, {"published": "pi3x", "depth": 2}, [encoder, *middle, *heads], keep, **fields)


def mono(published="da3-mono", **fields):
    """Depth Anything 3 MONO or METRIC: an encoder alone, of two timesteps of two views."""
    names = [f"features.{block}" for block in (4, 11, 17, 23)]
    features = {name: [2, PATCHES, WIDTH] for name in names}
    stages = [
        stage("encoder", {"images": [2, H, W, 3]}, features, 2),
        stage("depth", {name: [1, PATCHES, WIDTH] for name in names}, {"depth": [1, H, W], "sky": [1, H, W]}, 4),
    ]
    return manifest({"T": 2, "V": 2, "registers": 0}, {"published": published, "depth": 0}, stages, **fields)


BASES = {
    "da3": da3(),
    "known": da3(known=True),
    "pi3x": pi3x(),
    "mono": mono(),
    "metric": mono("da3-metric", unit="metres"),
}

_DA3, _KNOWN = BASES["da3"]["stages"], BASES["known"]["stages"]
_SELECT = {"name": "select", "shape": [2, WIDTH], "dtype": "float32"}
WRONG = {
    "da3": [
        (["layout", "registers"], 2),
        (["layout", "registers"], 4),
        (["layout", "registers"], "removed"),
        (["layout", "registers"], "0"),
        (["layout", "special"], 1),
        (["pose_direction"], "sideways"),
        (["pose_direction"], 1),
        (["unit"], "metres"),
        (["unit"], "feet"),
        (["unit"], 1),
        (["model", "depth"], 0),
        (["model", "published"], "da3-mono"),
        (["layout", "T"], 2),
        (["stages", 0, "outputs", 1, "shape"], [4, WIDTH]),
        (["stages", 0, "outputs", 1, "dtype"], "float16"),
        (["stages", 0, "outputs", 1, "name"], "selected"),
        (["stages", 0, "outputs", 1, "name"], "features.3"),
        (["stages", 0, "outputs", 0, "name"], "features.3"),
        (["stages", 0, "inputs", 1, "shape"], [2, 5, WIDTH]),
        (["stages", 5, "kind"], "metric"),
        (["stages"], [_DA3[0], _KNOWN[0], *_DA3[1:]]),
        (["stages"], [_KNOWN[0], *_DA3]),
        (["stages"], _DA3[1:]),
        (["stages", 6, "calls"], 3),
        (["files", "onnx/constants.safetensors"], "removed"),
    ],
    "known": [
        (["stages", 0, "inputs", 0, "shape"], [4, 12]),
        (["stages", 0, "inputs", 0, "name"], "images"),
        (["stages", 0, "outputs", 0, "shape"], [2, 1, WIDTH]),
        (["stages", 0, "outputs", 0, "name"], "tokens"),
        (["stages", 0, "calls"], 2),
        (["stages"], [_KNOWN[0], _KNOWN[0], *_KNOWN[1:]]),
        (["stages"], _KNOWN[:1] + _KNOWN[2:]),
        (["stages", 1, "calls"], 4),
        (["stages", 1, "outputs"], [_KNOWN[1]["outputs"][0], _SELECT]),
        (["stages", 6, "inputs", 0, "name"], "cameras"),
    ],
    "pi3x": [
        (["pose_direction"], "sideways"),
        (["unit"], "feet"),
        (["model", "published"], "pi3"),
        (["stages", 5, "calls"], 2),
        (["stages", 5, "outputs", 0, "shape"], [3, H, W, 3]),
        (["stages", 6, "outputs", 0, "shape"], [1, W, H]),
        (["stages", 8, "outputs", 0, "shape"], [3]),
        (["stages", 8, "outputs", 0, "shape"], [1, 1]),
        (["stages", 8, "outputs", 0, "dtype"], "float16"),
        (["stages", 8, "outputs", 0, "name"], "scale"),
        (["stages", 8, "calls"], 3),
        (["stages", 8, "kind"], "scale"),
    ],
    "mono": [
        (["model", "depth"], 1),
        (["model", "depth"], "removed"),
        (["model", "published"], "da3"),
        (["model", "published"], None),
        (["model", "published"], ["da3-mono"]),
        (["model", "global_layers"], [0]),
        (["pose_direction"], "camera_to_world"),
        (["layout", "registers"], 1),
        (["stages", 0, "inputs"], [_DA3[0]["inputs"][1]]),
        (["stages", 0, "inputs"], _DA3[0]["inputs"]),
        (["stages", 0, "outputs"], BASES["mono"]["stages"][0]["outputs"] + [{**_SELECT, "name": "features.25"}]),
        (["stages", 0, "outputs"], BASES["mono"]["stages"][0]["outputs"][:3]),
        (["stages", 0, "outputs", 0, "shape"], [2, PATCHES + 1, WIDTH]),
        (["stages", 0, "outputs", 0, "dtype"], "float16"),
        (["stages", 0, "outputs", 0, "name"], "tokens"),
        (["stages", 1, "inputs", 0, "name"], "features.5"),
        (["stages", 1, "inputs", 0, "name"], "layers.0"),
        (["stages", 1, "inputs", 0, "shape"], [2, PATCHES, WIDTH]),
        (["stages", 1, "outputs", 1, "name"], "depth_confidence"),
        (["stages", 1, "outputs", 1, "shape"], [1, W, H]),
        (["stages", 1, "calls"], 3),
        (["stages"], _DA3),
    ],
    "metric": [(["unit"], "miles")],
}
RIGHT = {
    "da3": [
        (["pose_direction"], "world_to_camera"),
        (["pose_direction"], "removed"),
        (["pose_direction"], None),
        (["model", "published"], "a model of tomorrow"),
        (["stages", 0, "outputs"], _DA3[0]["outputs"][:1]),
    ],
    "known": [(["pose_direction"], None)],
    "pi3x": [(["unit"], None), (["unit"], "removed"), (["layout", "registers"], "removed")],
    "mono": [(["layout", "registers"], 4), (["unit"], "metres"), (["model", "published"], "da3-metric")],
    "metric": [(["unit"], None)],
}
