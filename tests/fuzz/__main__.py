"""`python -m fuzz`, in `tests/`: see `make fuzz`."""

from __future__ import annotations

import argparse
import sys

from fuzz.worker import KINDS, clock, lines, run


def main() -> int:
    """Runs the cases of all kinds; the exit status is 1 if one of them broke something."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000, help="of each kind (default: 1000)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas (default: all)")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this case alone")
    args = parser.parse_args()
    numbers = range(args.cases) if args.only is None else range(args.only, args.only + 1)
    broken = 0
    for kind in args.kinds.split(","):
        start = clock()
        tally = run(kind, args.seed, numbers)
        print("\n".join(lines(kind, args.seed, tally, clock() - start)), flush=True)
        broken += tally.broken
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
