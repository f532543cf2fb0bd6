"""Writes the tables of what models cost (`knet models`) and of their tensors, after a change to the zoo or a network.

    python benchmarks/model_table.py      # about a minute

Tests compare them with the networks.
"""

import json
from pathlib import Path

import knet
from knet.inference.cost import table_row
from knet.weights.fitting import outline, shapes_of

ASSETS = Path(knet.__file__).parent / "assets"

if __name__ == "__main__":
    tables = {
        "models.json": [table_row(name) for name in knet.models()],
        "tensors.json": {name: outline(shapes_of(name)) for name in knet.models()},
    }
    for name, table in tables.items():
        (ASSETS / name).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
