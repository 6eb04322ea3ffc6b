"""Many clips, many GPUs: a folder of clips through engines, each worker with engines of its own, by Ray Data.

python examples/ray/many_clips.py ENGINES CLIPS -o OUT --workers 2
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import math
import os
import pathlib
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from page4d.errors import EngineError, ExitCode, MissingBackendError, Page4DError, UsageError
from page4d.files import OutputKind, refuse_foreign, sha256, staged, write_atomically
from page4d.manifest_checks.manifest_file import MANIFEST, read_manifest
from page4d.system.plain_text import counted
from page4d.system.progress import SILENT
from page4d_engines import Backend, console
from page4d_engines.cli import Verbose, command, folder_to_write, start
from page4d_engines.clip.fit import FitMode
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.window_reader import windows
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool, available_threads
from page4d_engines.pipeline import Pipeline
from page4d_engines.results.clip_run import ClipRun, RunOptions
from page4d_engines.results.summary import RUN_OUTPUT, SUMMARY, read_summary
from page4d_engines.timing import Stopwatch

REPORT = "clips.json"  # in OUT: the state of every clip; marks the folder as this script's
MADE_BY = "made_by.json"  # in OUT/<clip>: with which engines and options
CLIP_OUTPUT = dataclasses.replace(
    RUN_OUTPUT, files=lambda folder: None if (files := RUN_OUTPUT.files(folder)) is None else [*files, MADE_BY]
)
UNFINISHED = ".unfinished"  # in OUT: where workers write; a worker that is killed cannot tidy up, the next run can
TRIES = 3  # Ray restarts a worker that died, with the clip that it died of

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What every worker is to do. Paths are absolute: a worker may have another working directory."""

    engines: pathlib.Path
    clips: pathlib.Path
    out: pathlib.Path
    manifest: str
    """SHA-256 of the engines' manifest, which has the hashes of all their files."""
    backend: Backend
    stride: int
    fit: FitMode | None

    @property
    def made_by(self) -> dict[str, Any]:
        """What a clip's output depends on besides the clip."""
        return {"manifest": self.manifest, "stride": self.stride, "fit": None if self.fit is None else self.fit.value}

    def has(self, clip: str) -> bool:
        """Whether a clip is done: its output is there, from these engines and options; a rename made it whole."""
        try:
            read_summary(self.out / clip / SUMMARY)
            return bool(json.loads((self.out / clip / MADE_BY).read_bytes()) == self.made_by)
        except (UsageError, OSError, ValueError):
            return False


class Worker:
    """One process with one set of engines, to which Ray gives clip after clip.

    An error of a clip is returned in its row, so that the others go on.

    Args:
        job: what to do.
        threads: CPU threads of the engines.
    """

    def __init__(self, job: Job, threads: int) -> None:
        self.job, self.name = job, f"{os.uname().nodename}:{os.getpid()}"
        self.refused: Page4DError | None = None
        clock, pool = Stopwatch(), ThreadPool.of(threads, shared=True)
        try:
            if sha256(job.engines / MANIFEST) != job.manifest:
                raise EngineError(
                    "the engines on this machine are others than where the run was started",
                    got=f"{self.name}:{job.engines}",
                )
            self.engines = EngineFolder.open(job.engines)
            sliding = job.stride < self.engines.manifest.layout.T
            self.pipeline = Pipeline.of(self.engines, job.backend, pool, sliding=sliding)
        except OSError as error:
            self.refused = EngineError(
                f"the engines cannot be read: {error.strerror}",
                got=f"{self.name}:{error.filename}",
                hint="put them on every machine",
            )
        except Page4DError as error:  # raised from here it would arrive as Ray's error, without its exit code
            self.refused = error
        self.load_seconds = clock.seconds

    def __call__(self, row: Row) -> Row:
        """Run the clip that a row names; the row with its result."""
        clock = Stopwatch()
        done = {
            "clip": row["clip"],
            "windows": 0,
            "error": "",
            "fatal": 0,
            "worker": self.name,
            "load_seconds": self.load_seconds,
        }
        if self.refused is not None:
            return done | {"error": str(self.refused), "fatal": int(self.refused.exit_code), "seconds": 0.0}
        try:
            done["windows"] = self.run(row["clip"], clock)
        except Page4DError as error:
            done["error"] = str(error)
        except Exception:  # one clip's bug is not the end of a night's run
            done["error"] = traceback.format_exc()
        return done | {"seconds": clock.seconds}

    def run(self, clip: str, clock: Stopwatch) -> int:
        """Write `OUT/<clip>`, whole or not at all; how many windows it has.

        Raises:
            UsageError: frames, masks or cameras that do not go with the engines, or something else lies at
                `OUT/<clip>`.
            Page4DError: workers died of this clip before.
        """
        job, unfinished = self.job, self.job.out / UNFINISHED
        with (unfinished / f"{clip}.tries").open("ab") as tries:
            if tries.tell() >= TRIES:
                raise Page4DError(
                    f"{TRIES} workers died while they ran this clip",
                    hint="fewer workers or a smaller clip, if memory ran out",
                )
            tries.write(b".")
        final = job.out / clip
        refuse_foreign(final, CLIP_OUTPUT)
        folder = FrameFolder.open(job.clips / clip, loose=UngroupedImages.of(self.pipeline.manifest.layout))
        options = RunOptions(stride=job.stride, fit=job.fit, clock=clock)
        summary = ClipRun.prepare(self.engines, folder, unfinished / clip, options, self.pipeline).run(SILENT)
        write_atomically(unfinished / clip / MADE_BY, json.dumps(job.made_by).encode())
        with staged(final, CLIP_OUTPUT) as whole:
            whole.rmdir()
            (unfinished / clip).rename(whole)
        return len(summary.windows)


