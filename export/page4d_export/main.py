"""The commands: `page4d-export`, and `page4d` with every command under one name."""

from __future__ import annotations

import typer

from page4d_engines import cli
from page4d_export.commands.export import export_command


def export() -> None:
    """Entry point of `page4d-export`."""
    cli.start(cli.command(export_command))


def main() -> None:
    """Entry point of `page4d`."""
    from page4d_engines.commands.convert import convert_command
    from page4d_engines.commands.evaluate import evaluate_command
    from page4d_engines.commands.view import view_command
    from page4d_export.commands import bench, plugins
    from page4d_export.commands.clip import clip_command
    from page4d_export.commands.doctor import doctor_command
    from page4d_export.commands.inspect import inspect_command, weights_command
    from page4d_export.commands.triton import export_triton_command
    from page4d_export.commands.verify import verify_command

    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def page4d(version: cli.Version = False) -> None:
        """Multi-camera 4D perception as verified engines."""

    app.command("export")(export_command)
    app.command("run")(cli.run)
    app.command("convert")(convert_command)
    app.command("view")(view_command)
    app.command("eval")(evaluate_command)
    app.command("inspect")(inspect_command)
    app.command("verify")(verify_command)
    app.command("doctor")(doctor_command)
    app.command("export-triton")(export_triton_command)
    app.command("weights")(weights_command)
    app.command("clip")(clip_command)
    app.add_typer(bench.app, name="bench")
    app.add_typer(plugins.app, name="plugins")
    cli.start(app)
