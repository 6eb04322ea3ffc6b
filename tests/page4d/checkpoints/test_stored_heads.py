"""Heads of VGGT and PAGE-4D in files: found by their own keys, each whole or not at all, taken as they are."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d import ModelConfig, Page4D
from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.completeness import check_complete
from page4d.checkpoints.licences import LICENCES
from page4d.checkpoints.parameter_counts import parameter_counts
from page4d.checkpoints.stored.stored_heads import heads_in, stored_heads
from page4d.checkpoints.weights import load, load_weights
from page4d.config import Head, MaskHeadKind, Published
from page4d.errors import UsageError
from page4d.published import TRAITS
from tests.support.beside import key_table
from tests.support.checkpoints import TRACK_KEY, VGGT_HEADS, page4d_shapes, page4d_state, save_page4d
from tests.support.examples import examples
from tests.support.loads import parameters, refused

PREFIXES = {"camera": "camera_head.", "depth": "depth_head.", "points": "point_head."}
OWN_KEYS = {
    "camera": "camera_head.pose_branch.fc2.weight",
    "depth": "depth_head.scratch.output_conv2.2.weight",
    "points": "point_head.scratch.output_conv2.2.weight",
}
KINDS = ["150", "2026", None]
COUNTS = {"camera": 69, "depth": 62, "points": 62}
SIZE = {"width": 64, "heads": 1, "encoder_depth": 1, "depth": 2}
SUBSETS = st.sets(st.sampled_from(VGGT_HEADS)).map(lambda heads: tuple(head for head in VGGT_HEADS if head in heads))


def saved(path, kind=None, heads=VGGT_HEADS, track=False, **changed):
    """A small file with these heads; `changed` has tensors in place of the file's, None: without it."""
    state = page4d_state(kind, 64, 1, range(2), heads, track) | changed
    save_page4d(path, {name: tensor for name, tensor in state.items() if tensor is not None})
    return path


@pytest.fixture(scope="module")
def states():
    """By kind, with all heads and a track head."""
    return {kind: page4d_state(kind, 64, 1, range(2), track=True) for kind in KINDS}


def kept(state, heads, track):
    """A state with these heads alone."""
    lost = [PREFIXES[head] for head in VGGT_HEADS if head not in heads] + ([] if track else ["track_head."])
    return {name: tensor for name, tensor in state.items() if not name.startswith(tuple(lost))}


# ---- which heads a file has


@pytest.mark.parametrize(
    ("table", "published", "kind"),
    [("vggt", "vggt", None), ("page4d_2026", "page4d", "2026"), ("page4d_checkpoint_150", "page4d", "150")],
)
def test_the_heads_of_the_real_files_have_exactly_these_tensors(table, published, kind):
    shapes = key_table(table)
    published = Published(published)
    assert heads_in(published, shapes) == TRAITS[published].heads
    check_complete(table, table, published, kind and MaskHeadKind(kind), shapes)
    for head, stored in stored_heads(published).items():
        keys = {key for key in shapes if key.startswith(PREFIXES[head])}
        assert len(stored.names) == len(set(stored.names)) == COUNTS[head]
        assert set(stored.names) == keys and stored.key in keys and stored.key == OWN_KEYS[head]
    counts = parameter_counts(published, shapes)
    assert [counts[f"{head} head"] for head in VGGT_HEADS] == [216_174_610, 32_654_562, 32_654_628]
    assert counts.get("track head", 0) == (0 if kind else 65_941_396)
    assert sum(counts.values()) == sum(math.prod(shape) for shape in shapes.values())


