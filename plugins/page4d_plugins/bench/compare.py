"""The attention kernels beside other implementations, on one GPU, in one run: all sides in turn, round by round."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from page4d.system.progress import SILENT, Progress
from page4d_plugins.bench.call import IMAGE, TORCH_TYPES, Call, Form, form_call, layout_for
from page4d_plugins.bench.clock import Clock, Sampler, clock_for
from page4d_plugins.bench.gpu_benchmark import HOPPER_EXP2, Absent, GpuBenchmark, Timed
from page4d_plugins.bench.reference import TOLERANCE, Reference
from page4d_plugins.bench.sides import OURS, PEERS, UNBIASED_SDPA, Attempt, ByPack, Run, makers, reason_of
from page4d_plugins.bench.timing import Timings, interleave, spread
from page4d_plugins.modes import Dtype, Mode

FORMS = (Form.DENSE, Form.BIASED, Form.ROWS, Form.EPIPOLAR, Form.DILATED, Form.LANDMARK, Form.MEMORY)
"""The forms that are compared."""
_PRODUCT = 8192  # rows and columns of the matrix product whose rate is the GPU's
_MOST_SETS = 12
Key = tuple[str, str]
"""A side's form and name."""
_PRODUCT_KEY: Key = ("", "product")


class Side(NamedTuple):
    """One implementation, checked and warm."""

    form: str
    name: str
    flop: int
    sampler: Sampler
    error: float
    baseline_of: tuple[int, int] | None
    """(queries, keys), where it may be what others are compared with."""
    sizes: tuple[int, int]

    @property
    def key(self) -> Key:
        """Form and name, which tell it from the others of one comparison."""
        return self.form, self.name


def compare(
    keys: int,
    rounds: int,
    dtype: Dtype = Dtype.FLOAT16,
    heads: int = 16,
    peers: tuple[str, ...] = PEERS,
    *,
    sequences: Sequence[int] = (1, 2),
    image: int = IMAGE,
    forms: Sequence[Form] = FORMS,
    device: str = "cuda",
    clock: Clock | None = None,
    product: int = _PRODUCT,
    progress: Progress = SILENT,
) -> GpuBenchmark:
    """Check every side, then time all of them in turn.

    Args:
        keys: T*V*N of the clip, and queries.
        rounds: counted ones, after one that is not.
        dtype: of q, k and v.
        heads: A.
        peers: other implementations, of `PEERS`.
        sequences: values of Z.
        image: height and width in pixels: 1374 tokens a frame by default.
        forms: what to compare.
        device: as PyTorch names it.
        clock: measures times; the device's by default.
        product: rows and columns of the matrix product.
        progress: told of each step.

    Raises:
        UsageError: keys that are not whole frames.
    """
    layout, clock = layout_for(keys, image), clock or clock_for(device)
    groups: list[tuple[int, list[Side], Timings[Key]]] = []
    absent: list[Absent] = []
    rates: list[float] = []
    large = _product(dtype, product, device, clock)
    for number, Z in enumerate(sequences):
        sides: list[Side] = []
        for i, form in enumerate(forms):
            progress.note(f"Z={Z}: {form.value}", (number + i / (len(forms) + 1)) / len(sequences))
            with (attempt := Attempt()):
                calls = input_sets(partial(form_call, form, layout, dtype, Z, heads, device), clock)
                sides += _sides(form, Z, calls, layout.N, peers, clock, absent)
            if attempt.reason is not None:  # after an illegal access nothing runs any more, yet all is to be reported
                absent += [Absent(form.value, Z, name, attempt.reason) for name in OURS]
        progress.note(f"Z={Z}: {rounds + 1} rounds", (number + len(forms) / (len(forms) + 1)) / len(sequences))
        timings = _rounds(sides, large, rounds, Z, absent)
        if _PRODUCT_KEY in timings.samples:
            rates += [2 * product**3 / milliseconds / 1e9 for milliseconds in timings.times(_PRODUCT_KEY)]
        groups.append((Z, sides, timings))
    rate = statistics.median(rates) if rates else None
    name, capability = describe(device)
    hopper = capability == "9.0"
    return GpuBenchmark(
        device=name,
        capability=capability,
        versions=versions(),
        dtype=dtype.value,
        keys=layout.global_tokens,
        layout={"T": layout.T, "V": layout.V, "N": layout.N},
        heads=heads,
        rounds=rounds,
        tolerance=TOLERANCE[dtype],
        product_tflops=rate,
        exp2_tflops=HOPPER_EXP2 if hopper else None,
        timed=[
            _result(Z, side, sides, timings, rate, hopper)
            for Z, sides, timings in groups
            for side in sides
            if side.key in timings.samples
        ],
        absent=absent,
    )


