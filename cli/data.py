"""`tinytale data`: make the tokens of a text ahead of training, and look at what the model will see."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tinytale_mlx import run
from tinytale_mlx.reports.wording import quantity

from .options import Json, Runs, Set, own_text, print_json, printable

app = typer.Typer(
    name="data",
    help="Make the tokens of a text ahead of training, and look at what the model will see.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
Recipe = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE", help="A recipe or a YAML file: its text and its tokenizer. Default: tale."),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", "-d", help="Your own text: files, folders, globs, a data set, or - for standard input."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes. Default: one, or for large files one a core.")
]
SEGMENTS = ("cyan", "yellow")


def _load(recipe: str | None, data: list[str] | None, set_: list[str] | None) -> Any:
    from tinytale_mlx import recipe_files

    return recipe_files.load(recipe or "tale", [*own_text(data), *(set_ or [])])


@app.command()
def prepare(
    recipe: Recipe = None,
    data: Data = None,
    set_: Set = None,
    workers: Workers = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Train the tokenizer, clean the text, and write its tokens to disk, where `tinytale train` finds them.

    They are made once, and again only when the text, the cleaning or the tokenizer changes.

    Examples:

        tinytale data prepare --data my-stories/ --workers 2

        tinytale data prepare tiny-tale --data web.jsonl.gz --set data.clean.html=true --set data.clean.duplicates=exact
    """
    from tinytale_mlx import stages

    from .train_view import TrainView

    wanted = _load(recipe, data, set_)
    with TrainView(quiet=json, on_start=lambda: None) as view:
        corpus, seconds = stages.prepare_data(wanted, runs, view.notify, workers)
    figures = stages.data_figures(corpus) | {"seconds": seconds}
    if json:
        print_json(figures)
        return
    console = Console(highlight=False)
    _show_sources(console, figures)
    console.print(f"prepared in {seconds:.1f} s; `tinytale train` with the same settings uses it", soft_wrap=True)


