"""Faults below the program: calls.inc and libfault.so, the counting run, the runs with one failing call."""
import collections
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import time

from serve import Ways
from states import States
from support import HERE, in_parallel

CLASSES = ("alloc", "alloc-yaml", "alloc-hdf5", "open", "read", "write", "name", "stat", "close", "process", "mpi", "hdf5")
# Not failed: without them there is no run; libraries end the process when their versions differ; they only
# serve messages.
KEPT = {"MPI_Init_thread", "MPI_Finalize", "MPI_Abort", "MPI_Error_string", "H5open", "H5check_version",
        "H5Eauto_is_v2", "H5Eget_auto1", "H5Eget_auto2", "H5Eset_auto1", "H5Eset_auto2", "H5free_memory"}
ZERO = {"H5Tget_size", "H5Tget_ebias", "H5Tget_precision", "H5Dget_storage_size", "H5Aget_storage_size",
        "H5Iget_type"}
ENDED = "ended by the library"
CLOSING = re.compile("close$")
DIGITS = re.compile("[0-9]+")


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


def count(chaos, way, kind, ranks):
    """Calls of a sound run: {(class, rank): [(k, function, stack), ...]}."""
    folder = chaos.folder()
    run = way(folder, kind, ranks, fault="log")
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


def in_places(chaos, calls, places):
    """The calls that are made in one of these functions, or are of one of them."""
    addresses = sorted({address for made in calls.values() for _, _, stack in made for address in stack})
    named = subprocess.run(["addr2line", "-f", "-s", "-e", chaos.program, *addresses], capture_output=True,
                           text=True).stdout.splitlines()[::2]
    wanted = {address for address, name in zip(addresses, named) if name in places}
    return {key: [call for call in made if call[1] in places or wanted.intersection(call[2])]
            for key, made in calls.items()}


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
        # HDF5 1.10 and libfyaml 0.7 do not check all of their own allocations: they crash, and with them
        # the run ends. What HDF5 writes to disk it writes in a child process; --resume must go on.
        return ENDED if name in ("alloc-yaml", "alloc-hdf5") else f"CRASH: {run}"
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


def one(chaos, way, kind, ranks, case):
    name, k, rank = case
    folder = chaos.folder()
    fired = folder / "fired"
    run = way(folder, kind, ranks, fault=f"{name}:{k}:{rank}")
    study = folder / "study"
    why = judge(chaos, run, study, name, kind, ranks)
    how = "survived" if run.code == 0 else "ended" if why == ENDED else "reported"
    if how == "reported" and run.launcher != 0:
        how = "aborted"
    why = "" if why == ENDED else why
    chaos.messages.update((name, DIGITS.sub("#", line.replace(str(folder), ""))) for line in run.errors)
    if not fired.exists():
        how = "not reached"
        why = why or ("" if run.code == 0 else f"WITHOUT THE FAULT: {run}")
    elif not why and run.code != 0:
        state = chaos.states and chaos.states.of(study)
        if state is None or state not in chaos.states.known:
            why = chaos.resumed(study, kind, ranks, way)
        if state is not None and not why:
            chaos.states.known.add(state)
    if not why:
        why = chaos.touched()
    note = fired.read_text() if fired.exists() else ""
    shutil.rmtree(folder, ignore_errors=True)
    if why:
        why = f"{name}:{k}:{rank} of {ranks}, {kind}: {why} # {symbols(chaos, note)}"
    return name, how, why


def one_served(chaos, ways, kind, ranks, case):
    """In the processes of a server; what looks like a defect once more in new ones, which decide."""
    name, how, why = one(chaos, ways.served, kind, ranks, case)
    if how == "not reached": # what failed before may have left a library unable to go on
        ways.renew()
        chaos.again["renewed"] += 1
        name, how, why = one(chaos, ways.served, kind, ranks, case)
    if why:
        print(f"# served: {why}", flush=True)
        name, how, why = one(chaos, ways.new, kind, ranks, case)
        chaos.again[bool(why)] += 1
    return name, how, why


