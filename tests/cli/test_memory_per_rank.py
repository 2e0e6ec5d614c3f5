#!/usr/bin/python3
# seconds: 1200
# alone: 1
"""Memory of a rank falls as one over the ranks, the gradient at t = 0 kept: what a rank counted at 1, 2, 4 and 8 ranks, in
each mesh the same losses and terms; and at 16 ranks within a tenth of what one rank takes, where fewer do not fit."""
import json
import os
import pathlib
import re
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import make_models as models
import studies
from studies import check

VOCABULARY, LAYERS, SAMPLES = 64, 64, 16
CONFIG = models.llama_config(VOCABULARY, hidden=256, layers=LAYERS, heads=8, kv_heads=4, inner=704)
JOB = """models: {pre: AT/pre, post: AT/post}
data: [{name: d, file: AT/data.h5, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5, seed: 3}]
riemann: {rule: left, points: 2}
batch_tokens: 24
tensor_parallel: 1
output: {directory: %s, checkpoint: none, report: false}
"""
PEAK = r"peak memory per rank: (\d+) MiB"
MIB = 1024.0


def save(folder, seed):
    """A model in bf16, tensor by tensor; both of a pair are near each other."""
    shapes, header, at = models.llama_shapes(CONFIG), {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    rng, change = np.random.default_rng(1), np.random.default_rng(seed)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            values = rng.standard_normal(shape, np.float32) * np.float32(0.05) + np.float32(len(shape) == 1)
            file.write(models.encode(values + np.float32(0.005) * change.standard_normal(shape, np.float32), "BF16"))


def numbers(results):
    """Losses at both ends and the change, of each unit."""
    return np.array([[unit[key] for key in ("loss_post", "loss_edit", "estimate")] for unit in results["units"]])


def terms(folder, name):
    """All terms of all units."""
    import h5py
    with h5py.File(f"{folder}/{name}/results.h5") as file:
        found = []
        file.visititems(lambda path, item: found.append(item[()].ravel()) if path.endswith("/terms") else None)
        return np.concatenate(found)


def plan_of(path, ranks):
    done = studies.deltapath("plan", path, "--ranks", str(ranks), "--json")
    return json.loads(done.stdout or "{}").get("gib_per_rank", {})


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as name:
        folder = pathlib.Path(name)
        save(folder / "pre", 2)
        save(folder / "post", 3)
        models.write_data(folder / "data.h5", [np.arange(s, s + 12) % VOCABULARY for s in range(SAMPLES)])
        job = JOB.replace("AT", str(folder))
        peaks, found = {}, {}
        for ranks in (1, 2, 4, 8):
            results, done = studies.results_of(folder, f"r{ranks}", job, ranks)
            check(f"it runs at {ranks} ranks", results is not None, done.stderr[-600:])
            if results is None:
                return studies.finish()
            peaks[ranks] = int(re.search(PEAK, done.stderr).group(1))
            found[ranks] = (numbers(results), terms(folder, f"r{ranks}"))
            check(f"with the gradient kept at {ranks}", "at t = 0 by the gradient that edits share" in done.stderr and
                  re.search(r"not taken again: 1 at t = 0", done.stderr), done.stderr[-600:])
        plan = {ranks: plan_of(folder / f"r{ranks}.yaml", ranks) for ranks in peaks}
        fixed = MIB * (plan[8]["peak"] - sum(plan[8][key] for key in ("weights", "gradients", "gradient_in_cells", "edited_model")))
        print(f"# peaks {peaks}, of which do not depend on the ranks {fixed:.1f} MiB")
        for ranks in (2, 4, 8):
            share = (peaks[1] - fixed) / ranks
            check(f"memory at {ranks} ranks is a share", abs(peaks[ranks] - fixed - share) <= 0.15 * share + 1.0,
                  f"{peaks[ranks]} MiB, fixed {fixed:.1f}, share {share:.1f}")
            check(f"as the plan for {ranks} ranks says", abs(peaks[ranks] - MIB * plan[ranks]["peak"]) <=
                  0.1 * peaks[ranks], f"{peaks[ranks]} MiB, planned {MIB * plan[ranks]['peak']:.1f}")
            off = np.abs(found[ranks][0] - found[1][0]) / np.abs(found[1][0])
            check(f"losses and change at {ranks} ranks", off.max() < 1e-5, off)
            off = np.abs(found[ranks][1] - found[1][1]).max() / np.abs(found[1][1]).max()
            check(f"terms at {ranks} ranks", off < 1e-5, off)
        budget = peaks[1] // 10
        results, done = studies.results_of(folder, "r16", job, 16, options=("--memory", f"{budget}M"))
        check(f"it runs at 16 ranks of {budget} MiB", results is not None, done.stderr[-600:])
        if results is not None:
            check("with the same losses and change", (np.abs(numbers(results) - found[1][0]) <= 1e-5 * np.abs(found[1][0])).all())
            check("with the gradient kept at 16", re.search(r"not taken again: 1 at t = 0", done.stderr), done.stderr[-600:])
        done = studies.deltapath("plan", str(folder / "r8.yaml"), "--ranks", "8", "--memory", f"{budget}M")
        check("where eight would do without it", re.search(r"kept for all edits +no: it lacks \d+ MiB", done.stdout), done.stdout)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())
