"""Try a list of settings: ``python -m any2all.evaluation.tune --method mds-150 --vary gamma=1,5,20,50 --tasks R4+T1``.

The tasks, data and starting method are those of ``configs/evaluate.json``; every combination of the varied settings
becomes a method, and all stand in one table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from ..errors import Any2allError
from ..workflow import front_door, load_prior
from .cases import MANIFEST
from .front import TableEvaluator, data_folder, load_ground

BUNDLE = Path(__file__).parents[2]


def variations(method: Mapping[str, Any], vary: Sequence[str]) -> list[dict[str, Any]]:
    """The method with every combination of settings.

    >>> [m["name"] for m in variations({"name": "a", "sampler": "mds"}, ["gamma=1,5"])]
    ['gamma=1', 'gamma=5']
    """
    choices = []
    for words in vary:
        key, equals, values = words.partition("=")
        if not equals or not values:
            raise Any2allError("a setting and its values are expected", key="vary", value=words, allowed="gamma=1,5,20")
        choices.append([(key, _value(value)) for value in values.split(",")])
    combinations = list(product(*choices))
    names = [" ".join(f"{key}={value}" for key, value in picked) or method["name"] for picked in combinations]
    return [{**method, **dict(picked), "name": name} for name, picked in zip(names, combinations, strict=True)]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; nothing is written without ``--output_dir``."""
    options = _parser().parse_args(arguments)
    config = json.loads((BUNDLE / "configs" / "evaluate.json").read_text())
    prior = load_prior(options.model)
    with front_door():
        methods = {method["name"]: method for method in config["method_list"]}
        if options.method not in methods:
            raise Any2allError("no such method", key="method", value=options.method, allowed=list(methods))
        tried = variations({**methods[options.method], "tasks": None}, options.vary)
    ground = load_ground(data_folder(), prior, "validation", options.kinds, MANIFEST)
    TableEvaluator(
        prior,
        ground,
        config["task_list"],
        tried,
        options.tasks,
        simulation=config["simulation"],
        model_file=options.model,
        output_dir=options.output_dir,
        batch_size=config["batch_size"],
        seed=options.seed,
    ).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m any2all.evaluation.tune", description=__doc__)
    parser.add_argument("--method", required=True, help="name of an entry of method_list to start from")
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=A,B", help="may be given several times")
    parser.add_argument("--tasks", help="names of task_list, with commas; default: all")
    parser.add_argument("--kinds", default="rendered", help="of validation cases: rendered, block, real, with commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=BUNDLE / "models" / "model.pt")
    parser.add_argument("--output_dir", type=Path, help="keep results there; a second run resumes")
    return parser


if __name__ == "__main__":
    main()
