#!/usr/bin/python3
"""Put the tables that the program prints into its documents.

tools/doc_tables.py PROGRAM [--check]: a block between `<!-- deltapath VERB -->` and `<!-- end -->` in a file of
doc/ becomes what `PROGRAM VERB` prints. With --check nothing is written, and the code is 1 when a block
differs.
"""

import glob
import re
import subprocess
import sys

BLOCK = re.compile(r"(<!-- deltapath ([a-z]+) -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)


def main():
    """Update or check every document."""
    program, check = sys.argv[1], "--check" in sys.argv[2:]
    stale = blocks = 0
    for path in sorted(glob.glob("doc/*.md")):
        with open(path, encoding="utf-8") as file:
            text = file.read()

        def fill(match):
            out = subprocess.run([program, match[2]], check=True, capture_output=True, text=True)
            return f"{match[1]}\n{out.stdout.rstrip()}\n{match[4]}"

        new, count = BLOCK.subn(fill, text)
        blocks += count
        if new == text:
            continue
        stale += 1
        print(f"{path}: its tables are not what the program prints: run make doc-tables")
        if not check:
            with open(path, "w", encoding="utf-8") as file:
                file.write(new)
    if blocks == 0:
        print("doc/ has no table of the program")
    return 1 if blocks == 0 or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
