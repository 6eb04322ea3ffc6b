"""Files changed at random, the same for the same seed."""

import random


def mutated(contents, count, seed=0):
    """So many changed versions of some bytes: bits turned, bytes replaced, parts taken out, put twice, or cut off."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = bytearray(rng.choice(contents))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(changed))
            part = changed[at : at + rng.choice((1, 2, 8, 64))]
            kind = rng.randrange(6)
            if kind == 0:
                changed[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            elif kind == 2:
                del changed[at : at + len(part)]
            elif kind == 3:
                changed[at:at] = part
            elif kind == 4:
                changed[at : at + len(part)] = rng.randbytes(len(part))
            else:
                changed[at] = (changed[at] + rng.choice((1, 255))) % 256
            if not changed:
                changed = bytearray(1)
        yield bytes(changed)