def results(
    job: Job, clips: list[str], address: str, workers: int | None, gpus: float, threads: int | None
) -> Iterator[Row]:
    """The row of each clip, as soon as it is done, in whatever order; closing the iterator ends the workers.

    Raises:
        MissingBackendError: Ray is not installed.
        UsageError: no cluster at that address, or it has no room for so many workers.
        Page4DError: a worker cannot load the engines, or Ray gave up.
    """
    try:
        import ray.data
    except ImportError as error:
        raise MissingBackendError(f"this example needs Ray Data: {error}", hint='pip install "page4d[ray]"') from None
    local: dict[str, Any] = {}
    if address == "local":  # the object store holds only names and counts
        cpus = max(available_threads(), (workers or 1) * (threads or 1))
        local = {"num_cpus": cpus, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except ConnectionError as error:
        raise UsageError(
            f"no Ray cluster: {error}", got=address, hint="ray start --head, or leave --address out"
        ) from None
    try:
        workers, threads = divide(
            [node["Resources"] for node in ray.nodes() if node["Alive"]], len(clips), workers, gpus, threads
        )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context.execution_no_progress_timeout_s = -1  # a clip may take hours
        # a worker takes a block at a time: one clip, and no clip waits for another one's worker
        dataset = ray.data.from_items([{"clip": clip} for clip in clips], override_num_blocks=len(clips))
        pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1)
        resources = {"num_gpus": gpus} if gpus else {"num_cpus": threads}
        rows = dataset.map(Worker, fn_constructor_args=(job, threads), compute=pool, **resources)
        # iter_rows would hold a row back until the next one comes
        for table in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            (row,) = table.to_pylist()
            if row["fatal"]:
                refused = Page4DError(row["error"])
                refused.exit_code = ExitCode(row["fatal"])
                raise refused
            yield row
    except ray.exceptions.RayError as error:
        raise Page4DError(f"Ray gave up: {error}") from None
    finally:
        ray.shutdown()


