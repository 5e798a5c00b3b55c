"""Sampling options of the command line, laid over a model's own."""

from pydantic import ValidationError

from tinytale_mlx.errors import UserError
from tinytale_mlx.recipe import GenerateRecipe


def with_options(settings: GenerateRecipe, **options: float | int | None) -> GenerateRecipe:
    """The settings with those options that were given. Raises UserError for a value out of range."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return GenerateRecipe.model_validate(settings.model_dump() | given)
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + str(problem["loc"][0]).replace("_", "-")
        raise UserError(f"{option}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {problem['input']}") from None
