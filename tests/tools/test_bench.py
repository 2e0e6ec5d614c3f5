#!/usr/bin/python3
"""What gathers the figures of benches and makes tables and a picture of them; nothing is timed, nothing fetched."""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests/tools/bench"
sys.path[:0] = [str(ROOT / place) for place in ("tests/support", "tools", "tools/peers")]
os.chdir(ROOT)
os.environ.setdefault("DELTAPATH", os.path.join(os.environ.get("DELTAPATH_BUILD", "build/release"), "deltapath"))
import roofline
import run as peers
from studies import check, results

LINE = {"bench": "bench_roof", "case": "triad", "unit": "GB/s", "median": 10.0, "low": 9.0, "high": 11.0, "limit": None, "ratio": None,
        "ranks": 2}


def tool(*words):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)


def documents(at):
    """Lines of benches become one document."""
    (at / "roof.jsonl").write_text(json.dumps(LINE) + "\n")
    (at / "edit.jsonl").write_text(json.dumps(dict(LINE, bench="bench_edit", case="a \"name\"")) + "\n")
    done = tool("tests/bench/document.py", at / "no-build", at / "edit.jsonl", at / "roof.jsonl")
    document = json.loads(done.stdout or "{}")
    check("one document of all lines", [one["section"] for one in document.get("results", [])] == ["edit", "roof"], done.stderr)
    check("the machine has its bandwidth", document["machine"].get("memory bandwidth [GB/s], 2 ranks") == 10.0, document["machine"])
    check("and its cores", document["machine"]["cores"] == len(os.sched_getaffinity(0)))
    (at / "edit.jsonl").write_text(json.dumps(LINE) + "\n{\"bench\"\n")
    done = tool("tests/bench/document.py", at / "no-build", at / "edit.jsonl")
    check("a line that is cut is named", done.returncode == 1 and "edit.jsonl: line 2" in done.stderr, done.stderr)


def tables(at):
    """The committed figures as the committed tables, and into a document."""
    made = [tool("tools/bench_tables.py", f"--{name}", SAMPLE / f"{name}.json").stdout for name in ("bench", "peers")]
    check("tables of the sample", "\n".join(made) == (SAMPLE / "tables.md").read_text(), "\n".join(made))
    text = "".join(f"# {name}\n<!-- bench {name} -->\nold\n<!-- end -->\n" for name in ("machine", "limits", "peers", "lowrank", "peer-machine"))
    path = at / "text.md"
    path.write_text(text)
    done = tool("tools/bench_tables.py", "--bench", SAMPLE / "bench.json", "--into", path)
    once = path.read_text()
    check("tables go into their blocks", done.returncode == 0 and "| expo |" in once and once.count("old") == 3, once)
    tool("tools/bench_tables.py", "--bench", SAMPLE / "bench.json", "--into", path)
    check("a second time changes nothing", path.read_text() == once)
    path.write_text("nothing\n")
    done = tool("tools/bench_tables.py", "--peers", SAMPLE / "peers.json", "--into", path)
    check("a document without the block is refused", done.returncode == 1 and "peers" in done.stderr and path.read_text() == "nothing\n")
    done = tool("tools/bench_tables.py", "--bench", at / "none.json")
    check("figures that are not there are named", done.returncode == 1 and "make bench" in done.stderr, done.stderr)
    blocks = set(re.findall(r"<!-- bench ([a-z-]+) -->", (ROOT / "doc/performance.md").read_text()))
    check("the document has every block", blocks == {"machine", "limits", "peers", "lowrank", "peer-machine"}, blocks)


def picture(at):
    """Every point lies under the roof of its ranks; the sample with a point above it would show."""
    found = json.loads((SAMPLE / "bench.json").read_text())["results"]
    over, points = roofline.roofs(found), roofline.points(found)
    check("roofs by ranks", over == {1: (10.0, 100.0), 2: (16.0, 180.0)}, over)
    reached = {(label, ranks): rate / min(intensity * over[ranks][0], over[ranks][1]) for label, ranks, intensity, rate in points}
    expected = {("expo", 1): 0.9, ("expo", 2): 0.9, ("prune keep=0.3", 1): 0.5 / 0.6, ("prune keep=0.3", 2): 0.5 / 0.6, ("llama, 3 layers", 1): 0.85}
    check("points stand under the roofs as their ratios say",
          reached.keys() == expected.keys() and all(abs(reached[key] - expected[key]) < 1e-9 for key in expected), reached)
    done = tool("tools/roofline.py", SAMPLE / "bench.json", at / "roof.svg")
    root = xml.parse(at / "roof.svg").getroot()
    check("the picture has each point", done.returncode == 0 and sum(one.tag.endswith("circle") for one in root) == len(expected), done.stderr)
    (at / "none.json").write_text('{"results": []}')
    done = tool("tools/roofline.py", at / "none.json", at / "none.svg")
    check("no picture without roofs", done.returncode == 1 and not (at / "none.svg").exists(), done.stderr)


def beside_peers():
    """How the peers are watched."""
    grandchild = "x = bytearray(64 << 20); import time; time.sleep(0.6)"
    command = ["bash", "-c", f"{shlex.join([sys.executable, '-c', grandchild])} && true"]
    _, (own, everything) = peers.measured(command, dict(os.environ))
    check("memory of a process below a process", 64 <= own <= 128 and everything >= own, (own, everything))
    try:
        peers.measured(["bash", "-c", "echo why; exit 3"], dict(os.environ))
        check("a peer that fails ends the comparison", False)
    except SystemExit as ended:
        check("a peer that fails ends the comparison", "ended with 3" in str(ended) and "why" in str(ended), ended)
    done = tool("tools/peers/run.py", "build/release", "nosuch")
    check("a part that is not there", done.returncode == 2 and "nosuch: give some of dare" in done.stderr, done.stderr)
    done = tool("tests/bench/run", os.environ.get("DELTAPATH_BUILD", "build/release"), "nosuch")
    check("a section that is not there", done.returncode == 2 and "no section nosuch: take some of roof edit" in done.stderr, done.stderr)


def main():
    """All of it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        at = pathlib.Path(folder)
        documents(at)
        tables(at)
        picture(at)
    beside_peers()
    print(f"1..{len(results)}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
