"""`tinytale`: the commands in the order in which a person meets them."""

import io
import sys

import typer

from tinytale_mlx.errors import UserError

from . import (
    bench,
    chat,
    data,
    doctor,
    evaluate,
    export,
    finetune,
    fuse,
    generate,
    info,
    log,
    plan,
    quantize,
    recipes,
    report,
    rlhf,
    tokenizer,
    train,
)

app = typer.Typer(
    name="tinytale",
    help="Train, tune, align and talk to a small language model on an 8 GB Mac, in MLX.\n\n"
    "Start with `tinytale train`, then `tinytale chat`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command()(train.train)
app.command()(chat.chat)
app.command()(generate.generate)
app.command(name="eval")(evaluate.evaluate)
app.command()(finetune.finetune)
app.command()(fuse.fuse)
app.command()(quantize.quantize)
app.command()(export.export)
app.command()(log.log)
app.command()(report.report)
app.command()(plan.plan)
app.command()(info.info)
app.command()(recipes.recipes)
app.command()(doctor.doctor)
app.add_typer(rlhf.app)  # typer lists groups after commands
app.add_typer(tokenizer.app)
app.add_typer(data.app)
app.add_typer(bench.app)


def main(arguments: list[str] | None = None) -> None:
    """Run a command. What the user can mend becomes one sentence on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows a question mark
            stream.reconfigure(errors="replace")
    try:
        app(arguments)
    except UserError as error:
        print(f"tinytale: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
