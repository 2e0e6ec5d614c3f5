#!/usr/bin/env python3
# seconds: 900
"""Every byte that the program writes is under a checksum: single bits are flipped at random over all files of
a finished study, with edited models in either format, and `verify` of its folder has to find each, with code 3
and a line that names the file; so are files that are cut, longer, or missing.

    tests/cli/test_flips.py [FLIPS]        200 without an argument; DPT_FLIPS in the environment does too
"""
import os
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.join(TOP, os.environ.get("DELTAPATH_BUILD", "build/release"), "deltapath")
FLIPS = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("DPT_FLIPS", "200"))
ENV = dict(os.environ, DELTAPATH_QUIET="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1",
           OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_btl="self",
           OMPI_MCA_ess_singleton_isolated="1", DPT_ISOLATE_SECONDS="2")
WORKERS = 2

JOB = """
models: {{pre: {0}/m/pre, post: {0}/m/post}}
data:
  - {{name: task, file: {0}/m/data.h5, loss: lm}}
  - {{name: pairs, file: {0}/m/pairs.h5, loss: dpo, reference: {0}/m/pre}}
edits: [{{name: dare, method: dare, p: 0.5}}]
riemann: {{rule: midpoint, points: 1}}
output: {{directory: {0}/{1}, checkpoint: {1}, report: false}}
"""


def run(arguments, folder):
    """Exit code, standard output, error lines. A rank alone needs no mpirun; those that run side by side
    have folders of their own for MPI."""
    os.makedirs(folder, exist_ok=True)
    env = dict(ENV, OMPI_MCA_orte_tmpdir_base=folder)
    done = subprocess.run([PROGRAM, *arguments], env=env, capture_output=True, text=True, timeout=120,
                          errors="replace", check=False)
    return done.returncode, done.stdout, [x for x in done.stderr.splitlines() if "error:" in x]


def files_of(study):
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(study) for name in names)


def named(study, path, lines):
    """Whether the one error line names the file, or the model that it belongs to."""
    part = path
    names = []
    while part != study:
        names.append(part)
        part = os.path.dirname(part)
    names = [x for x in names if x not in (study + "/units", study + "/models", study + "/references")]
    return len(lines) == 1 and any(x in lines[0] for x in names)


def check(study, damage):
    """Damage a file of a copy that this worker owns, verify, repair. Why it is not found, or None."""
    what, path, change, repair = damage
    change()
    try:
        code, _, lines = run(["verify", study], study + ".mpi")
    finally:
        repair()
    if code != 3 or not named(study, path, lines):
        return f"{what} of {path}: code {code}, {lines}"
    return None


def flip(path, bit):
    def change():
        with open(path, "r+b") as file:
            file.seek(bit // 8)
            byte = file.read(1)[0] ^ 1 << bit % 8
            file.seek(bit // 8)
            file.write(bytes([byte]))
    return f"bit {bit}", path, change, change


def resized(path, by):
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        old = file.read()

    def repair():
        with open(path, "wb") as file:
            file.write(old)
    return f"{by:+d} bytes", path, lambda: os.truncate(path, size + by), repair


def missing(path):
    return "absence", path, lambda: os.rename(path, path + "~"), lambda: os.rename(path + "~", path)


def work(study, damages):
    return [why for why in (check(study, damage) for damage in damages) if why]


def main():
    root = tempfile.mkdtemp(prefix="flips.", dir=os.environ.get("DELTAPATH_TEST_TMP"))
    numbers = random.Random(20240229)
    results = []
    try:
        subprocess.run(["/usr/bin/python3", f"{TOP}/tests/support/make_models.py", "llama", f"{root}/m"],
                       check=True)
        jobs = []
        for style in ("hdf5", "safetensors"):
            job = f"{root}/{style}.yaml"
            with open(job, "w", encoding="ascii") as file:
                file.write(JOB.format(root, style))
            code, _, lines = run(["run", job], root)
            results.append((code == 0, f"a study with {style} models", lines))
            code, out, lines = run(["verify", f"{root}/{style}"], root)
            results.append((code == 0 and "0 findings" in out and "not checked" not in out,
                            f"verify accepts it as it is, and checks all of it: {style}", lines))
            jobs.append(f"{root}/{style}")
        # Each worker has a study of its own; files by turns, so that small ones are not left out.
        plans = []
        for k, study in enumerate(jobs):
            paths = files_of(study)
            flips = [flip(path, numbers.randrange(8 * os.path.getsize(path)))
                     for i in range(FLIPS * (k + 1) // 2 - FLIPS * k // 2)
                     for path in [paths[i % len(paths)]]]
            others = []
            for path in paths:
                if "/references/" not in path:
                    others.append(missing(path))
                others += [resized(path, -1), resized(path, 1)]
            plans.append((study, flips, numbers.sample(others, min(len(others), 12))))
        with ThreadPoolExecutor(WORKERS) as pool:
            lost = [x for part in pool.map(lambda p: work(p[0], p[1]), plans) for x in part]
            results.append((not lost, f"{FLIPS - len(lost)} of {FLIPS} found", lost[:5]))
            lost = [x for part in pool.map(lambda p: work(p[0], p[2]), plans) for x in part]
            results.append((not lost, "files that are cut, longer or missing are found", lost[:5]))
        for study in jobs:
            code, out, lines = run(["verify", study], root)
            results.append((code == 0, f"all is repaired: {os.path.basename(study)}", lines))
            open(f"{study}/notes.txt", "w", encoding="ascii").close()
            code, out, lines = run(["verify", study], root)
            results.append((code == 0 and f"{study}/notes.txt: not of this study" in out,
                            "a file of the user is named as not checked", [out[-300:]]))
    finally:
        shutil.rmtree(root)
    for i, (good, name, why) in enumerate(results, 1):
        print(f"{'ok' if good else 'not ok'} {i} - {name}")
        if not good:
            for line in why:
                print(f"#   {line[:300]}")
    print(f"1..{len(results)}")
    return 0 if all(good for good, _, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