@examples(20)
@given(heads=SUBSETS, track=st.booleans(), kind=st.sampled_from(KINDS))
def test_any_heads_are_found_loaded_and_reported(tmp_path_factory, states, heads, track, kind):
    path = tmp_path_factory.getbasetemp() / "heads.pt"
    state = kept(states[kind], heads, track)
    save_page4d(path, state)
    checkpoint = Checkpoint.open(path)
    assert checkpoint.predictions == heads and checkpoint.track_head is track
    notes = " ".join(checkpoint.notes)
    for head in set(VGGT_HEADS) - set(heads):
        assert head in notes
    assert ("track head: left unused; this project does not export it" in notes) is track

    model = load(path)
    assert model.config.predictions == heads
    for head in VGGT_HEADS:
        assert (getattr(model, head) is not None) is (head in heads)
    loaded = {
        name: f"{head}.{name.removeprefix(PREFIXES[head])}"
        for head in heads
        for name in state
        if name.startswith(PREFIXES[head])
    }
    assert len(loaded) == sum(COUNTS[head] for head in heads)
    for theirs, ours in loaded.items():
        assert torch.equal(model.get_parameter(ours), state[theirs]), ours

    rows = {group.name: group for group in model.report.groups}
    for head in VGGT_HEADS:
        row = rows.get(f"{head} head")
        assert (None if row is None else (row.loaded, row.keys, row.new)) == (
            (COUNTS[head], f"{PREFIXES[head]}*", 0) if head in heads else None
        )
    assert (rows["track head, unused"].unused if track else None) == (4 if track else None)
    assert model.report.loaded + model.report.adapted + model.report.unused == len(state)


@pytest.mark.parametrize("kind", KINDS)
@examples(40)
@given(data=st.data())
def test_a_head_in_part_is_refused_with_the_tensor_it_lacks(kind, data):
    """Also where its own key is the one that is missing, or the only one that is there."""
    shapes = page4d_shapes(kind, 64, 1, range(2))
    head = data.draw(st.sampled_from(VGGT_HEADS))
    keys = sorted(name for name in shapes if name.startswith(PREFIXES[head]))
    size = st.integers(1, len(keys) - 1)
    lost = set(data.draw(st.permutations(keys))[: data.draw(size)])
    names = {name for name in shapes if name not in lost}
    published = Published.PAGE4D if kind else Published.VGGT
    with pytest.raises(UsageError, match="it is not the whole of a VGGT checkpoint") as caught:
        check_complete("a.pt", "VGGT", published, kind and MaskHeadKind(kind), names)
    first = next(name for name in stored_heads(published)[Head(head)].names if name in lost)
    assert f"a.pt lacks {first}:" in str(caught.value)
    assert (", nor " in str(caught.value)) is (len(lost) > 1)


@pytest.mark.parametrize("head", VGGT_HEADS)
def test_a_file_that_has_a_part_of_a_head_is_refused_as_it_is_opened(tmp_path, head):
    refused(saved(tmp_path / "a.pt", **{OWN_KEYS[head]: None}), f"lacks {OWN_KEYS[head]}", "each head")


@pytest.mark.parametrize(
    "name", ["camera_head.trunk.0.attn.qkv.lora_A.weight", "depth_head.projects.0.weight_scale", "point_head.x"]
)
def test_more_in_a_head_than_it_has_is_another_model(tmp_path, name):
    refused(saved(tmp_path / "a.pt", **{name: torch.zeros(1)}), name, "merge adapters")


def test_pi3_is_told_from_vggt_though_prefixes_are_the_same(files):
    assert Checkpoint.open(files["pi3"]).predictions == ()
    pi3 = set(stored_heads(Published.PI3)[Head.POINTS].names)
    assert heads_in(Published.VGGT, pi3) == () and heads_in(Published.PI3, set(OWN_KEYS.values())) == ()


# ---- loads


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        (OWN_KEYS["camera"], (7, 64)),
        ("camera_head.trunk.2.mlp.fc1.weight", (256, 128)),
        (OWN_KEYS["depth"], (4, 2, 1, 1)),
        (OWN_KEYS["points"], (2, 2, 1, 1)),
        ("point_head.resize_layers.0.weight", (16, 16, 2, 2)),
    ],
)
def test_a_head_of_another_shape_is_refused_where_it_is_needed(tmp_path, key, shape):
    path = saved(tmp_path / "a.pt", **{key: torch.zeros(shape)})
    refused(path, key, "another shape", str(list(shape)), act=load)
    assert load(path, predictions=()).complete


@pytest.mark.parametrize("key", OWN_KEYS.values())
def test_numbers_that_are_not_finite_in_a_head(tmp_path, key):
    spoilt = torch.full(page4d_shapes(None, 64, 1, range(2))[key], float("nan"))
    refused(saved(tmp_path / "a.pt", **{key: spoilt}), key, "not finite", act=load)


