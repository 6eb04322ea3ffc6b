"""Commands killed at random: is `-o` the whole old or new result then, and is nothing left after the next command?

python tests/support/hostile/kills.py [--count 100] [--seed 0]
"""

import argparse
import collections
import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from page4d.files import staged


def state_of(folder):
    """Names and contents of everything in a folder that is not a staging folder; None where there is none."""
    if not folder.exists():
        return None
    files = (path for path in folder.rglob("*") if not path.relative_to(folder).parts[0].startswith(f".{folder.name}-"))
    lines = (
        f"{path.relative_to(folder)} {'' if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in files
    )
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def left_behind(out):
    """Staging folders of an output folder, beside it and in it."""
    prefix = f".{out.name}-"
    return [
        path
        for place in (out.parent, out)
        if place.is_dir()
        for path in place.iterdir()
        if path.name.startswith(prefix)
    ]


def identity(path):
    """Of a file, another one for its replacement; None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_ino
    return None


def forked(work):
    """Call `work` in a child process that ends with its exit code; its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
        os._exit(0)
    except KeyboardInterrupt:
        os._exit(130)
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(99)


def kill_replacement(out, number, times, rng, files=300, mounted=False):
    """Kill `staged` while it replaces a result of many files; counts of what `out` then was."""
    counts = collections.Counter()
    old = out.parent / "old"
    (old / "masks").mkdir(parents=True)
    for index in range(files):
        (old / "masks" / str(index)).write_bytes(b"old")
    (old / "summary.json").write_text("old")

    def work(written):
        with staged(out) as folder:
            (folder / "masks").mkdir()
            for index in range(files):
                (folder / "masks" / str(index)).write_bytes(b"new")
            (folder / "summary.json").write_text("new")
            os.write(written, b"x")

    def fill():
        out.mkdir(exist_ok=True)
        for path in out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(old, out, dirs_exist_ok=True)

    whole = {state_of(old): "old"}
    fill()
    reader, writer = os.pipe()
    pid = forked(lambda: work(writer))
    os.read(reader, 1)
    began = time.monotonic()
    os.waitpid(pid, 0)
    length = time.monotonic() - began
    whole[state_of(out)] = "new"
    assert len(whole) == 2
    for index in range(times):
        fill()
        marker = identity(out / "summary.json")
        pid = forked(lambda: work(writer))
        os.read(reader, 1)
        if index % 2:  # as soon as the old result begins to go
            while identity(out / "summary.json") == marker:
                pass
            time.sleep(rng.uniform(0, 0.01))
        else:
            time.sleep(rng.uniform(0, 1.2 * length))
        os.kill(pid, number)
        os.waitpid(pid, 0)
        state = whole.get(state_of(out))
        if state is None:  # in the middle of a volume's entries: the next command finishes it
            assert mounted and not (out / "summary.json").exists(), "neither whole nor without its marker"
            state = "finished by the next command"
        counts[state] += 1
        os.waitpid(forked(lambda: work(writer)), 0)
        os.read(reader, 1)
        assert whole.get(state_of(out)) == "new" and not left_behind(out), (state_of(out), left_behind(out))
    os.close(reader)
    os.close(writer)
    return counts


def kill_command(work, out, number, times, rng, over):
    """Kill a command at random times; counts of what `out` then was, and of commands that left a staging folder.

    Args:
        work: the command, in a forked process.
        over: an earlier result that lies at `out` each time; None: nothing does.
    """
    counts, left = collections.Counter(), 0
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    os.waitpid(forked(work), 0)
    length = time.monotonic() - began
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
    for _ in range(times):
        shutil.rmtree(out, ignore_errors=True)
        if over is not None:
            shutil.copytree(over, out)
        before = state_of(out)
        pid = forked(work)
        time.sleep(rng.uniform(0, 1.05 * length))
        os.kill(pid, number)
        os.waitpid(pid, 0)
        after = state_of(out)
        if after == before:
            counts["old" if over is not None else "nothing"] += 1
        else:
            assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*")) == names, "half a result"
            counts["new"] += 1
        left += bool(left_behind(out))
    os.waitpid(forked(work), 0)
    assert not left_behind(out), left_behind(out)
    return counts, left


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    rng = random.Random(chosen.seed)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        for name in ("SIGKILL", "SIGINT"):
            place = root / f"replace-{name}"
            place.mkdir()
            print(
                f"replacement, {name}:"
                f" {dict(kill_replacement(place / 'out', signal.Signals[name], chosen.count, rng))}",
                flush=True,
            )
        volume = root / "volume"
        (volume / "out").mkdir(parents=True)
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", volume / "out"], capture_output=True).returncode == 0:
            try:
                counts = kill_replacement(volume / "out", signal.SIGKILL, chosen.count, rng, mounted=True)
                print(f"replacement in a volume, SIGKILL: {dict(counts)}", flush=True)
            finally:
                subprocess.run(["umount", volume / "out"], check=True)

        import torch

        import page4d_export.exporter
        import page4d_export.main
        from page4d_engines import cli
        from page4d_export.sample_scene.clip import render, save

        torch.set_num_threads(1)
        save(render(4, 2, 56, 56), root / "clip")

        def command(entry, *arguments):
            def work():
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                sys.argv = ["page4d", *map(str, arguments), "-q"]
                entry()

            return work

        def export(out):
            return command(
                page4d_export.main.export,
                "--preset",
                "tiny",
                "--T",
                2,
                "--V",
                2,
                "--height",
                28,
                "--width",
                28,
                "--no-build",
                "-o",
                out,
            )

        os.waitpid(forked(export(root / "engines")), 0)
        for over in (None, root / "engines"):
            counts, left = kill_command(export(root / "out"), root / "out", signal.SIGKILL, chosen.count, rng, over)
            print(
                f"page4d-export over {'an earlier folder' if over else 'a new name'}, SIGKILL: {dict(counts)}, {left}"
                " left a staging folder",
                flush=True,
            )

        def run(out):
            return command(cli.main, root / "engines", root / "clip", "-o", out)

        os.waitpid(forked(run(root / "earlier")), 0)
        for over in (None, root / "earlier"):
            for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"):
                times = chosen.count if name == "SIGKILL" else -(-chosen.count // 4)
                counts, left = kill_command(
                    run(root / "result"), root / "result", signal.Signals[name], times, rng, over
                )
                print(
                    f"page4d-run over {'an earlier result' if over else 'a new name'}, {name}: {dict(counts)}, {left}"
                    " left a staging folder",
                    flush=True,
                )
                assert name == "SIGKILL" or left == 0


if __name__ == "__main__":
    main()
