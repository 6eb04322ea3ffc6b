import pytest

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.licences import LICENCES, licence_in, licences_of, summed_up
from page4d.published import Published

NON_COMMERCIAL = "CC BY-NC 4.0: not for commercial use"


@pytest.mark.parametrize(
    ("repository", "terms"),
    [
        ("yyfz233/Pi3", NON_COMMERCIAL),
        ("yyfz233/Pi3X", NON_COMMERCIAL),
        ("facebook/VGGT-1B", NON_COMMERCIAL),
        ("depth-anything/DA3-SMALL", "Apache-2.0"),
        ("depth-anything/DA3-BASE", "Apache-2.0"),
        ("depth-anything/DA3-LARGE", NON_COMMERCIAL),
        ("depth-anything/DA3-LARGE-1.1", NON_COMMERCIAL),
        ("depth-anything/DA3MONO-LARGE", "Apache-2.0"),
        ("depth-anything/DA3METRIC-LARGE", "Apache-2.0"),
        ("Depth-Anything/da3-small", "Apache-2.0"),
    ],
)
def test_published_repositories_have_their_licence_in_words(repository, terms):
    licence = licence_in(repository, "")
    assert licence.terms == terms and licence.source.lower() == f"https://huggingface.co/{repository}".lower()


def test_the_commercial_weights_of_vggt_exclude_military_use():
    assert "no military use" in licence_in("facebook/VGGT-1B-Commercial", "").terms


@pytest.mark.parametrize(
    ("tag", "terms"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("cc-by-nc-4.0", NON_COMMERCIAL),
        ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0: not for commercial use"),
        ("openrail", "openrail"),
        ("", "unknown, ask its authors"),
    ],
)
def test_other_repositories_have_the_licence_of_their_page(tag, terms):
    assert licence_in("somebody/finetuned", tag).terms == terms


@pytest.mark.parametrize(("width", "names"), [(384, ["DA3-SMALL"]), (768, ["DA3-BASE"]), (64, 4)])
def test_the_width_tells_the_sizes_of_a_model_apart(width, names):
    licences = licences_of(Published.DA3, width)
    if isinstance(names, int):
        assert len(licences) == names
    else:
        assert [licence.name.rpartition("/")[2] for licence in licences] == names


def test_equal_terms_are_said_once():
    large = licences_of(Published.DA3, 1024)
    assert summed_up(large) == f"{NON_COMMERCIAL} (depth-anything/DA3-LARGE or depth-anything/DA3-LARGE-1.1)"
    assert summed_up(LICENCES[Published.VGGT]).startswith(f"{NON_COMMERCIAL} (facebook/VGGT-1B); or VGGT License")


def test_a_file_has_the_licence_of_the_published_weights(files):
    checkpoint = Checkpoint.open(files["pi3"])
    assert checkpoint.licence == f"as published: {NON_COMMERCIAL} (yyfz233/Pi3)"
