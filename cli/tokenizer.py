"""`tinytale tokenizer`: train tokenizers, use them on text, look at them, give a model more tokens."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tinytale_mlx import run
from tinytale_mlx.errors import UserError

from .encoding import decode, encode
from .options import Json, Model, Runs, Set, own_text, print_json, printable
from .pieces import show, show_pieces

if TYPE_CHECKING:
    from tinytale_mlx.stages import TokenizerResult

app = typer.Typer(
    name="tokenizer",
    help="Train a tokenizer, use it on text, look at it, or give a model more tokens.\n\n"
    "TOKENIZER is a folder with a tokenizer or a model, a run, or a recipe; left out, the latest run's is used.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

TokenizerName = Annotated[
    str | None,
    typer.Argument(
        metavar="TOKENIZER", help="A folder with a tokenizer or a model, a run, or a recipe. Default: the latest run's."
    ),
]


# ---------------------------------------------------------------------- train
@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A recipe or a YAML file: its text, its tokenizer. Default: tale."),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", "-d", help="Your own text: files, folders, globs.")
    ] = None,
    vocab_size: Annotated[int | None, typer.Option("--vocab-size", help="Tokens, special ones included.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="bpe, sentencepiece, word or char.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write. Default: tokenizers/TEXT-KIND-SIZE.")
    ] = None,
    set_: Set = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train even if it was trained before.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes. Default: one, or for large files one a core.")
    ] = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Train a tokenizer and write it into a folder, from which recipes, transformers and mlx-lm can load it.

    What was trained before on the same text with the same settings is used again.

    Examples:

        tinytale tokenizer train

        tinytale tokenizer train --data my-book.txt --vocab-size 8192

        tinytale tokenizer train tiny-tale --data stories/ --kind word --output tokenizers/words

        tinytale tokenizer train --data my-book.txt --set tokenizer.pattern=gpt4 --retrain
    """
    from tinytale_mlx import recipe_files, stages

    from .train_view import TrainView

    given = {"tokenizer.vocab_size": vocab_size, "tokenizer.kind": kind}
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    wanted = recipe_files.load(recipe or "tale", [*own_text(data), *overrides, *(set_ or [])])
    with TrainView(quiet=json, on_start=lambda: None) as view:
        result = stages.train_tokenizer(wanted, output, runs, view.notify, retrain, workers)
    if json:
        print_json(result.to_json())
    else:
        _show_result(result, recipe, data)


def _show_result(result: "TokenizerResult", recipe: str | None, data: list[str] | None) -> None:
    from tinytale_mlx.tokenizers.inspection import visible

    console = Console(highlight=False)
    seconds = result.seconds
    how = "trained before" if seconds is None else f"trained in {seconds:.1f} s"
    console.print(f"[bold]{escape(str(result.directory))}[/bold]: {_figures(result.figures)}, {how}", soft_wrap=True)
    show_pieces(console, [(visible(text), False) for text in result.figures["sample"]])
    folder = str(result.directory)
    again = ["tinytale", "train", *([recipe] if recipe else []), *(word for one in data or [] for word in ("-d", one))]
    again += ["--set", "tokenizer.kind=directory", "--set", f"tokenizer.path={folder}"]
    console.print("now try:")
    for words in (["tinytale", "tokenizer", "inspect", folder], again):
        console.print(f"  [bold]{escape(shlex.join(words))}[/bold]", soft_wrap=True)


def _figures(figures: dict[str, Any]) -> str:
    """2,048 tokens, 4.09 bytes per token"""
    rate = figures["bytes_per_token"]
    return f"{figures['vocab_size']:,} tokens" + ("" if rate is None else f", {rate:.2f} bytes per token")


app.command()(encode)
app.command()(decode)


