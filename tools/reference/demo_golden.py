#!/usr/bin/env python3
"""Golden losses of the demo pair and of edited models, by transformers in fp32.

Usage: demo_golden.py [BUILD/deltapath]   writes tests/golden/demo_losses.json

deltapath writes the edited models of tests/golden/demo_edits.yaml as safetensors; transformers loads
them and evaluates them as check_demo_in_transformers.py does. tests/cli/test_accuracy.sh compares the
losses that deltapath itself finds. Needs torch, transformers, h5py and numpy.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools/reference"), str(ROOT / "tools")]
import outputs  # noqa: E402
import check_demo_in_transformers as reference  # noqa: E402

DEMO = ROOT / "share/demo"
GOLDEN = ROOT / "tests/golden/demo_losses.json"
EDITS = ("dare", "bitdelta", "prune", "twin", "both")


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build/release/deltapath")
    outputs.check_new([GOLDEN])
    scratch = pathlib.Path(tempfile.mkdtemp())
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    subprocess.run([program, "run", "tests/golden/demo_edits.yaml", "--set", "riemann=off",
                    "--set", "output.checkpoint=safetensors", "--set",
                    f"output.directory={scratch / 'study'}"], cwd=ROOT, env=environment, check=True)
    models = {"pre": DEMO / "llama-pre", "post": DEMO / "llama-post"}
    models.update({edit: scratch / "study/models" / edit for edit in EDITS})
    golden = {}
    for name, folder in models.items():
        model = reference.load(str(folder))
        golden[name] = {}
        for data in ("task", "text"):
            losses, hits = reference.evaluate((model, None), 0.1, str(DEMO / f"{data}.h5"))
            golden[name][data] = {"loss": losses.mean(), "accuracy": hits.mean()}
            print(name, data, golden[name][data])
    outputs.write(GOLDEN, (json.dumps(golden, indent=1) + "\n").encode())
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
