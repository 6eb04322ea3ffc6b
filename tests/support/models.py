"""Small models of every kind, whose weights matter."""

VARIANTS = {
    "default": {},
    "memory": {
        "global_strategy": "memory",
        "memory_tokens": 5,
        "global_layers": (0, 1),
        "epipolar": True,
        "epipolar_band": 10.0,
    },
    "dilated": {
        "global_strategy": "dilated",
        "dilations": (1,),
        "time_encoding": "alibi",
        "order": ("time", "view"),
        "layer_output": "pair",
    },
    "late": {"mask_layer": 1, "keep_layers": (0, 1), "landmarks": 3, "mask_head": "2026", "fusion": "gate"},
}

SEEDED = ("depth.", "points.", "confidence.", "metric.")
SMALL = {"width": 128, "heads": 2}
PUBLISHED = {  # options, and the (T, V) that the model sees
    "pi3": ({"name": "pi3", **SMALL, "depth": 2}, (1, 3)),
    "pi3x": ({"name": "pi3x", **SMALL, "depth": 2}, (1, 3)),
    "da3": ({"name": "da3-small", **SMALL, "encoder_depth": 2, "depth": 4}, (1, 3)),  # the reference view is chosen
    "da3-mono": ({"name": "da3-mono", **SMALL, "encoder_depth": 4}, (1, 2)),
    "vggt": ({"name": "vggt", **SMALL, "depth": 2}, (3, 1)),
    "page4d 150": ({"name": "page4d", **SMALL, "depth": 10}, (3, 1)),
    "page4d 2026": ({"name": "page4d", **SMALL, "depth": 12, "mask_head": "2026"}, (3, 1)),
}
EVERY = [*VARIANTS, *PUBLISHED]
# every kind of stage and node; an export takes seconds
EXPORTED = [*VARIANTS, "pi3", "page4d 2026"]
NEWER = ["pi3x", "da3", "da3-mono"]  # exported where their own stages and nodes matter


def config_of(variant, **options):
    """A small model; `options` for those of this project's own."""
    from page4d import ModelConfig

    if variant in PUBLISHED:
        return ModelConfig.preset(**{"encoder_depth": 1, **PUBLISHED[variant][0]})
    return ModelConfig.preset("tiny", **{"depth": 2, "encoder_depth": 1, **options, **VARIANTS[variant]})


def layout_of(variant, H, W, B=1):
    """Several times and views where the model sees such."""
    from page4d import Layout

    return Layout(*PUBLISHED.get(variant, (None, (3, 2)))[1], H, W, B)


def lively(config, seed=0):
    """A seeded model whose lambdas matter: at 0 masked and unmasked are the same and a test proves nothing.

    Heads that end with an exponential are as seeded, since it overflows of larger weights; VGGT's fields of view are
    about a radian, of which seeded ones are often 0, which is no camera's.
    """
    import torch

    from page4d import Page4D

    model = Page4D(config, seed=seed)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lambda" in name:
            parameter.copy_(torch.rand((), generator=generator) * 3 + 0.5)
        elif config.published not in (None, "pi3") and name.startswith(SEEDED):
            continue
        elif parameter.dim() > 1 and "norm" not in name and "encoder" not in name:
            parameter.mul_(3)
    if config.built_on_vggt and model.camera is not None:
        last = model.camera.pose_branch.fc2
        last.weight[7:].mul_(0.1)
        last.bias[7:] = 0.25  # of each of four refinements
    return model


def takes_keypoints(variant):
    """Of the variants that can, one is exported without."""
    return variant not in ("default", *PUBLISHED)
