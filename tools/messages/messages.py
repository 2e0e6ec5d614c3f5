#!/usr/bin/python3
"""Messages of a run by phase: tools/messages/messages.py JOB.yaml [-n 2,8,32]
[--set key=value ...]. Counts what ranks hand to MPI, and products (operations in place of bytes), by libmessages.c,
which is compiled and preloaded."""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = os.environ.get("DELTAPATH", str(HERE.parent.parent / "build/release/deltapath"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
                            "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def plan(words, ranks):
    done = subprocess.run([PROGRAM, "plan", *words, "--ranks", str(ranks), "--json"], capture_output=True, text=True,
                          check=False, env=ENVIRONMENT)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def count(library, words, ranks, folder):
    """Lines of the counter, and the log."""
    path = folder / f"messages{ranks}.jsonl"
    done = subprocess.run(["mpirun", "-q", "-n", str(ranks), "-x", f"LD_PRELOAD={library}", "-x", f"DPT_MESSAGES={path}",
                           PROGRAM, "run", *words, "--set", f"output.directory={folder}/out{ranks}", "--set",
                           "output.report=false"], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode != 0:
        sys.exit(done.stderr[-1000:])
    return [json.loads(line) for line in path.read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("-n", "--ranks", default="2,8,32")
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    words = [given.job] + [w for s in given.set for w in ("--set", s)]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        library = folder / "libmessages.so"
        subprocess.run(["mpicc", "-shared", "-fPIC", "-O1", str(HERE / "libmessages.c"), "-o", str(library)], check=True)
        print(f"{'ranks':>5} {'mesh':>8} {'phase':10} {'call':15} {'calls':>9} {'MB':>10} {'all calls':>10} {'all MB':>10}"
              "   of a rank at most, and of all")
        for ranks in map(int, given.ranks.split(",")):
            said = plan(words, ranks)
            mesh = f"{ranks // said['tensor_parallel']} x {said['tensor_parallel']}"
            lines = count(library, words, ranks, folder)
            for line in lines:
                print(f"{ranks:5} {mesh:>8} {line['phase']:10} {line['call']:15} {line['calls']:9} "
                      f"{line['bytes'] / 1e6:10.3f} {line['all_calls']:10} {line['all_bytes'] / 1e6:10.3f}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
