#!/usr/bin/python3
# seconds: 300
"""Bytes that a plan says a study reads are those that its run reads, within a tenth: of edits that are made again, that are
sought before they are made, and of models that are quantised."""
import os
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import studies
import test_quantised
from studies import check

JOB = """models: {pre: share/demo/llama-pre, post: %s}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 4}]
edits: [%s]
riemann: {rule: left, points: 2}
output: {directory: %s, checkpoint: none, report: false}
"""
DARE, KEEP = "{name: dare, method: dare, p: 0.5}", "{name: keep, method: prune, keep: 0.3}"
EXPO = "{name: expo, method: expo, alpha: [%s]}"
PAIRS = "data=[{name: pairs, file: share/demo/preference.h5, loss: dpo, samples: 4, reference: share/demo/llama-pre, choose: 0.5}]"
FIVE = "riemann={rule: left, points: 5}"
FOUND = "{name: found, method: allocate, edit: %s}"
DRAWS = "law={repeats: 2}"
CASES = [  # name, ranks, edits, keys
    ("a plane, which reads W_post at each point", 1, f"{DARE}, {KEEP}", ["plane={a: dare, b: keep, points: 5}"]),
    ("a plane at three ranks", 3, f"{DARE}, {KEEP}", ["plane={a: dare, b: keep, points: 3}"]),
    ("a line that bf16 rounds apart", 1, EXPO % "0.1, 0.2, 0.3, 0.4", [FIVE]),
    ("a line whose lead comes last", 1, EXPO % "0.1, 0.2, 0.3, 0.4", [FIVE, "output.dtype=f32"]),
    ("a line whose lead comes first", 1, EXPO % "0.4, 0.2, 0.3, 0.1", [FIVE, "output.dtype=f32"]),
    ("correlations along the path", 1, DARE, [FIVE, "riemann.correlation=path"]),
    ("eigenvalues", 1, DARE, ["hessian={lanczos: 1, steps: 2}"]),
    ("a significant calibration", 1, KEEP.replace("}", ", calibrate: significant}"), []),
    ("of an edit that reads once", 1, "{name: drop, method: drop, p: 0.3, calibrate: significant}", []),
    ("low rank that is calibrated", 1, "{name: rank, method: lowrank, rank: [2, 8, 4], calibrate: term}", []),
    ("ranks that are found", 1, FOUND % "lowrank, bytes: 0.3", [DRAWS]),
    ("shares that are found", 1, FOUND % "prune, bytes: 0.3", [DRAWS]),
    ("bits that are found", 1, FOUND % "multibit, mean: 1", [DRAWS]),
    ("bits that a size allows", 1, FOUND % "multibit, bytes: 0.3", [DRAWS]),
    ("shares that are drawn", 1, FOUND % "dare, mean: 0.8", [DRAWS]),
    ("a reference for a part that only chooses", 1, DARE, [PAIRS]),
]
LINE = re.compile(r"read ([\d.]+) / ([\d.]+) GB .*?written ([\d.]+) / ([\d.]+) GB")


def compare(folder, name, ranks, edits, keys, post="share/demo/llama-post", options=()):
    """Planned and taken of one study."""
    path = f"{folder}/{len(studies.results)}"
    done = studies.study(f"{path}.yaml", JOB % (post, edits, path), ranks, *keys, options=options)
    line = LINE.search(done.stderr)
    read = [float(n) for n in line.groups()] if line else [0.0] * 4
    check(f"{name}: bytes read", line and abs(read[0] - read[1]) <= 0.12 * read[1], (read, done.stderr[-500:]))
    return read[2:]


def quantised(folder):
    """A post-trained model in FP8 takes half the bytes, read and written."""
    model = pathlib.Path(folder) / "fp8"
    test_quantised.quantise_fp8(pathlib.Path("share/demo/llama-post"), model)
    for file in (*model.glob("model-*"), model / "model.safetensors.index.json"):  # the plain weights
        file.unlink()
    edits = f"{DARE}, {{name: drop, method: drop, p: 0.3}}"
    compare(folder, "FP8", 1, edits, [], f"{folder}/fp8")
    written = compare(folder, "FP8 that is written", 2, edits, [
        "output.quantise=true", "output.checkpoint=safetensors", "riemann=off"], f"{folder}/fp8")
    check("FP8 that is written: bytes written", abs(written[0] - written[1]) <= 0.1 * written[1] > 0, written)


def main():
    # Gradients are kept whatever a pass takes, else the bytes would depend on the load of the machine.
    os.environ["DELTAPATH_SAVE_SECONDS"] = "60"
    with tempfile.TemporaryDirectory() as folder:
        for name, ranks, edits, keys in CASES:
            compare(folder, name, ranks, edits, keys)
        compare(folder, "inputs that are checked before", 1, DARE, [], options=("--verify-inputs",))
        compare(folder, "and a reference", 1, DARE, [PAIRS], options=("--verify-inputs",))
        quantised(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())
