"""Common parts of the chaos tests: the small study, runs of it with a time limit and the exit code of each
rank, and what must hold of a study folder afterwards.
"""
import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "support"))
import compare  # noqa: E402

PYTHON = "/usr/bin/python3"
LAUNCHER = os.environ.get("DPT_MPIRUN", "mpirun -q").split() # see tools/mpi-env.sh
HANG = 124 # the code of a run that had to be ended
KINDS = ("hdf5", "safetensors") # of edited models

JOB = """\
models: {{pre: {m}/pre, post: {m}/post}}
data:
  - {{name: task, file: {m}/data.h5, loss: lm}}
  - {{name: pairs, file: {m}/pairs.h5, loss: dpo, reference: {m}/pre}}
edits:
  - {{name: dare, method: dare, p: 0.5}}
  - {{name: twin, method: lowrank, rank: 2}}
  - {{name: bias, method: bias, by: gradient, k: 0.5}}
riemann: {{rule: left, points: 2}}
svd_group: 1
output: {{directory: study, checkpoint: {format}, report: true}}
"""

# For every call in turn: what a study has at least, on a model of one layer.
SMALL = """\
models: {{pre: {m}/pre, post: {m}/post}}
data: [{{name: task, file: {m}/data.h5, loss: lm}}]
edits: [{{name: dare, method: dare, p: 0.5}}]
riemann: {{rule: left, points: 1}}
output: {{directory: study, checkpoint: {format}, report: false}}
"""
SMALL_MODEL = ("--layers", "1", "--samples", "2", "--vocabulary", "5")

# Each rank notes its exit code. mpirun sees 0 after an orderly end: else it would end the others before
# they are done.
NOTE = """\
#!/bin/sh
if [ -n "$CHAOS_PRELOAD" ]; then LD_PRELOAD=$CHAOS_PRELOAD "$@"; else "$@"; fi
code=$?
echo "$code" >"$CHAOS_CODES/${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
[ "$code" -lt 128 ] || exit "$code"
"""


class Run:
    """How a run ended: `codes` of the ranks that noted one, `code` of all (or of mpirun when they were
    ended), the error lines, the text."""

    def __init__(self, codes, launcher, text, seconds):
        self.codes, self.launcher, self.text, self.seconds = codes, launcher, text, seconds
        self.errors = [line for line in text.splitlines() if line.startswith("deltapath: error:")]

    @property
    def code(self):
        distinct = set(self.codes.values())
        if self.launcher == HANG:
            return HANG
        return distinct.pop() if self.launcher == 0 and len(distinct) == 1 else self.launcher

    def one_code(self, ranks):
        """All ranks noted the same code, or the launcher ended them with one."""
        return self.launcher != 0 or (len(self.codes) == ranks and len(set(self.codes.values())) == 1)

    def __str__(self):
        return f"code {self.code} (ranks {sorted(self.codes.items())}, mpirun {self.launcher}), " \
               f"{len(self.errors)} error lines: {' | '.join(self.errors)[:300]}"


def environment():
    text = subprocess.run(["bash", "-c", f". {ROOT}/tools/mpi-env.sh; env -0"], check=True,
                          capture_output=True).stdout
    env = dict(item.split("=", 1) for item in text.decode().split("\0") if "=" in item)
    env.update(OPENBLAS_NUM_THREADS="1", DELTAPATH_QUIET="1")
    if "avx2" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        env.setdefault("OPENBLAS_CORETYPE", "Haswell") # a program that chose kernels itself would start again, without a server
    return env


