"""Rows of preferences for tests: short prompts, of two responses the one that smiles."""

import json
from pathlib import Path
from typing import Any

ANIMALS, NAMES = ("cat", "dog", "fox", "hen"), ("Tom", "Mia", "Sam", "Ann", "Lily")
KEYS = ("data.template=plain", "data.validation_prompts=8", "data.validation=0.2")
SMALL = ["--data", "pairs.jsonl", *(word for key in KEYS for word in ("--set", key))]
"""For a command: such rows, and few of them held out."""


def rows(count: int = 60) -> list[dict[str, Any]]:
    found = []
    for i in range(count):
        animal, name = ANIMALS[i % 4], NAMES[i % 5]
        said = {"chosen": f"and smiled at {animal}s.", "rejected": f"and hit the {animal}s."}
        found.append({"prompt": f"The {animal} {name} saw {i} ", **said})
    return found


def write_rows(path: Path, found: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