# ---------------------------------------------------------------------- inspect
@app.command()
def inspect(
    tokenizer: TokenizerName = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="Measure on these files, folders or globs. Default: some embedded tales."),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", "-t", help="Measure on this text.")] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare", metavar="TOKENIZER", help="Measure this one too, such as a folder with GPT-2's files."
        ),
    ] = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Kind, size, special tokens, longest tokens; on a text, bytes per token, coverage, and how a sentence is cut.

    Bytes per token say how much shorter a text becomes, and compare across tokenizers.

    Examples:

        tinytale tokenizer inspect

        tinytale tokenizer inspect my-run --text "Once upon a time, in Zürich"

        tinytale tokenizer inspect tokenizers/book-bpe-4096 --data my-book.txt --compare gpt2/
    """
    from tinytale_mlx import stages

    if data and text is not None:
        raise UserError("--data and --text both say what to measure on; give one of them")
    with Console(stderr=True).status("") as status:
        facts, cut = stages.inspect_tokenizer(
            tokenizer, data, text, compare, runs, lambda event: status.update(f"[dim]{escape(event['text'])}[/dim]")
        )
    if json:
        print_json(facts | {"pieces": [{"id": one.id, "text": one.text} for one in cut]})
        return
    console = Console(highlight=False)
    for name, value in _facts(facts):
        console.print(f"[bold]{name:>15}[/bold]  {escape(value)}", soft_wrap=True)
    if facts["figures"]:
        console.print(f"\non {escape(facts['text'])}:", soft_wrap=True)
        console.print(_table(facts["figures"]))
        show(console, cut)
    else:
        console.print(
            "\nit lacks some characters of the embedded tales; for figures, pass --data or --text", soft_wrap=True
        )


def _facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from tinytale_mlx.tokenizers.inspection import visible

    specials = [
        f"{one['id']} {visible(one['token'])}" + (f" ({', '.join(one['roles'])})" if one["roles"] else "")
        for one in facts["special_tokens"]
    ]
    return [
        ("tokenizer", facts["tokenizer"]),
        ("kind", facts["kind"]),
        ("vocabulary", f"{facts['vocab_size']:,} tokens"),
        ("special tokens", ", ".join(specials) or "none"),
        ("longest tokens", "  ".join(map(visible, facts["longest_tokens"]))),
    ]


def _table(figures: list[dict[str, Any]]) -> Table:
    """A column for each tokenizer."""
    table = Table("", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for one in figures:
        table.add_column(escape(one["tokenizer"]), justify="right", overflow="fold")
    for name, key, form in (
        ("vocabulary", "vocab_size", ",d"),
        ("of it used", "used_share", ".1%"),
        ("tokens", "tokens", ",d"),
        ("bytes per token", "bytes_per_token", ".3f"),
        ("unknown tokens", "unknown_share", ".1%"),
    ):
        table.add_row(name, *("-" if one[key] is None else format(one[key], form) for one in figures))
    return table


# ---------------------------------------------------------------------- add
@app.command()
def add(
    model: Model = None,
    token: Annotated[
        list[str] | None, typer.Option("--token", metavar="NAME", help="A new special token; repeat it for several.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The model directory to write.")] = None,
    runs: Runs = run.ROOT,
    json: Json = False,
) -> None:
    """Give a trained model further special tokens, with rows in its embedding, and write it as a new model directory.

    Each new token starts out about as likely as the average one (Hewitt 2021); fine-tuning gives it a meaning.

    Examples:

        tinytale tokenizer add my-run --token "<|tool|>" --token "<|result|>" --output models/with-tools
    """
    from tinytale_mlx import stages

    if not token or output is None:
        raise UserError("say which tokens to add, --token NAME, and where to write the new model, --output DIR")
    added = stages.add_tokens(model, token, output, runs)
    if json:
        print_json(added)
        return
    ids = ", ".join(f"{printable(name)} is {token_id}" for name, token_id in added["tokens"].items())
    print(f"{added['model']}: {added['vocab_size']:,} tokens, {added['parameters']:,} parameters; {ids}")
