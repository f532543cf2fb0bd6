"""knet config: the options of a published run, to be changed and trained."""

import argparse
from typing import Any

from knet.cli.options import add_verb


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    summary = "print the config of a published run, or a JSON schema of all options for editors"
    parser = add_verb(verbs, "config", summary, "knet config rtknet-lite-street > mine.yaml")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a published run; without it their names are listed")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the file as it is, with its comments; or the names; or the schema."""
    import json

    from knet.config import RunConfig, config_names, published_config

    if args.schema:
        print(json.dumps(RunConfig.model_json_schema(), indent=1))
    elif args.name is None:
        print("\n".join(config_names()))
    else:
        print(published_config(args.name).read_text("utf-8"), end="")
    return 0
