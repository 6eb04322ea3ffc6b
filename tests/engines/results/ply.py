"""PLY files, read by nothing but the format's description."""

import numpy as np


def read_ply(path):
    """The vertices of a binary PLY as a structured array, with the names and types that the file states."""
    content = path.read_bytes()
    header, body = content.split(b"end_header\n", 1)
    lines = [line for line in header.decode("ascii").splitlines() if not line.startswith("comment ")]
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    element, count = lines[2].rsplit(" ", 1)
    assert element == "element vertex"
    properties = [line.split() for line in lines[3:]]
    assert all(len(words) == 3 and words[0] == "property" for words in properties)
    record = np.dtype([(name, {"float": "<f4", "uchar": "u1"}[kind]) for _, kind, name in properties])
    assert len(body) == int(count) * record.itemsize
    return np.frombuffer(body, record)


def columns(vertices, *names):
    """Some columns of vertices, `[n,columns]`."""
    return np.stack([vertices[name] for name in names], -1)
