#!/usr/bin/python3
"""Chaos tests of a small study: what is disturbed, how often, and what must hold afterwards.

    chaos.py faults [-n N]      the k-th call of a class fails (libfault.c); -n 0: every call of a smaller
                                study, in processes that stay (serve.py)
    chaos.py kills [-n N]       SIGKILL of one rank or of all at random instants, then --resume
    chaos.py disk [-n N]        N fill levels of a small file system
    chaos.py inputs [-n N]      an input is rewritten, cut, replaced or deleted while the study runs

Prints the seed (--seed repeats a run), TAP lines, the defects with what repeats them, and a table.
"""
import argparse
import random
import sys

import disk
import faults
import inputs
import kills
import support

KINDS = {"faults": lambda chaos, n: faults.main(chaos, n or None), "kills": kills.main, "disk": disk.main,
         "inputs": inputs.main}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("-n", type=int, default=10)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120, help="seconds after which a run hangs")
    parser.add_argument("--setup", action="append", metavar="FORMAT:RANKS", help="faults: of these alone")
    parser.add_argument("--minutes", type=float, help="faults: begin no run after so many of each setup")
    parser.add_argument("--served", action="store_true", help="faults: in processes that stay, as with -n 0")
    parser.add_argument("--place", action="append", metavar="FUNCTION", help="faults: only calls made in it, or of it")
    parser.add_argument("--messages", metavar="FILE", help="faults: write the error lines seen, with their numbers")
    parser.add_argument("--stacks", action="store_true", help="print the stacks of runs that hang")
    arguments = parser.parse_args()
    print(f"# seed {arguments.seed}", flush=True)
    every = arguments.kind == "faults" and arguments.n == 0
    arguments.served = arguments.served or every
    chaos = support.Chaos(arguments, small=every)
    try:
        return support.tap(KINDS[arguments.kind](chaos, arguments.n))
    finally:
        chaos.close()


if __name__ == "__main__":
    sys.exit(main())
