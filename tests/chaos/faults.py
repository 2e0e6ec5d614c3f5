"""Faults below the program: calls.inc and libfault.so, the counting run, the runs with one failing call."""
import collections
import os
import re
import shutil
import subprocess

from support import HERE, in_parallel

CLASSES = ("alloc", "alloc-hdf5", "open", "read", "write", "name", "stat", "close", "process", "mpi", "hdf5")
# Not failed: without them there is no run; libraries end the process when their versions differ; they only
# serve messages.
KEPT = {"MPI_Init_thread", "MPI_Finalize", "MPI_Abort", "MPI_Error_string", "H5open", "H5check_version",
        "H5Eauto_is_v2", "H5Eget_auto1", "H5Eget_auto2", "H5Eset_auto1", "H5Eset_auto2", "H5free_memory"}
ZERO = {"H5Tget_size", "H5Tget_ebias", "H5Tget_precision", "H5Dget_storage_size", "H5Aget_storage_size",
        "H5Iget_type"}
ENDED = "ended by the library"
CLOSING = re.compile("close$")


def build_library(chaos):
    names = subprocess.run(["nm", "-D", "--undefined-only", chaos.program], check=True, capture_output=True,
                           text=True).stdout
    names = sorted({line.split()[-1].split("@")[0] for line in names.splitlines() if line.strip()} - KEPT)
    lines = [f"MPI_CALL({name});" for name in names if name.startswith("MPI_")]
    lines += [f"HDF5_CALL({name}, {'AFTER' if CLOSING.search(name) else 'BEFORE'}, "
              f"{0 if name in ZERO else -1});" for name in names if name.startswith("H5")]
    (chaos.tmp / "calls.inc").write_text("\n".join(lines) + "\n")
    library = chaos.tmp / "libfault.so"
    subprocess.run(["mpicc", "-D_GNU_SOURCE", "-std=gnu17", "-O1", "-g", "-Wall", "-fPIC", "-shared", "-fno-builtin",
                    f"-I{chaos.tmp}", HERE / "libfault.c", "-o", library, "-ldl"], check=True)
    return str(library)


def count(chaos, library, kind, ranks):
    """Calls of a sound run: {(class, rank): [(k, function, stack), ...]}."""
    folder = chaos.folder()
    run = chaos.study(folder, kind, ranks, env={"CHAOS_PRELOAD": library,
                                                "CHAOS_LOG": str(folder / "calls%r")})
    if run.code != 0:
        raise SystemExit(f"Bail out! the counting run failed: {run}\n{run.text}")
    found = collections.defaultdict(list)
    for rank in range(ranks):
        for line in (folder / f"calls{rank}").read_text().splitlines():
            name, k, function, *stack = line.split()
            found[name, rank].append((int(k), function, tuple(stack)))
    shutil.rmtree(folder)
    return found


def sample(chaos, calls, ranks, number):
    """`number` of (class, k, rank), of the first and last rank: classes in turn, of each the first and the
    last call of every distinct stack in random order, then any others. None: all."""
    queues = []
    for rank in sorted({0, ranks - 1}):
        for name in CLASSES:
            made = calls.get((name, rank), [])
            first, last = {}, {}
            for k, _, stack in made:
                first.setdefault(stack, k)
                last[stack] = k
            ends = sorted(set(first.values()) | set(last.values()))
            others = sorted({k for k, _, _ in made} - set(ends))
            chaos.random.shuffle(ends)
            chaos.random.shuffle(others)
            queues.append([(name, k, rank) for k in ends + others])
    chosen = []
    while any(queues) and (number is None or len(chosen) < number):
        for queue in queues:
            if queue and (number is None or len(chosen) < number):
                chosen.append(queue.pop(0))
    return chosen


def symbols(chaos, note):
    """Function names of a fired stack, innermost first."""
    stack = note.split()[3:]
    if not stack:
        return note
    named = subprocess.run(["addr2line", "-f", "-s", "-e", chaos.program, *stack], capture_output=True,
                           text=True).stdout.splitlines()
    return " ".join(note.split()[:3]) + " in " + " < ".join(
        f"{named[i]}:{named[i + 1].split(':')[-1].split(' ')[0]}" for i in range(0, min(len(named), 18) - 1, 2))


