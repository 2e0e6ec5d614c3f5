#!/usr/bin/python3
"""The lines that benches wrote and the machine that they ran on, as one JSON document.

    tests/bench/document.py BUILD_DIR SECTION.jsonl ...

A line is what tests/bench/bench_print.h writes; the name of its file is its section."""
import datetime
import json
import os
import pathlib
import shlex
import subprocess
import sys


def said(*command):
    """The first line that a command prints, or nothing."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else ""


def processor():
    """Name, family, model, stepping: virtual machines hide the name."""
    about = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        about[key.strip()] = value.strip()
    numbers = [f"{key} {about[key]}" for key in ("cpu family", "model", "stepping") if key in about]
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in about.get("flags", "").split()]
    return f"{about.get('model name', os.uname().machine)} ({', '.join(numbers)}; {' '.join(flags)})"


def memory_gib():
    """Of the machine."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def machine(build):
    """What the figures depend on, besides the program."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory [GiB]": memory_gib(),
        "system": f"{os.uname().sysname} {os.uname().release}",
        "kernels": said(f"{build}/tests/bench/bench_core", "faster") or said(f"{build}/tests/bench/bench_core"),  # as the program takes
        "openblas": said("pkg-config", "--modversion", "openblas"),
        "compiler": said(os.environ.get("MPICC", "mpicc"), "--version"),
        "mpi": said(shlex.split(os.environ.get("DPT_MPIRUN", "mpirun"))[0], "--version"),
        "version": said(f"{build}/deltapath", "--version"),
        "commit": said("git", "describe", "--always", "--dirty"),
        "load": os.getloadavg()[0],
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def read(path):
    """The results of a section."""
    results = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            results.append({"section": path.stem, **json.loads(line)})
        except ValueError as error:
            sys.exit(f"{path}: line {number} is no JSON object: {error}")
    return results


def main():
    """Print the document."""
    build, *paths = sys.argv[1:]
    results = [result for path in paths for result in read(pathlib.Path(path))]
    here = machine(build)
    for result in results:
        if result["bench"] == "bench_roof":
            kind = {"sgemm": "sgemm", "triad": "memory bandwidth", "copy": "copy"}[result["case"]]
            here[f"{kind} [{result['unit']}], {result['ranks']} ranks"] = result["median"]
    json.dump({"machine": here, "results": results}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