def run_setup(chaos, ways, kind, ranks, number):
    """Results of `number` failing calls, or of every one."""
    served = chaos.arguments.served
    way = ways.served if served else ways.new
    whole = chaos.undisturbed(kind, ranks)
    if served: # the first run of a process differs from the second in what libraries keep
        folders = [chaos.folder() for _ in range(4)]
        if any(ways.served(folder, kind, ranks).code != 0 for folder in folders):
            raise SystemExit("Bail out! a server's first runs failed")
        chaos.states = States([folder / "study" for folder in folders])
    calls = count(chaos, way, kind, ranks)
    only = set(filter(None, os.environ.get("CHAOS_ONLY", "").split(",")))
    if only:
        calls = {key: made for key, made in calls.items() if key[0] in only}
    if chaos.arguments.place:
        calls = in_places(chaos, calls, set(chaos.arguments.place))
    for (name, rank), made in sorted(calls.items()):
        print(f"# {kind} at {ranks}, rank {rank}: {name}: {len(made)} calls from "
              f"{len({stack for _, _, stack in made})} places", flush=True)
    cases = sample(chaos, calls, ranks, number)
    begun = time.monotonic()
    done = itertools.count(1)

    def work(case):
        if chaos.arguments.minutes and time.monotonic() - begun > 60 * chaos.arguments.minutes:
            return None
        found = one_served(chaos, ways, kind, ranks, case) if served else one(chaos, way, kind, ranks, case)
        if found[2]:
            print(f"# DEFECT {found[2]}", flush=True)
        n = next(done)
        if n % 500 == 0:
            print(f"# {n} of {len(cases)} after {time.monotonic() - begun:.0f} s", flush=True)
        return found
    found = [result for result in in_parallel(work, cases, chaos.arguments.jobs) if result]
    states = f"; {len(chaos.states.known)} states of the folder resumed" if chaos.states else ""
    print(f"# {kind} at {ranks} ranks: {len(found)} of {len(cases)} failing calls in {time.monotonic() - begun:.0f} s{states}; a "
          f"study has {sum(path.is_file() for path in whole.rglob('*'))} files", flush=True)
    return found


def main(chaos, number):
    """number: runs, or None for every call."""
    ways = Ways(chaos, build_library(chaos))
    chaos.messages, chaos.states, chaos.again = collections.Counter(), None, collections.Counter()
    kinds = collections.defaultdict(list)
    table = collections.defaultdict(collections.Counter)
    setups = [("hdf5", 2), ("safetensors", 2)] + ([("hdf5", 3)] if number is None or number >= 100 else [])
    if chaos.arguments.setup:
        setups = [(text.split(":")[0], int(text.split(":")[1])) for text in chaos.arguments.setup]
    share = None if number is None else -(-number // len(setups))
    try:
        for kind, ranks in setups:
            for name, how, why in run_setup(chaos, ways, kind, ranks, share):
                kinds[f"failing calls: {name}"].append(why)
                table[name][how] += 1
                table[name]["runs"] += 1
                table[name]["defects"] += bool(why)
    finally:
        ways.close()
    print("# class        runs  survived  reported  all aborted  ended by the library  not reached  defects")
    for name in CLASSES:
        if name in table:
            row = table[name]
            print(f"# {name:<11} {row['runs']:>5} {row['survived']:>9} {row['reported']:>9} {row['aborted']:>12} "
                  f"{row['ended']:>21} {row['not reached']:>12} {row['defects']:>8}")
    if chaos.arguments.served:
        print(f"# {chaos.again[False]} runs failed in the processes of a server alone and were sound in new ones; "
              f"{chaos.again['renewed']} times a server was renewed")
    if chaos.arguments.messages:
        lines = sorted(f"{n:>6} {name}: {line}" for (name, line), n in chaos.messages.items())
        pathlib.Path(chaos.arguments.messages).write_text("\n".join(lines) + "\n")
    return dict(kinds)
