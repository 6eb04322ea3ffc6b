"""A file that is a part of a checkpoint is no smaller model."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.completeness import check_complete
from page4d.checkpoints.stored.stored_heads import PI3_PREFIXES
from page4d.checkpoints.stored.stored_sizes import shortfalls
from page4d.config import MaskHeadKind, Published
from page4d.errors import UsageError
from tests.support.checkpoints import page4d_shapes, page4d_state, pi3_shapes, pi3_state, save_pi3
from tests.support.examples import examples

PI3 = sorted(pi3_shapes(64, encoder_depth=2, pairs=3))
UNUSED_BY_PI3 = ("image_mean", "image_std")
PAGE4D = {kind: sorted(page4d_shapes(kind, 64, encoder_depth=2, layers=range(3))) for kind in ("150", "2026", None)}
UNUSED_BY_PAGE4D = ("aggregator.patch_embed.mask_token",)


def check(names, kind="pi3"):
    published = {"pi3": Published.PI3, None: Published.VGGT}.get(kind, Published.PAGE4D)
    head = MaskHeadKind(kind) if kind in ("150", "2026") else None
    check_complete("a.pt", "Pi3", published, head, set(names))


@pytest.mark.parametrize("kind", ["pi3", "150", "2026", None])
@examples(60)
@given(data=st.data())
def test_no_needed_tensor_can_be_missing(kind, data):
    """But for those of the last layer or block as a whole: a smaller model is of the same kind."""
    names = PI3 if kind == "pi3" else PAGE4D[kind]
    unused = UNUSED_BY_PI3 if kind == "pi3" else UNUSED_BY_PAGE4D
    check(names, kind)
    lost = data.draw(st.sampled_from([name for name in names if not name.startswith(unused)]))
    with pytest.raises(UsageError, match=rf"a\.pt lacks {lost.replace('.', chr(92) + '.')}: it is not the whole"):
        check([name for name in names if name != lost], kind)


@pytest.mark.parametrize("kind", ["pi3", "150", None])
@pytest.mark.parametrize("cut", [0.02, 0.2, 0.4, 0.6, 0.8, 0.9])
def test_a_cut_anywhere_but_between_layers_shows(kind, cut):
    """Names in the order that they are written in, as shards have them; neither side is a model."""
    names = list(pi3_shapes(64, 2, 3) if kind == "pi3" else page4d_shapes(kind, 64, 2, range(3)))
    place = int(len(names) * cut)
    for part in (names[:place], names[place:]):
        with pytest.raises(UsageError, match="not the whole"):
            check(part, kind)


def test_a_gap_in_the_layers(tmp_path):
    state = pi3_state(64, encoder_depth=2, pairs=3, heads=False)
    for gap in ("decoder.2.", "decoder.0.", "decoder.5.", "encoder.blocks.0."):
        save_pi3(
            tmp_path / "a.safetensors", {name: tensor for name, tensor in state.items() if not name.startswith(gap)}
        )
        with pytest.raises(UsageError, match=rf"lacks {gap}norm1\.weight.*not the whole of a Pi3 checkpoint"):
            Checkpoint.open(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "lost",
    [
        "aggregator.frame_blocks.2.",
        "aggregator.global_blocks.2.",
        "aggregator.global_blocks.",
        "aggregator.frame_blocks.0.",
    ],
)
def test_a_layer_has_both_blocks(tmp_path, lost):
    state = page4d_state(None, 64, encoder_depth=1, layers=range(3))
    save_pi3(tmp_path / "a.pt", {name: tensor for name, tensor in state.items() if not name.startswith(lost)})
    with pytest.raises(UsageError, match=rf"lacks {lost}"):
        Checkpoint.open(tmp_path / "a.pt")


@pytest.mark.parametrize("head", PI3_PREFIXES)
def test_pi3_heads_are_all_there_or_none(head):
    without = [name for name in PI3 if not name.startswith(PI3_PREFIXES)]
    check(without)
    for part in (
        [name for name in PI3 if not name.startswith(head)],
        [*without, *(name for name in PI3 if name.startswith(head))],
    ):
        with pytest.raises(UsageError, match=r"lacks (point|conf|camera)_"):
            check(part)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("decoder.0.attn.qkv.lora_A.weight", "adapters that are not merged"),
        ("encoder.blocks.1.attn.proj.lora_B.default.weight", "adapters that are not merged"),
        ("decoder.1.mlp.fc1.weight_scale", "tensors that no block or head of the model has"),
        (
            "point_decoder.blocks.0.attn.qkv.parametrizations.weight.original0",
            "tensors that no block or head of the model has",
        ),
        ("point_head.proj.weight_scale", "tensors that no block or head of the model has"),
    ],
)
def test_what_a_block_has_more_is_another_model(name, words):
    with pytest.raises(UsageError, match=words):
        check([*PI3, name])


def test_a_smaller_model_of_the_published_width_is_noted():
    assert list(shortfalls(Published.VGGT, 1024, 24, 24, PAGE4D[None])) == []
    assert list(shortfalls(Published.PI3, 1024, 18, 24, PI3)) == []
    (note,) = shortfalls(Published.VGGT, 1024, 12, 24, PAGE4D[None])
    assert "12 layers" in note and "has 24" in note
    (note,) = shortfalls(Published.PI3, 1024, 18, 12, PI3)
    assert "12 encoder blocks" in note
    (note,) = shortfalls(Published.PI3, 64, 2, 2, [name for name in PI3 if not name.startswith(PI3_PREFIXES)])
    assert "no points, confidence or cameras" in note


def test_the_note_is_part_of_what_is_known(tmp_path):
    """The first part of a published file under another name: whole as a smaller model, with a note."""
    state = {
        name: torch.zeros(()).expand(shape)
        for name, shape in page4d_shapes(None, 1024, encoder_depth=24, layers=range(12)).items()
    }
    save_pi3(tmp_path / "vggt.pt", state)
    (note,) = Checkpoint.open(tmp_path / "vggt.pt").document()["notes"]
    assert note.startswith("vggt.pt: 12 layers, and the published vggt of this width has 24")