def describe(device: str) -> tuple[str, str]:
    """Name and compute capability of a device."""
    if device != "cuda":
        return platform.processor() or platform.machine(), ""
    major, minor = torch.cuda.get_device_capability()
    return torch.cuda.get_device_name(), f"{major}.{minor}"


def versions() -> dict[str, str]:
    """Versions of what computes."""
    import triton

    numbers = {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__}
    if torch.cuda.is_available():
        numbers |= {"CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
    return {name: str(version) for name, version in numbers.items()}


def input_sets(call: Callable[[int], Call], clock: Clock) -> list[Call]:
    """Inputs by their seeds: so many sets that they exceed the cache twice, and none is in it when its turn comes."""
    first = call(0)
    count = max(1, min(_MOST_SETS, -(-2 * clock.cache // first.size)))
    return [first, *map(call, range(1, count))]


def _sides(
    form: Form, Z: int, calls: list[Call], frame: int, peers: tuple[str, ...], clock: Clock, absent: list[Absent]
) -> list[Side]:
    """All implementations of one form that run and are right; the others go to `absent`. A frame has `frame` tokens."""
    reference = Reference(calls[0], frame)
    shape = calls[0].shape
    sides = []
    for name, maker in makers(calls[0], peers).items():
        error = float("inf")
        with (attempt := Attempt()):
            runs = [maker(call) for call in calls]
            error = checked(runs[0], reference)
            if reference.accepts(error):
                baseline = (shape.n, shape.m) if name in UNBIASED_SDPA and shape.mode is Mode.DENSE else None
                side = Side(
                    form=form.value,
                    name=name,
                    flop=calls[0].flop,
                    sampler=clock.sampler(runs),
                    error=error,
                    baseline_of=baseline,
                    sizes=(shape.n, shape.m),
                )
                sides.append(side)
                continue
        absent.append(Absent(form.value, Z, name, attempt.reason or wrong(error, reference.dtype)))
    return sides


def checked(run: Run, reference: Reference) -> float:
    """Largest error of a sampled row, whatever was in the output before."""
    if isinstance(run, ByPack):
        run.poison()
    return reference.error(run())


def wrong(error: float, dtype: Dtype) -> str:
    """The message for a side whose result is wrong."""
    return f"wrong result: a row's relative error is {error:.1e}, allowed {TOLERANCE[dtype]:g}"


def _product(dtype: Dtype, size: int, device: str, clock: Clock) -> Sampler:
    a, b = (torch.randn(size, size, device=device, dtype=TORCH_TYPES[dtype]) for _ in range(2))
    out = torch.empty_like(a)
    return clock.sampler([lambda: torch.mm(a, b, out=out)])


def _rounds(sides: list[Side], product: Sampler, rounds: int, Z: int, absent: list[Absent]) -> Timings[Key]:
    """Milliseconds of the matrix product and of the sides that last."""

    def failed(key: Key, error: Exception) -> None:
        if key != _PRODUCT_KEY:
            absent.append(Absent(key[0], Z, key[1], f"while timed: {reason_of(error)}"))

    runs = {_PRODUCT_KEY: product.run} | {side.key: side.sampler.run for side in sides}
    return interleave(runs, rounds, failed=failed)


def _result(Z: int, side: Side, sides: list[Side], timings: Timings[Key], product: float | None, hopper: bool) -> Timed:
    """One side's figures, beside the fastest baseline of as many queries and keys."""
    median = timings.median(side.key)
    tflops = side.flop / median / 1e9
    baselines = [other for other in sides if other.baseline_of == side.sizes and other.key in timings.samples]
    baseline = min(baselines, key=lambda other: timings.median(other.key), default=None)
    ratios: list[float] = []
    if baseline is not None:
        ratios = [side.flop / baseline.flop * ratio for ratio in timings.ratios(baseline.key, side.key)]
    return Timed(
        form=side.form,
        sequences=Z,
        name=side.name,
        milliseconds=median,
        spread=spread(timings.times(side.key)),
        tflops=tflops,
        of_product=None if product is None else tflops / product,
        of_exp2=(tflops / HOPPER_EXP2[0], tflops / HOPPER_EXP2[1]) if hopper else None,
        of_sdpa=statistics.median(ratios) if ratios else None,
        of_sdpa_spread=spread(ratios) if ratios else None,
        baseline=baseline.name if baseline else None,
        error=side.error,
        timed=side.sampler.timed,
    )