class Chaos:
    """A temporary folder with the program's inputs, and the means to run studies in folders of their own."""

    def __init__(self, arguments, small=False):
        self.arguments = arguments
        self.program = str((ROOT / arguments.build / "deltapath").resolve())
        self.random = random.Random(arguments.seed)
        self.limit = arguments.limit
        base = os.environ.get("DELTAPATH_TEST_TMP") or os.environ.get("TMPDIR") or "/tmp"
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="chaos.", dir=base))
        self.models = self.tmp / "m"
        self.env = environment()
        self.lock = threading.Lock()
        self.serial = 0
        self.whole = {} # undisturbed study folders by format
        self.small = small
        self.seconds = {}
        subprocess.run([PYTHON, HERE.parent / "support/make_models.py", "llama", self.models,
                        *(SMALL_MODEL if small else ())], check=True)
        (self.tmp / "note").write_text(NOTE)
        (self.tmp / "note").chmod(0o755)
        for kind in KINDS:
            (self.tmp / f"{kind}.yaml").write_text((SMALL if small else JOB).format(m=self.models, format=kind))
        self.inputs = tree(self.models)

    def close(self):
        shutil.rmtree(self.tmp, ignore_errors=True)

    def folder(self):
        with self.lock:
            self.serial += 1
            path = self.tmp / f"run{self.serial}"
        path.mkdir()
        return path

    def start(self, folder, ranks, arguments, env=None):
        """Begin a run in `folder`; returns what `finish` takes."""
        codes = pathlib.Path(tempfile.mkdtemp(prefix="codes.", dir=self.tmp))
        full = dict(self.env, CHAOS_CODES=str(codes), OMPI_MCA_orte_tmpdir_base=str(codes), **(env or {}))
        text = open(codes / "text", "w+")
        command = [*LAUNCHER, "-n", str(ranks), str(self.tmp / "note"), self.program, *arguments]
        process = subprocess.Popen(command, cwd=folder, env=full, stdin=subprocess.DEVNULL, stdout=text,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        return process, codes, text, time.monotonic()

    def finish(self, started):
        process, codes, text, begun = started
        try:
            launcher = process.wait(self.limit)
        except subprocess.TimeoutExpired:
            # mpirun can wait for ever for ranks that were killed while they started; then none is left.
            launcher = HANG if ranks_of(process.pid) else 128 + signal.SIGKILL
            victims = descendants(process.pid)
            if self.arguments.stacks:
                for pid in victims:
                    subprocess.run(["gdb", "-p", str(pid), "-batch", "-ex", "bt 14"], stderr=subprocess.DEVNULL)
            for pid in [process.pid, *victims]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        seconds = time.monotonic() - begun
        noted = {int(path.name): int(path.read_text() or -1) for path in codes.iterdir()
                 if path.name.isdigit()}
        text.seek(0)
        run = Run(noted, launcher if launcher >= 0 else 128 - launcher, text.read(), seconds)
        text.close()
        shutil.rmtree(codes, ignore_errors=True)
        return run

    def study(self, folder, kind, ranks=2, resume=False, env=None, sets=()):
        return self.finish(self.start(folder, ranks, self.command(kind, resume, sets), env))

    def command(self, kind, resume=False, sets=()):
        extra = [word for item in sets for word in ("--set", item)]
        return ["run", str(self.tmp / f"{kind}.yaml"), *(["--resume"] if resume else []), *extra]

    def undisturbed(self, kind, ranks=2):
        """The study folder of an undisturbed run, made once."""
        key = (kind, ranks)
        if key not in self.whole:
            folder = self.folder()
            run = self.study(folder, kind, ranks)
            if run.code != 0:
                sys.exit(f"Bail out! the undisturbed study failed: {run}\n{run.text}")
            self.whole[key], self.seconds[key] = folder / "study", run.seconds
        return self.whole[key]

    def wrong_final(self, study, kind, ranks=2):
        """What lies under a final name but is not what the undisturbed run made: '' when nothing."""
        whole = self.undisturbed(kind, ranks)
        for path in sorted((study / "models").rglob("*")) if (study / "models").exists() else []:
            name = path.relative_to(study)
            if path.is_file() and ".partial" not in str(name) and \
                    path.read_bytes() != (whole / name).read_bytes():
                return f"{name} is not the undisturbed model"
        return ""

    def partial(self, study):
        return ", ".join(str(path.relative_to(study)) for path in study.rglob("*.partial*"))

    def differs(self, study, kind, ranks=2):
        """Why a finished study is not the undisturbed one: '' when it is."""
        whole = self.undisturbed(kind, ranks)
        for name in ("results.json", "results.h5", "summary.csv", *(() if self.small else ("report.html",))):
            if not (study / name).exists():
                return f"{name} is missing"
        found = compare.results(whole / "results.json", study / "results.json")
        if found:
            return "results differ: " + "; ".join(found[:3])
        models, expected = tree(study / "models"), tree(whole / "models")
        if models != expected:
            return f"models differ: {sorted(set(models.items()) ^ set(expected.items()))[:2]}"
        if self.partial(study):
            return "partial files are left: " + self.partial(study)
        return ""

    def verified(self, study):
        """What `deltapath verify` says against a study: '' when nothing."""
        run = self.finish(self.start(study.parent, 1, ["verify", str(study)]))
        return "" if run.code == 0 else f"verify: {run}"

    def undisturbed_relative(self, kind, ranks):
        """An undisturbed study folder whose job names its inputs by relative paths."""
        key = ("relative", kind, ranks)
        if key not in self.whole:
            folder = self.folder()
            shutil.copytree(self.models, folder / "m")
            (folder / "job.yaml").write_text((self.tmp / f"{kind}.yaml").read_text().replace(
                f"{self.models}/", "m/"))
            run = self.finish(self.start(folder, ranks, ["run", "job.yaml"]))
            if run.code != 0:
                sys.exit(f"Bail out! the undisturbed study failed: {run}\n{run.text}")
            self.whole[key], self.seconds[key] = folder / "study", run.seconds
        return self.whole[key]

    @staticmethod
    def same_numbers(a, b):
        """Why two studies differ: '' when they do not."""
        if not (b / "results.json").exists():
            return "no results.json"
        found = compare.results(a / "results.json", b / "results.json")
        if found:
            return "results differ: " + "; ".join(found[:3])
        return "" if tree(a / "models") == tree(b / "models") else "models differ"

    def touched(self):
        """Whether an input changed: '' when none."""
        now = tree(self.models)
        return "" if now == self.inputs else f"inputs changed: {set(now.items()) ^ set(self.inputs.items())}"

    def resumed(self, study, kind, ranks=2, way=None):
        """Resume, and why that does not give the undisturbed study: '' when it does."""
        run = (way or self.study)(study.parent, kind, ranks, resume=True)
        if run.code != 0:
            return f"--resume: {run}"
        why = self.differs(study, kind, ranks)
        return f"after --resume: {why}" if why else ""


def setups(number):
    """Format and ranks of each of `number` cases: formats by turns, 3 ranks for a third of them."""
    return [(KINDS[(i + i // 4) % 2], (2, 2, 3)[i // 4 % 3]) for i in range(number)]


def tree(folder):
    """Every file under a folder with the hash of its bytes."""
    return {str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
            for path in sorted(pathlib.Path(folder).rglob("*")) if path.is_file()}


def children(pid):
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
                for child in (task / "children").read_text().split()]
    return []


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def ranks_of(pid):
    """The processes of the program below mpirun: children of the noting shells."""
    return [rank for shell in children(pid) for rank in children(shell)]


def in_parallel(work, items, jobs):
    """work(item) for all items by `jobs` threads, results in order of completion."""
    queue, results, lock = list(items), [], threading.Lock()

    def worker():
        while True:
            with lock:
                if not queue:
                    return
                item = queue.pop(0)
            found = work(item)
            with lock:
                results.append(found)
    threads = [threading.Thread(target=worker) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def tap(kinds):
    """kinds: {name: [why, ...]} with '' for what was sound. A line for each kind, the defects below it, and
    the code of the process."""
    bad = 0
    for number, (name, whys) in enumerate(kinds.items(), 1):
        defects = [why for why in whys if why]
        bad += bool(defects)
        print(f"{'not ok' if defects else 'ok'} {number} - {name}: {len(whys) - len(defects)} of {len(whys)}")
        for why in defects[:20]:
            print(f"#   {why}")
    print(f"1..{len(kinds)}")
    return 1 if bad or not kinds else 0


def dump(path, value):
    pathlib.Path(path).write_text(json.dumps(value, indent=1))
