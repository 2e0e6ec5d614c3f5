"""Kills at random instants over all stages, by time or at a random call, then --resume, killed again at
times; the study that ends must be the undisturbed one."""
import collections
import contextlib
import os
import shutil
import signal
import time

import faults
from serve import Ways
from support import in_parallel, ranks_of, setups

STAGES = {"open": "names, inputs", "write": "models, units, results", "name": "renames", "mpi": "all stages",
          "hdf5": "checkpoints, units", "read": "inputs, cells", "process": "headers, report", "alloc": "all stages"}


def timed(chaos, folder, setup, resume, instant, all_ranks):
    """SIGKILL to one rank or to all, `instant` seconds after the start."""
    kind, ranks = setup
    started = chaos.start(folder, ranks, chaos.command(kind, resume))
    process = started[0]
    deadline = time.monotonic() + instant
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    victims = ranks_of(process.pid) if process.poll() is None else []
    for pid in victims if all_ranks else victims[-1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return chaos.finish(started)


def at_call(chaos, library, folder, setup, resume, case):
    name, k, rank = case
    return chaos.study(folder, *setup, resume, env={
        "CHAOS_PRELOAD": library, "CHAOS_FAULT": f"{name}:{k}:{rank}", "CHAOS_KILL": "1",
        "CHAOS_FIRED": str(folder / "fired")})


def one(chaos, library, case):
    setup, steps = case
    folder = chaos.folder()
    study = folder / "study"
    why, said, killed = "", [], 0
    for number, (how, what) in enumerate(steps):
        said.append(f"{how} {what}")
        resume = number > 0 and study.exists()
        run = timed(chaos, folder, setup, resume, *what) if how == "time" else \
            at_call(chaos, library, folder, setup, resume, what)
        if run.code == 124:
            why = "HANG after a kill"
            break
        killed += run.code != 0
        if not why and study.exists():
            why = chaos.wrong_final(study, *setup)
    # A file of the user's among the outputs stays.
    mine = study / "notes.txt"
    if study.exists():
        mine.write_text("mine\n")
    why = why or chaos.resumed(study, *setup) or chaos.verified(study) or chaos.touched()
    if not why and mine.exists() and mine.read_text() != "mine\n":
        why = "the user's file changed"
    shutil.rmtree(folder, ignore_errors=True)
    if why:
        why = f"{setup[0]}, {setup[1]} ranks: {'; '.join(said)}: {why}"
        print(f"# DEFECT {why}", flush=True)
    return steps[0][0], killed, why


def main(chaos, number):
    library = faults.build_library(chaos)
    ways = Ways(chaos, library)
    calls = {}
    cases = setups(number)
    for setup in sorted(set(cases)):
        chaos.undisturbed(*setup)
        calls[setup] = faults.count(chaos, ways.new, *setup)

    def step(setup):
        if chaos.random.random() < 0.5:
            return "time", (round(chaos.random.uniform(0.05, 1.0) * chaos.seconds[setup], 3),
                            chaos.random.random() < 0.5)
        name, rank = chaos.random.choice(sorted(STAGES)), chaos.random.randrange(setup[1])
        made = calls[setup].get((name, rank)) or calls[setup][name, 0]
        return "call", (name, chaos.random.choice(made)[0], rank)

    cases = [(setup, [step(setup) for _ in range(chaos.random.choice((1, 1, 2, 3)))]) for setup in cases]
    kinds, kills = collections.defaultdict(list), 0
    for _, killed, why in in_parallel(lambda case: one(chaos, library, case), cases, chaos.arguments.jobs):
        kinds["studies killed and resumed"].append(why)
        kills += killed
    print(f"# {kills} kills in {len(cases)} studies")
    return dict(kinds)
