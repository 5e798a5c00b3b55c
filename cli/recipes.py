"""`tinytale recipes`: the list."""

from rich.console import Console
from rich.table import Table

from tinytale_mlx.reports.wording import quantity

from .options import Json, print_json


def recipes(json: Json = False) -> None:
    """The built-in recipes, with sizes. A recipe is a short YAML file; yours can be one too.

    Examples:

        tinytale recipes

        tinytale recipes --json
    """
    from tinytale_mlx import recipe_files, stages
    from tinytale_mlx.models.parameters import count_parameters

    found = {}
    for name in recipe_files.names():
        recipe = recipe_files.load(name)
        found[name] = {
            "parameters": count_parameters(stages.blueprint(recipe)),
            "context": recipe.model.context,
            "vocab_size": recipe.model.vocab_size or recipe.tokenizer.vocab_size,
            "data": recipe.data.model_dump()["source"],
            "description": recipe.description,
        }
    if json:
        print_json({"recipes": found})
        return
    table = Table("recipe", "parameters", "context", "vocabulary", "data", box=None, header_style="bold")
    for name, facts in found.items():
        table.add_row(
            f"[bold]{name}[/bold]",
            quantity(facts["parameters"]),
            str(facts["context"]),
            f"{facts['vocab_size']:,}",
            str(facts["data"]),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print()
    for name, facts in found.items():
        console.print(f"[bold]{name}[/bold]: {facts['description']}")
