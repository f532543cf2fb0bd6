"""Writes the table that `knet models` prints, after a change to the zoo or to a network.

    python benchmarks/model_table.py      # about a minute

A test compares it with the networks.
"""

import json
from pathlib import Path

import knet
from knet.inference.cost import table_row

TABLE = Path(knet.__file__).parent / "assets" / "models.json"

if __name__ == "__main__":
    TABLE.write_text(json.dumps([table_row(name) for name in knet.models()], indent=1) + "\n", encoding="utf-8")
