"""How many examples hypothesis tries."""

from hypothesis import settings


def examples(count):
    """`count` examples in the full profile, a fifth in the fast one (tests/conftest.py), without a deadline of each."""
    return settings(max_examples=max(1, count * settings.default.max_examples // 100), deadline=None)
