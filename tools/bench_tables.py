#!/usr/bin/python3
"""The tables of doc/performance.md, from what `make bench` and `make bench-peers` measured.

    tools/bench_tables.py [--bench build/bench/bench.json] [--peers build/bench/peers.json] [--into doc/performance.md]

Prints them in Markdown; with --into a block of the document between `<!-- bench NAME -->` and `<!-- end -->` becomes the table of
its name: machine, limits, peers, lowrank, peer-machine. A block whose file is not given stays as it is."""
import argparse
import json
import re
import sys

BLOCK = re.compile(r"(<!-- bench ([a-z-]+) -->\n)(.*?)(\n?<!-- end -->)", re.DOTALL)
# Of a section: which of its cases the table has, and what is aimed at: as text, or by the number of ranks.
ROWS = [
    ("edit", r"bitdelta|bias|prune", "0.5 of at most 0.6"),
    ("edit", r"della", ""),
    ("edit", r"", {1: "0.75", 2: "0.9"}),
    ("store", r"processor", ""),
    ("store", r"", "1.1 or less"),
    ("hdf5", r"", "1.1 or less"),
    ("files", r"small", "1 or less"),
    ("files", r"", "1.1 or less"),
    ("sweep", r"kept", "4 or less"),
    ("sweep", r"read", "1"),
    ("svd", r"exact$", "1.7"),
    ("svd", r"random$", "1.5 or less"),
    ("svd", r"auto$", ""),
    ("model", r"pass of sgemm", "0.85"),
    ("experts", r"pass of sgemm", "0.85"),
    ("bf16", r"pass", "0.75 or less"),
    ("nn", r"gelu|rmsnorm", "0.9"),
    ("nn", r"^(?!attn|sgemm|copy)", ""),
    ("tensor", r"", ""),
    ("memory", r"", "1 or less"),
]


def short(value):
    """Three digits."""
    return "" if value is None else f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def ratio(value):
    """Two decimals below ten."""
    return f"{value:.2f}" if value is not None and abs(value) < 10 else short(value)


def spread(result):
    """Median with the least and the most."""
    text = short(result["median"])
    return text if result["low"] == result["high"] else f"{text} [{short(result['low'])}, {short(result['high'])}]"


def table(head, rows):
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if str(cell) else " " for cell in line) + "|" for line in lines)


def aim(result):
    """What is aimed at, or None for a case that is not in the table."""
    for section, cases, target in ROWS:
        if result["section"] == section and re.search(cases, result["case"]):
            return target if isinstance(target, str) else target.get(result["ranks"], "")
    return None


def limits(bench):
    """Figures next to the limits of the machine, in the order of the sections."""
    order = list(dict.fromkeys(section for section, _, _ in ROWS))
    found = [(result, aim(result)) for result in bench["results"]]
    rows = [
        [result["section"], result["case"], result["ranks"], f"{spread(result)} {result['unit']}",
         f"{short(result['limit'])} {result['unit']}" if result["limit"] else "", ratio(result["ratio"]), target if result["ratio"] else ""]
        for result, target in sorted((pair for pair in found if pair[1] is not None), key=lambda pair: order.index(pair[0]["section"]))
    ]
    return table(["section", "what", "ranks", "measured", "limit", "ratio", "target"], rows)


def peers(document):
    """Edits from file to file."""
    rows = []
    for result in document["results"]:
        if result["part"] != "lowrank":
            rows.append([result["part"], result["who"], spread(result), ratio(result.get("ratio")), ratio(result.get("ratio without start")),
                         short(result["memory [MiB]"]), ratio(result.get("memory ratio"))])
    return table(["edit", "who", "time [s]", "of deltapath's", "mpirun's start taken off", "memory [MiB]", "of deltapath's"], rows)


def lowrank(document):
    """Truncated decompositions."""
    rows = [[result["case"], result["who"], spread(result), f"{result['residual']:.5f}", result["how"], ratio(result.get("ratio"))]
            for result in document["results"] if result["part"] == "lowrank"]
    return table(["matrix", "who", "time [s]", "residual", "how", "of deltapath's time"], rows)


def machine(document):
    """What the figures were measured on."""
    return table(["machine", ""], [[key, short(value) if isinstance(value, float) else value] for key, value in document["machine"].items()])


def load(path):
    """One of the two documents."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}: make it with `make bench` or `make bench-peers`")


def main():
    """Print or insert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench")
    parser.add_argument("--peers")
    parser.add_argument("--into")
    options = parser.parse_args()
    tables = {}
    if options.bench:
        bench = load(options.bench)
        tables |= {"machine": machine(bench), "limits": limits(bench)}
    if options.peers:
        document = load(options.peers)
        tables |= {"peer-machine": machine(document), "peers": peers(document), "lowrank": lowrank(document)}
    if not tables:
        parser.error("give --bench or --peers")
    if options.into is None:
        print("\n\n".join(text for text in tables.values() if text.count("\n") > 1))
        return 0
    with open(options.into, encoding="utf-8") as file:
        text = file.read()
    missing = set(tables) - {match[2] for match in BLOCK.finditer(text)}
    if missing:
        sys.exit(f"{options.into}: no block of the name {', '.join(sorted(missing))}")
    text = BLOCK.sub(lambda match: f"{match[1]}{tables[match[2]]}\n<!-- end -->" if match[2] in tables else match[0], text)
    with open(options.into, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