def divide(
    machines: list[dict[str, float]], clips: int, workers: int | None, gpus: float, threads: int | None
) -> tuple[int, int]:
    """The number of workers, and of threads for each of them.

    Args:
        machines: the resources of each: `CPU`, `GPU`.
        clips: to run; more workers than clips would idle.
        workers: None takes as many as there are GPUs for, or without GPUs one per machine.
        gpus: that each worker gets; may be a part of one.
        threads: None shares each machine's CPUs evenly.

    Raises:
        UsageError: the machines have no room for them.
    """
    if gpus:
        machines = [machine for machine in machines if machine.get("GPU", 0) >= gpus]
        room = [int(machine["GPU"] // gpus) for machine in machines]
        chosen = sum(room) if workers is None else workers
        share = [int(machine.get("CPU", 0)) // places for machine, places in zip(machines, room, strict=True)]
    else:
        machines = [machine for machine in machines if machine.get("CPU", 0) >= (threads or 1)]
        chosen = min(len(machines) if workers is None else workers, clips)
        share = [int(machine["CPU"]) // math.ceil(chosen / len(machines)) for machine in machines]
    threads = threads or max(1, min(share, default=1))
    if not gpus:
        room = [int(machine["CPU"] // threads) for machine in machines]
    what = f"{gpus:g} GPUs" if gpus else f"{threads} threads"
    if not room:
        raise UsageError(
            f"no machine has room for a worker of {what}", hint="fewer --gpus-per-worker" if gpus else "fewer --threads"
        )
    if chosen > sum(room):
        raise UsageError(
            "the machines have no room for so many workers",
            got=f"{chosen} workers of {what}",
            allowed=f"up to {sum(room)}",
        )
    return min(chosen, clips), threads


def clips_in(folder: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Names of the clips: every folder that is not hidden.

    Raises:
        UsageError: there are none, this is a clip itself, or the output would become a clip.
    """
    if not folder.is_dir():
        raise UsageError("there is no such folder of clips", got=folder)
    if (folder / "frames").is_dir():
        raise UsageError(
            "this is one clip", got=folder, allowed="a folder of clip folders", hint=f"page4d-run, or {folder.parent}"
        )
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            "-o lies among the clips, where it would be taken for one", got=out, allowed=f"a folder outside {folder}"
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UsageError(
            "the folder has no clips", got=folder, allowed="a folder per clip, each as page4d-run takes it"
        )
    return names


def alone_in(out: pathlib.Path) -> int:
    """A lock of the folder, as a file descriptor: held until it is closed or this process ends.

    Raises:
        UsageError: another run writes there.
    """
    lock = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError("another run writes to -o", got=out, hint="wait until it is done, or another folder") from None
    except OSError:  # a file system without locks
        pass
    return lock


def is_ours(out: pathlib.Path) -> bool:
    """Whether a folder holds this script's report: clips are then added to it, and nothing else in it is touched."""
    try:
        report = json.loads((out / REPORT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(report, dict) and {"engines", "manifest", "kept", "done", "failed"} <= set(report)


def many_clips(
    engines: Annotated[pathlib.Path, typer.Argument(help="engine folder, at the same path on every machine")],
    clips: Annotated[pathlib.Path, typer.Argument(help="folder of clip folders, each as page4d-run takes it")],
    out: Annotated[
        pathlib.Path,
        typer.Option(
            "-o",
            "--out",
            parser=folder_to_write,
            metavar="FOLDER",
            help="folder to write <clip>/ into; clips that it has are kept",
        ),
    ],
    workers: Annotated[
        int | None, typer.Option(help="default: one per GPU with --gpus-per-worker, else one per machine")
    ] = None,
    gpus_per_worker: Annotated[float, typer.Option(help="0 for the CPU; 0.5 puts two workers on a GPU")] = 0.0,
    backend: Annotated[Backend, typer.Option(help="what runs the engines; all but auto are demands")] = Backend.AUTO,
    fit: Annotated[FitMode | None, typer.Option(help="what to do with another aspect ratio than the engines'")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="frames from one window's start to the next's; default T")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each worker; default: its share of the machine")
    ] = None,
    address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="the cluster: auto for the one of this machine; local starts one")
    ] = "local",
    again: Annotated[bool, typer.Option("--again", help="run all clips, those that are done, too")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="the state of the clips as one JSON document on stdout")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run engines over many clips on all GPUs, of one machine or of a Ray cluster.

    Run it again to go on where it was stopped.
    """
    console.set_verbosity(verbose)

    def body() -> None:
        if workers is not None and workers < 1:
            raise UsageError("--workers is out of range", got=workers, allowed="1 or more")
        if gpus_per_worker < 0 or (gpus_per_worker > 1 and gpus_per_worker % 1):
            raise UsageError(
                "--gpus-per-worker is out of range", got=gpus_per_worker, allowed="0, a part of one, or whole ones"
            )
        T = read_manifest(engines).layout.T
        step = T if stride is None else stride
        windows(T, T, step)  # refuses a stride that no clip could have
        names = clips_in(clips, out)
        if not (out.is_dir() and is_ours(out)):
            kind = OutputKind("the output of this script", REPORT, lambda folder: None)
            refuse_foreign(out, kind, {"the engine folder": engines})
        job = Job(engines.absolute(), clips.absolute(), out.absolute(), sha256(engines / MANIFEST), backend, step, fit)
        kept = [] if again else [name for name in names if job.has(name)]
        todo = sorted(set(names) - set(kept))
        if kept:
            console.say(f"{len(kept)} of {len(names)} clips are done already")

        out.mkdir(exist_ok=True)
        lock = alone_in(out)
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        rows: list[Row] = []

        def report() -> Row:
            failed = {row["clip"]: row["error"] for row in rows if row["error"]}
            document = {
                "engines": str(engines),
                **job.made_by,
                "kept": kept,
                "done": [row for row in rows if not row["error"]],
                "failed": failed,
            }
            write_atomically(out / REPORT, json.dumps(document, indent=1).encode() + b"\n")
            return document

        report()
        if todo:
            (out / UNFINISHED).mkdir()
            try:
                for row in results(job, todo, address, workers, gpus_per_worker, threads):
                    rows.append(row)
                    what = f"{counted(row['windows'], 'window')} in {row['seconds']:.1f} s"
                    if row["error"]:
                        lines = row["error"].splitlines()
                        what = f"failed, {lines[-1 if lines[0].startswith('Traceback') else 0]}"
                    console.say(
                        f"{len(rows):>{len(str(len(todo)))}} of {len(todo)}  {row['clip']}: {what}, {row['worker']}"
                    )
            finally:
                report()
                shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        document = report()
        os.close(lock)
        if as_json:
            console.write_json(document)
        if document["failed"]:
            lines = [f"{clip}: {error}" for clip, error in document["failed"].items()]
            lines = [f"{len(lines)} of {len(names)} clips failed", *lines, f"all of it: {out / REPORT}"]
            raise Page4DError("\n".join(lines))

    raise typer.Exit(console.run(body))


if __name__ == "__main__":
    start(command(many_clips))
