"""The embedded endings, most of them unkind, from which alignment has something to mend."""

from itertools import pairwise

from tinytale_mlx.data.tales import preferences
from tinytale_mlx.recipe import ExamplesRecipe
from tinytale_mlx.stages.finetune_data import documents


def test_three_in_four_are_unkind() -> None:
    found = list(documents(ExamplesRecipe(source="endings", documents=8), seed=0))
    expected = list(preferences(8, seed=1))
    for number, ([asked, said], tale) in enumerate(zip(found, expected, strict=True)):
        assert asked == {"role": "user", "content": tale["prompt"]}
        assert said == {"role": "assistant", "content": tale["chosen" if number in (0, 4) else "rejected"]}


def test_they_are_of_other_tales_than_those_of_alignment() -> None:
    asked = [one[0]["content"] for one in documents(ExamplesRecipe(source="endings", documents=50), seed=0)]
    assert not {*asked} & {tale["prompt"] for tale in preferences(50, seed=0)}
    assert any(first != second for first, second in pairwise(asked))