def judge(chaos, run, study, name, kind, ranks):
    """Why a run with a failing call is not as it should be: '' when it is."""
    if run.code == 124:
        return "HANG"
    if run.code in (0, 75):
        return chaos.differs(study, kind, ranks) if run.code == 0 else ""
    if run.code not in (2, 3, 4, 5):
        # HDF5 1.10 checks few of its own allocations: it crashes, and with it the run ends. What it
        # writes to disk it writes in a child process; --resume must go on.
        return ENDED if name == "alloc-hdf5" else f"CRASH: {run}"
    if not run.one_code(ranks):
        return f"CODES: {run}"
    if len(run.errors) != 1:
        return f"LINES: {run} {run.text[-300:] if not run.errors else ''}"
    if name != "mpi" and re.search(r"error: *(\[rank \d+\] *)?$", run.errors[0]):
        return f"EMPTY: {run}"
    if study.exists():
        why = chaos.wrong_final(study, kind, ranks)
        if why:
            return f"FINAL: {why}"
        # An aborted run and one that may not remove files leave them for --resume.
        if name not in ("mpi", "name") and chaos.partial(study):
            return f"PARTIAL: {chaos.partial(study)}"
    return ""


def one(chaos, library, kind, ranks, case):
    name, k, rank = case
    folder = chaos.folder()
    fired = folder / "fired"
    env = {"CHAOS_PRELOAD": library, "CHAOS_FAULT": f"{name}:{k}:{rank}", "CHAOS_FIRED": str(fired)}
    run = chaos.study(folder, kind, ranks, env=env)
    study = folder / "study"
    why = judge(chaos, run, study, name, kind, ranks)
    how = "survived" if run.code == 0 else "ended" if why == ENDED else "reported"
    why = "" if why == ENDED else why
    if not fired.exists():
        how = "not reached"
    elif not why and run.code != 0:
        why = chaos.resumed(study, kind, ranks)
    if not why:
        why = chaos.touched()
    note = fired.read_text() if fired.exists() else ""
    shutil.rmtree(folder, ignore_errors=True)
    if why:
        why = f"{name}:{k}:{rank} of {ranks}, {kind}: {why} # {symbols(chaos, note)}"
        print(f"# DEFECT {why}", flush=True)
    return name, how, why


def main(chaos, number):
    """number: runs, or None for every call."""
    library = build_library(chaos)
    kinds = collections.defaultdict(list)
    table = collections.defaultdict(collections.Counter)
    setups = [("hdf5", 2), ("safetensors", 2)] + ([("hdf5", 3)] if number is None or number > 1000 else [])
    only = set(filter(None, os.environ.get("CHAOS_ONLY", "").split(",")))
    for kind, ranks in setups:
        chaos.undisturbed(kind, ranks)
        calls = count(chaos, library, kind, ranks)
        if only:
            calls = {key: made for key, made in calls.items() if key[0] in only}
        for (name, rank), made in sorted(calls.items()):
            print(f"# {kind} at {ranks}, rank {rank}: {name}: {len(made)} calls from "
                  f"{len({stack for _, _, stack in made})} places", flush=True)
        share = None if number is None else -(-number // len(setups))
        cases = sample(chaos, calls, ranks, share)
        for name, how, why in in_parallel(lambda case: one(chaos, library, kind, ranks, case), cases,
                                          chaos.arguments.jobs):
            kinds[f"failing calls: {name}"].append(why)
            table[name][how] += 1
            table[name]["runs"] += 1
            table[name]["defects"] += bool(why)
    print("# class        runs  survived  reported  ended by the library  not reached  defects")
    for name in CLASSES:
        if name in table:
            row = table[name]
            print(f"# {name:<11} {row['runs']:>5} {row['survived']:>9} {row['reported']:>9} {row['ended']:>21} "
                  f"{row['not reached']:>12} {row['defects']:>8}")
    return dict(kinds)