@pytest.mark.parametrize("asked", [("depth",), ["points", "camera"], ()])
def test_some_heads_can_be_left_out(tmp_path, asked):
    model = load(saved(tmp_path / "a.pt"), predictions=asked)
    assert set(model.config.predictions) == set(asked)
    unused = {group.name: (group.keys, group.unused) for group in model.report.groups if group.unused}
    for head in VGGT_HEADS:
        row = (f"{PREFIXES[head]}*", COUNTS[head])
        assert unused.get(f"{head} head, unused") == (None if head in asked else row)


@pytest.mark.parametrize("asked", [("depth",), VGGT_HEADS])
def test_a_head_that_was_asked_for_and_is_not_there_is_an_error(tmp_path, asked):
    path = saved(tmp_path / "a.pt", heads=("camera", "points"))
    text = refused(path, "has no depth head", "camera,points", act=lambda path: load(path, predictions=asked))
    assert "try:     --heads camera,points" in text


def test_all_heads_that_a_file_has_and_none(tmp_path):
    path = saved(tmp_path / "a.pt", heads=("camera", "points"))
    assert load(path, predictions=True).config.predictions == ("camera", "points")
    assert load(path, predictions=False).config.predictions == ()


def test_a_model_of_all_heads_follows_the_file_and_one_of_some_does_not(tmp_path):
    path = saved(tmp_path / "a.pt", heads=("camera",))
    model = Page4D(ModelConfig.preset("vggt", **SIZE))
    assert model.depth is not None and model.config.keep_layers == (0, 1)
    load_weights(model, page4d=path)
    assert model.config.predictions == ("camera",) and model.depth is None and model.points is None
    assert model.config.keep_layers == (1,)  # the other was kept for the heads that went
    assert "no head for depth, points" in " ".join(model.report.notes)
    for asked in (("depth",), ("camera", "points")):
        fixed = Page4D(ModelConfig.preset("vggt", **SIZE, predictions=asked))
        before = parameters(fixed)
        refused(path, f"has no {asked[-1]} head", act=lambda path, model=fixed: load_weights(model, page4d=path))
        assert fixed.report is None
        assert all(torch.equal(tensor, before[name]) for name, tensor in fixed.named_parameters())


def test_layers_that_were_kept_besides_the_heads_stay(tmp_path):
    model = Page4D(ModelConfig.preset("vggt", **{**SIZE, "depth": 5}, keep_layers=(0,)))
    assert model.config.keep_layers == (0, 1, 2, 3, 4)  # the heads read all but the first
    save_page4d(tmp_path / "a.pt", page4d_state(None, 64, 1, range(5), heads=()))
    load_weights(model, page4d=tmp_path / "a.pt")
    assert model.config.predictions == () and model.config.keep_layers == (0, 1, 2, 3, 4)


def test_pi3_heads_that_were_asked_for_and_are_not_there(files):
    text = refused(
        files["pi3"],
        "has no points head",
        act=lambda path: load(path, predictions=("points", "confidence", "camera")),
    )
    assert "--heads none" in text
    assert load(files["pi3"], predictions=True).config.predictions == ()


# ---- the track head


def test_a_part_of_a_track_head_is_no_matter(tmp_path):
    path = saved(tmp_path / "a.pt", **{TRACK_KEY: torch.full((3,), float("nan"))})
    (row,) = [group for group in load(path).report.groups if group.name == "track head, unused"]
    assert (row.keys, row.unused) == ("track_head.*", 1)


# ---- MV-PAGE4D


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({OWN_KEYS["camera"]: torch.zeros(12, 64)}, "[12, 64]"),
        ({"camera_head.view_proj.0.weight": torch.zeros(16, 128)}, "view_proj"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_mv_page4d_are_refused_by_key(tmp_path, changed, words, kind):
    path = saved(tmp_path / "a.pt", kind, **changed)
    text = refused(path, "MV-PAGE4D", words, "9 numbers", "allowed:", "try:")
    assert "lacks" not in text


# ---- licences


def test_every_model_has_a_licence_or_says_whom_to_ask():
    assert set(LICENCES) == set(Published)
    for licences in LICENCES.values():
        for licence in licences:
            assert licence.source.startswith("https://") and licence.terms and licence.name in str(licence)
    names = {licence.name for licence in LICENCES[Published.VGGT]}
    assert names == {"facebook/VGGT-1B", "facebook/VGGT-1B-Commercial"}
    (page4d,) = LICENCES[Published.PAGE4D]
    assert page4d.terms.startswith("unknown, ask its authors")