@app.command()
def show(
    recipe: Recipe = None,
    data: Data = None,
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="So many samples of each kind.")] = 2,
    template: Annotated[
        str, typer.Option("--template", help="For conversations: chatml, lillm, question, alpaca or plain.")
    ] = "chatml",
    set_: Set = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Sources, lengths, how full the rows are, and samples: what is trained is bright, what is only read is dim.

    Examples:

        tinytale data show

        tinytale data show --data chats.jsonl --template alpaca -n 3

        tinytale data show --data my-stories/ --set data.rows=packed --set data.document_mask=true
    """
    from tinytale_mlx import stages

    from .train_view import TrainView

    wanted = _load(recipe, data, set_)
    with TrainView(quiet=json, on_start=lambda: None) as view:
        corpus, _ = stages.prepare_data(wanted, runs, view.notify)
    figures = stages.data_figures(corpus)
    rows = stages.sample_rows(corpus, count)
    chats = stages.conversation_view(wanted, corpus.tokenizer, count, template)
    if json:
        if chats:
            chats["samples"] = [[vars(span) for span in sample] for sample in chats["samples"]]
        print_json(figures | {"samples": [[vars(span) for span in row] for row in rows], "conversations": chats})
        return
    console = Console(highlight=False)
    _show_sources(console, figures)
    _show_lengths(console, figures)
    _show_rows(console, figures)
    _show_cleaning(console, figures, count)
    for number, row in enumerate(rows, 1):
        _show_sample(console, f"row {number} of the first batch", row)
    if chats:
        _show_chats(console, chats)


def _show_sources(console: Console, figures: dict[str, Any]) -> None:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("source", overflow="fold")
    for header in ("documents", "tokens", "held out", "bytes", "bytes/token", "left out"):
        table.add_column(header, justify="right")
    for one in figures["sources"]:
        dropped = sum(one["cleaning"]["dropped"].values()) + sum(bad["rows"] for bad in one["skipped"].values())
        rate = one["bytes_per_token"]
        table.add_row(
            escape(one["source"]),
            f"{one['documents']:,}",
            f"{one['tokens']:,}",
            f"{one['validation_documents']:,} documents",
            quantity(one["bytes"]),
            "-" if rate is None else f"{rate:.2f}",
            f"{dropped:,}",
        )
    console.print(table)


def _show_lengths(console: Console, figures: dict[str, Any]) -> None:
    if "lengths" not in figures:
        return
    said = ", ".join(f"{name} {value:,.0f}" for name, value in figures["lengths"].items())
    console.print(f"\n[bold]tokens in a document[/bold]: {said}", soft_wrap=True)
    most = max(bar["documents"] for bar in figures["histogram"])
    for bar in figures["histogram"]:
        length = round(40 * bar["documents"] / most)
        console.print(f"  {bar['from']:>7,} to {bar['to']:<7,} {'█' * length} {bar['documents']:,}", soft_wrap=True)


def _show_rows(console: Console, figures: dict[str, Any]) -> None:
    for name, share in figures.get("filled", {}).items():
        console.print(f"  {name}: {share:.1%} real tokens", soft_wrap=True)
    rows = figures.get("rows")
    if rows is None:
        console.print("\nthe tokens are not stored: rows are windows of the text as it comes")
        return
    console.print(
        f"\n[bold]{rows['in_an_epoch']:,} rows[/bold] ({rows['kind']}) of {rows['context']:,} tokens; "
        f"the recipe's steps are {rows['epochs']:.2f} epochs",
        soft_wrap=True,
    )
    for name, number in rows["by_source"].items():
        console.print(f"  {number:,} of them from {escape(name)}", soft_wrap=True)


def _show_cleaning(console: Console, figures: dict[str, Any], count: int) -> None:
    for one in figures["sources"]:
        cleaning = one["cleaning"]
        for step, changed in cleaning["changed"].items():
            console.print(
                f"  {step} changed {changed:,} documents, {cleaning['removed'][step]:,} characters fewer",
                soft_wrap=True,
            )
        for reason, dropped in cleaning["dropped"].items():
            if dropped:
                console.print(f"  {dropped:,} documents left out: {reason.replace('_', ' ')}", soft_wrap=True)
        for file, bad in one["skipped"].items():
            console.print(f"  {bad['rows']:,} rows skipped in {escape(file)}: {escape(bad['first'])}", soft_wrap=True)
        for sample in one["samples"][:count]:
            console.print("[dim]raw[/dim]    ", escape(printable(sample["raw"])), soft_wrap=True)
            console.print("[dim]cleaned[/dim]", escape(printable(sample["cleaned"])), soft_wrap=True)


def _show_sample(console: Console, title: str, spans: list[Any]) -> None:
    """Trained spans bright, the others dim and, where there is no colour, in brackets of their own."""
    plain = console.color_system is None or console.no_color
    text = Text()
    for span in spans:
        shown = printable(span.text)
        if plain:
            text.append(shown if span.trained else f"⟦{shown}⟧")
        else:
            text.append(shown, SEGMENTS[span.segment % 2] if span.trained else "dim")
    console.print(f"\n[bold]{title}[/bold]")
    console.print(text, soft_wrap=True)


def _show_chats(console: Console, chats: dict[str, Any]) -> None:
    console.print(
        f"\n[bold]as conversations ({escape(chats['template'])})[/bold]: {chats['examples']:,} of "
        f"{chats['conversations']:,} fit, {chats['trained_tokens']:,} of {chats['tokens']:,} tokens are trained",
        soft_wrap=True,
    )
    for reason, number in chats["left_out"].items():
        console.print(f"  {number:,} {reason.replace('_', ' ')}", soft_wrap=True)
    for number, spans in enumerate(chats["samples"], 1):
        _show_sample(console, f"conversation {number}", spans)
