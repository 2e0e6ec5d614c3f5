#!/usr/bin/env python3
"""Gradient studies by deltapath and by PyTorch, next to each other, as tables in Markdown.

    make compare-torch PYTHON=/path/to/python            # all parts, about ten minutes
    tools/compare/run.py BUILD_DIR [--python PYTHON] [--pair FOLDER] [--minutes 10] [PART ...]

Parts: passes (forward, backward and terms of one sequence in fp32), bf16 (the same with `precision: bf16`), study (BitDelta
and EXPO, five left points each, on four sequences of 128 tokens: time and memory), ranks (the same study on one rank and on
two), kernels (attention and a whole pass against sgemm; without PyTorch).

PYTHON has torch and safetensors. Both sides get two cores: PyTorch two threads; deltapath one rank of two threads in
passes, two ranks of one thread in a study. They take turns, and medians stand next to each other, with the least and the most
in brackets. Where losses, changes and estimates of the two do not agree to 1e-4 of themselves (or 2e-6 nats, which is what
fp32 resolves) no ratio is printed, and the exit code is 1.

The pair has the shape of SmolLM2-135M and random values (`deltapath synthetic`), and is put into out/compare; FOLDER is
another one, with pre/ and post/ in safetensors, of LLaMA with a tied head."""
import argparse
import json
import os
import pathlib
import platform
import re
import shlex
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "out/compare"
PEER = pathlib.Path(__file__).resolve().parent / "peer.py"
LENGTHS = "128,512,2048"
SEQUENCES, TOKENS, ALPHA = 4, 128, -0.3   # of the study; ALPHA as in peer.py
LIMIT = 1e-4
RESOLUTION = 2e-6                         # nats: of the difference of two losses of about 10 in fp32
BF16_LIMIT = 0.05
SHARES = {"passes": 0.24, "bf16": 0.18, "study": 0.3, "ranks": 0.18, "kernels": 0.1}  # of the time
LEAST, MOST = 3, 15                       # repeats
WRITE_DATA = """import h5py, json, numpy, sys
tokens, length = json.load(sys.stdin), int(sys.argv[2])
with h5py.File(sys.argv[1], "w") as file:
    file["tokens"] = numpy.array(tokens, numpy.int32)
    file["loss_mask"] = numpy.ones(len(tokens), numpy.uint8)
    file["offsets"] = numpy.arange(0, len(tokens) + 1, length, dtype=numpy.int64)
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


def environment(threads, **more):
    return dict(os.environ, OMP_NUM_THREADS=str(threads), **more)


def spread(values):
    return f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def ratios(ours, theirs):
    """Of each turn, and their median as text."""
    each = [a / b for a, b in zip(ours, theirs)]
    return f"{statistics.median(each):.2f} [{min(each):.2f}, {max(each):.2f}]"


def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


class Server:
    """A process that answers each line by one: seconds, loss, slope."""

    def __init__(self, command, env):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            return [float(word) for word in self.process.stdout.readline().split()[:3]]
        except BrokenPipeError:
            return []

    def __call__(self, line):
        answer = self.ask(line)
        if len(answer) != 3:
            sys.exit(f"{' '.join(map(str, self.command))}: no answer to {line!r}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def close(a, b, limit):
    return abs(a - b) <= max(limit * max(abs(a), abs(b)), RESOLUTION)


def off(a, b):
    return f"{abs(a - b) / max(abs(b), 1e-30):.1e}"


class Compare:
    def __init__(self, options):
        self.options = options
        self.program = options.build / "deltapath"
        self.mpirun = shlex.split(os.environ.get("DPT_MPIRUN", "mpirun"))
        self.pair = options.pair or OUT / "pair"
        self.agreed = True
        faster = subprocess.run([options.build / "tests/bench/bench_core", "faster"], check=True, text=True,
                                stdout=subprocess.PIPE).stdout.strip()
        if "OPENBLAS_CORETYPE" not in os.environ and faster:
            os.environ["OPENBLAS_CORETYPE"] = faster  # as the program does for itself (src/cli/kernels.c); the benches do not

    def seconds(self, part):
        parts = self.options.parts
        return 60.0 * self.options.minutes * SHARES[part] / sum(SHARES[p] for p in parts)

    def turns(self, seconds, whos):
        """Let each in turn do its work until the time is over. @return answers of each, without those of the first round."""
        for who in whos:
            who()
        answers, end = [[] for _ in whos], time.monotonic() + seconds
        while len(answers[0]) < LEAST or (len(answers[0]) < MOST and time.monotonic() < end):
            for answer, who in zip(answers, whos):
                answer.append(who())
        return answers

    def make_pair(self):
        if (self.pair / "post/model.safetensors").exists() or self.options.pair:
            return
        say(f"making {self.pair}: 540 MB")
        OUT.mkdir(parents=True, exist_ok=True)
        made = OUT / "made"
        if not made.exists():
            self.run_ours(1, ["synthetic", ROOT / "share/shapes/smollm2-135m.json", made, "--delta", str(self.options.delta)])
        self.pair.mkdir(exist_ok=True)
        for model in ("pre", "post"):
            self.run_ours(1, ["convert", made / model, self.pair / model])

    def run_ours(self, ranks, words):
        """@return seconds, most memory [MiB], what it printed."""
        return measured([*self.mpirun, "-n", str(ranks), self.program, *words], environment(1, DELTAPATH_QUIET="1"))

    def check(self, what, ours, theirs, limit=LIMIT):
        if close(ours, theirs, limit):
            return True
        say(f"{what}: {ours:.9g} and {theirs:.9g} do not agree to {limit:g}")
        self.agreed = False
        return False

    def servers(self):
        ends = [self.pair / "post", self.pair / "pre"]
        ours = Server([*self.mpirun, "-n", "1", self.options.build / "tests/bench/bench_pass", *ends], environment(2))
        theirs = Server([self.options.python, PEER, "passes", *ends], environment(2))
        return ours, theirs

    def passes(self):
        print("**Forward, backward and terms of all tensors in fp32, one sequence.** Both threads of two cores.\n")
        ours, theirs = self.servers()
        rows = []
        for length in self.options.tokens:
            line = f"1 {length} fp32"
            say(f"passes: {length} tokens")
            a, b = self.turns(self.seconds("passes") * length / sum(self.options.tokens), [lambda: ours(line), lambda: theirs(line)])
            good = self.check("loss", a[0][1], b[0][1]) & self.check("slope", a[0][2], b[0][2])
            times = [[answer[0] for answer in side] for side in (a, b)]
            rows.append([length, spread(times[0]), spread(times[1]), ratios(*times) if good else "not the same",
                         f"{a[0][1]:.6f}, {b[0][1]:.6f}", f"{a[0][2]:.6g}, {b[0][2]:.6g}", len(a)])
        table(["tokens", "deltapath [s]", "PyTorch [s]", "ratio", "losses", "slopes", "turns"], rows)
        ours.close()
        theirs.close()

    def bf16(self):
        print("**The same in bf16**, against deltapath in fp32 and PyTorch in bf16 (whose W(t) is rounded); off: of loss and "
              "slope, from deltapath in fp32.\n")
        ours, theirs = self.servers()
        rows = []
        for length in self.options.tokens:
            wide, line = f"1 {length} fp32", f"1 {length} bf16"
            say(f"bf16: {length} tokens")
            a, f, b = self.turns(self.seconds("bf16") * length / sum(self.options.tokens),
                                 [lambda: ours(line), lambda: ours(wide), lambda: theirs(line)])
            good = all([self.check(f"{who} in bf16: {what}", side[0][i], f[0][i], BF16_LIMIT) for who, side, i, what in (
                ("deltapath", a, 1, "loss"), ("deltapath", a, 2, "slope"), ("PyTorch", b, 1, "loss"))])
            times = [[answer[0] for answer in side] for side in (a, f, b)]
            rows.append([length, *(spread(t) for t in times),
                         ratios(times[0], times[1]) if good else "not the same",
                         ratios(times[0], times[2]) if good else "not the same",
                         f"{off(a[0][1], f[0][1])}, {off(a[0][2], f[0][2])}",
                         f"{off(b[0][1], f[0][1])}, {off(b[0][2], f[0][2])}", len(a)])
        table(["tokens", "deltapath bf16 [s]", "fp32 [s]", "PyTorch bf16 [s]", "of fp32", "of PyTorch", "deltapath off",
               "PyTorch off", "turns"], rows)
        ours.close()
        theirs.close()

    def make_data(self):
        vocabulary = json.loads((self.pair / "post/config.json").read_text())["vocab_size"]
        tokens = [i * 2654435761 % vocabulary for i in range(SEQUENCES * TOKENS)]
        OUT.mkdir(parents=True, exist_ok=True)
        subprocess.run([self.options.h5py, "-c", WRITE_DATA, OUT / "data.h5", str(TOKENS)], check=True, text=True,
                       input=json.dumps(tokens))
        (OUT / "study.yaml").write_text(
            f"models: {{pre: {self.pair}/pre, post: {self.pair}/post}}\n"
            f"data: [{{name: data, file: {OUT}/data.h5, loss: lm}}]\n"
            "edits:\n  - {name: bitdelta, method: bitdelta}\n"
            f"  - {{name: expo, method: expo, alpha: {ALPHA}}}\n"
            "riemann: {rule: left, points: 5}\n"
            f"output: {{directory: {OUT}/study, report: false, overwrite: true}}\n")

    def study_ours(self, ranks):
        seconds, memory, _ = self.run_ours(ranks, ["run", OUT / "study.yaml"])
        units = json.loads((OUT / "study/results.json").read_text())["units"]
        found = {"loss_post": units[0]["loss_post"], "loss_pre": units[0]["loss_pre"],
                 "edits": {unit["edit"]: {"loss": unit["loss_edit"], "estimate": unit["estimate"]} for unit in units}}
        return seconds, memory, found

    def study_theirs(self):
        _, memory, output = measured([self.options.python, PEER, "study", self.pair / "pre", self.pair / "post",
                                      str(SEQUENCES), str(TOKENS)], environment(2))
        found = json.loads(output.splitlines()[-1])
        return found["seconds"], memory, found

    def start(self, ranks):
        return statistics.median(self.run_ours(ranks, ["keys"])[0] for _ in range(3))

    def study(self):
        print(f"**A study**: BitDelta and EXPO, left sums of five points, the gradient at t = 0 shared, {SEQUENCES} sequences of "
              f"{TOKENS} tokens, from the files to the last result. Without mpirun's start and Python's imports; memory is the "
              "most of all processes together (PSS, once a second).\n")
        self.make_data()
        start, sides, end = self.start(2), ([], []), time.monotonic() + self.seconds("study")
        while len(sides[0]) < 2 or (len(sides[0]) < MOST and time.monotonic() < end):
            say(f"study: turn {len(sides[0]) + 1}")
            sides[0].append(self.study_ours(2))
            sides[1].append(self.study_theirs())
        good, rows = self.study_agrees(sides[0][0][2], sides[1][0][2])
        table(["", "deltapath", "PyTorch"], rows)
        rows = []
        for what, values in (("time [s]", [[s - start for s, _, _ in sides[0]], [s for s, _, _ in sides[1]]]),
                             ("memory [MiB]", [[m for _, m, _ in side] for side in sides])):
            rows.append([what, spread(values[0]), spread(values[1]), ratios(*values) if good else "not the same",
                         len(sides[0])])
        table(["", "deltapath", "PyTorch", "ratio", "turns"], rows)
        print(f"(start of mpirun: {start:.2f} s)\n")

    def study_agrees(self, a, b):
        rows = [[name, f"{a[name]:.6f}", f"{b[name]:.6f}"] for name in ("loss_pre", "loss_post")]
        good = self.check("loss_post", a["loss_post"], b["loss_post"]) & self.check("loss_pre", a["loss_pre"], b["loss_pre"])
        for edit, own in a["edits"].items():
            other = b["edits"][edit]
            changes = own["loss"] - a["loss_post"], other["loss"] - b["loss_post"]
            good &= self.check(f"{edit}: change", *changes)
            good &= self.check(f"{edit}: estimate", own["estimate"], other["estimate"])
            rows.append([f"{edit}: loss", f"{own['loss']:.6f}", f"{other['loss']:.6f}"])
            rows.append([f"{edit}: change", *(f"{change:.6f}" for change in changes)])
            rows.append([f"{edit}: estimate", f"{own['estimate']:.6f}", f"{other['estimate']:.6f}"])
        return good, rows

    def ranks(self):
        print("**One rank and two**, of one thread, on the same study; without mpirun's start. Beside them what two threads of "
              "sgemm gain on this machine.\n")
        self.make_data()
        starts, times, peaks = {n: self.start(n) for n in (1, 2)}, {1: [], 2: []}, {1: [], 2: []}
        end = time.monotonic() + self.seconds("ranks")
        while len(times[1]) < 2 or (len(times[1]) < MOST and time.monotonic() < end):
            say(f"ranks: turn {len(times[1]) + 1}")
            for n, own in times.items():
                own.append(self.study_ours(n)[0] - starts[n])
                peaks[n].append(self.sgemm(n))
        table(["", "one", "two", "times as fast", "turns"],
              [["ranks [s]", spread(times[1]), spread(times[2]), ratios(times[1], times[2]), len(times[1])],
               ["threads of sgemm [GF/s]", spread(peaks[1]), spread(peaks[2]), ratios(peaks[2], peaks[1]), len(peaks[1])]])

    def sgemm(self, threads):
        return float(re.search(r"sgemm 2048 +([\d.]+) GF/s", self.bench(["bench_nn", "sgemm"], threads))[1])

    def bench(self, words, threads=2):
        return measured([*self.mpirun, "-n", "1", self.options.build / "tests/bench" / words[0], *words[1:]],
                        environment(threads))[2]

    def kernels(self):
        print("**Against sgemm of the same run**, one rank of two threads.\n")
        say("kernels: attention")
        found = {}  # by tokens, key-value heads and width: rate and share of sgemm, forward and backward
        for way, *shape, rate, share in re.findall(r"attn (fwd|bwd) n=(\d+) kv=(\d+) hd=(\d+) +([\d.]+) GF/s.*: ([\d.]+)$",
                                                   self.bench(["bench_nn", "attention"]), re.M):
            found.setdefault(tuple(shape), {})[way] = [rate, share]
        table(["attention: tokens", "heads, key-value heads, width", "forward [GF/s]", "of sgemm", "backward [GF/s]",
               "of sgemm"], [[n, f"8, {kv}, {hd}", *both["fwd"], *both["bwd"]] for (n, kv, hd), both in found.items()])
        say("kernels: a pass")
        print("A pass (`bench_model`):\n")
        print("```\n" + self.bench(["bench_model"]).strip() + "\n```\n", flush=True)


def processes(root):
    """A process and all that it started."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(stat.read_text().rsplit(")", 1)[1].split()[1]), []).append(int(stat.parent.name))
        except OSError:
            pass
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def measured(command, env):
    """Run a command. @return its seconds, the most memory of all its processes together [MiB], what it printed."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    most, done = [0], threading.Event()

    def watch():
        while not done.wait(1.0):
            total = 0
            for pid in processes(process.pid):
                try:
                    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
                    total += int(re.search(r"^Pss: +(\d+)", text, re.M).group(1))
                except (OSError, AttributeError):
                    pass
            most[0] = max(most[0], total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, errors = process.communicate()
    seconds = time.monotonic() - began
    done.set()
    watcher.join()
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{errors[-2000:]}")
    return seconds, most[0] / 1024, output


def head(options):
    name = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    version = subprocess.run([options.python, "-c", "import torch; print(torch.__version__)"], check=True, text=True,
                             stdout=subprocess.PIPE).stdout.strip()
    load = os.getloadavg()[0]
    print(f"{name[1] if name else platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before; PyTorch {version}; "
          f"OpenBLAS kernels {os.environ.get('OPENBLAS_CORETYPE', 'its choice')}.\n")
    if load > 0.5:
        say(f"warning: the load is {load:.1f}: what others compute is in these times")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, help="as build/release, with the program and its benches")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(SHARES)}; all of them without any")
    parser.add_argument("--python", default=os.environ.get("PYTHON", "python3"), help="with torch and safetensors")
    parser.add_argument("--h5py", default="/usr/bin/python3", help="Python with h5py, for the data set")
    parser.add_argument("--pair", type=pathlib.Path, help="folder of pre/ and post/")
    parser.add_argument("--delta", type=float, default=0.5, help="size of the delta of the pair over that of the weights")
    parser.add_argument("--tokens", default=LENGTHS, help="of the sequences of passes and bf16")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    options.build = options.build.resolve()
    options.pair = options.pair.resolve() if options.pair else None
    options.parts = options.parts or list(SHARES)
    options.tokens = [int(length) for length in options.tokens.split(",")]
    for part in options.parts:
        if part not in SHARES:
            parser.error(f"{part}: give some of {', '.join(SHARES)}")
    compare = Compare(options)
    head(options)
    compare.make_pair()
    for part in options.parts:
        getattr(compare, part)()
    return 0 if compare.agreed else 1


if __name__ == "__main__":
    sys.exit(main())
