#!/usr/bin/python3
"""Edits from file to file and factorisations by deltapath and by others, next to each other, as a table in Markdown.

    make bench-peers                               # all parts; parts="dare lowrank" some
    tools/peers/run.py BUILD_DIR [--size 1] [--repeats 3] [--folder out/peers] [--json build/bench/peers.json] [PART ...]

Parts: dare, prune, della, bitdelta (mergekit where it has the method, a PyTorch script, cp; time and memory), lowrank (torch.svd_lowrank and
scikit-learn's randomized_svd at a residual as small as ours). The first run makes a virtual environment in build/bench/venv of
requirements.txt, some gigabytes.

The pair is in bf16, of LLaMA's shape with random values, SIZE GB a model, in FOLDER. Both sides read the same files from a warm cache
and leave one edited model in bf16, flushed to disk; others take two threads, deltapath two ranks of one. They take turns; a
figure is the median of the repeats, with the least and the most; a ratio is the median of the ratios of turns. Memory is
the most of all processes of a command together that no file backs. Where the edited models differ by more than chance in
their norm or in the share of changed entries there is no ratio, and the exit code is 1."""
import argparse
import json
import math
import os
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests/bench"))
import document  # noqa: E402

P, KEEP, SPREAD = 0.5, 0.3, 0.4  # as in torch_edits.py; SPREAD is from the least to the largest probability
OURS = {
    "dare": f"method: dare, p: {P}",
    "prune": f"method: prune, keep: {KEEP}",
    "della": f"method: della, p: {P}, epsilon: {SPREAD}",
    "bitdelta": "method: bitdelta",
}
MERGEKIT = {  # the method, and its parameters
    "dare": ("dare_linear", f"density: {1 - P}"),
    "prune": ("ties", f"density: {KEEP}"),
    "della": ("della_linear", f"density: {1 - P}, epsilon: {SPREAD / 2}"),
}
MERGEKIT_WAYS = {"mergekit": [], "mergekit, small shards": ["--out-shard-size", "50M"]}
MERGEKIT_OPTIONS = "-j 2 --async-write --write-threads 2 --lazy-unpickle --no-copy-tokenizer --no-write-model-card --quiet".split()
AGREE = 0.1  # many deltas in bf16 are equal, so thresholds keep more or fewer; mergekit rescales DELLA by L1 norms
MATRICES = "2048x2048,4096x4096,4096x14336"
RANK = 64
SEARCH = [(width, n) for width in (RANK + 10, 2 * RANK) for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)]  # width and iterations
REST = 0.2  # seconds before a turn, in which threads of the turn before stop spinning
EXCESS = 1e-4  # of the residual over ours that counts as the same, of the norm of the matrix
WRITE_MATRIX = """import numpy as np, sys
path, rows, cols, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
draw = np.random.default_rng(1)
a = draw.standard_normal((rows, cols), np.float32)
if kind == "decaying":
    parts = min(rows, cols) // 16
    left = draw.standard_normal((rows, parts), np.float32) / (1 + 0.05 * np.arange(parts, dtype=np.float32))
    a += left @ draw.standard_normal((parts, cols), np.float32)
a.tofile(path)
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


def descendants(root):
    """Process ids of a process and of all below it."""
    found = [root]
    for pid in found:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                found += map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            pass
    return found


def memory_of(root):
    """[MiB] of all processes, shared pages once: what no file backs, and all."""
    own = everything = 0
    for pid in descendants(root):
        try:
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        sizes = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.M))
        own += int(sizes.get("Pss_Anon", 0)) + int(sizes.get("Pss_Shmem", 0))
        everything += int(sizes.get("Pss", 0))
    return own / 1024, everything / 1024


def measured(command, env):
    """Run a command. @return its seconds and the most memory that it took, both ways."""
    began = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    most, done = [0.0, 0.0], threading.Event()

    def watch():
        while not done.wait(0.1):
            most[:] = map(max, most, memory_of(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed = process.communicate()[0]
    seconds = time.monotonic() - began
    done.set()
    watcher.join()
    if process.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}\nended with {process.returncode}:\n{printed[-2000:]}")
    return seconds, most


def figure(values):
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


class Server:
    """A process that answers each line by one."""

    def __init__(self, command, env):
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, *words):
        line = " ".join(map(str, words))
        time.sleep(REST)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) < 2:
            sys.exit(f"no answer to: {line}")
        return float(answer[0]), float(answer[1]), answer[2:]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def environment(threads):
    return dict(os.environ, OMP_NUM_THREADS=str(threads), DELTAPATH_QUIET="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


class Peers:
    def __init__(self, options):
        self.options = options
        self.folder = options.folder
        self.python = options.venv / "bin/python"
        self.mpirun = shlex.split(os.environ.get("DPT_MPIRUN", "mpirun -q"))
        self.results, self.agreed = [], True

    def make_venv(self):
        made = self.options.venv / "complete"
        if made.exists():
            return
        say(f"making {self.options.venv}: some gigabytes and minutes")
        subprocess.run([sys.executable, "-m", "venv", self.options.venv], check=True)
        subprocess.run([self.python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", HERE / "requirements.txt"], check=True)
        made.touch()

    def ours(self, *words):
        return [*self.mpirun, "-n", "2", self.options.build / "deltapath", *words]

    def make_pair(self):
        self.pair = self.folder / f"pair-{self.options.size:g}"
        if (self.pair / "complete").exists():
            return
        say(f"making {self.pair}: two models of {self.options.size:g} GB")
        shutil.rmtree(self.pair, ignore_errors=True)
        self.pair.mkdir(parents=True)
        vocabulary = 32000 if self.options.size >= 0.5 else 4096
        layer = 2 * (2 * 2048**2 + 2 * 256 * 2048 + 3 * 2048 * 5632)
        layers = max(1, round((self.options.size * 1e9 - 2 * 2 * 2048 * vocabulary) / layer))
        config = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=2048, intermediate_size=5632,
                      num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=4, head_dim=64, vocab_size=vocabulary,
                      tie_word_embeddings=False, hidden_act="silu", rms_norm_eps=1e-5, rope_theta=10000.0,
                      max_position_embeddings=2048, torch_dtype="bfloat16")
        (self.pair / "config.json").write_text(json.dumps(config))
        measured(self.ours("synthetic", self.pair / "config.json", self.pair / "made", "--delta", "0.1"), environment(1))
        for model in ("pre", "post"):
            measured(self.ours("convert", self.pair / "made" / model, self.pair / model), environment(1))
        shutil.rmtree(self.pair / "made")
        (self.pair / "complete").touch()

    def job(self, part):
        path = self.folder / f"{part}.yaml"
        path.write_text(f"name: {part}\nmodels: {{pre: {self.pair}/pre, post: {self.pair}/post}}\nedits:\n"
                        f"  - {{name: {part}, {OURS[part]}}}\nriemann: off\n"
                        f"output: {{directory: {self.folder}/out-ours, checkpoint: safetensors, report: false}}\n")
        return self.ours("run", path)

    def merge(self, part, out, options):
        method, parameters = MERGEKIT[part]
        path = self.folder / f"{part}-mergekit.yaml"
        path.write_text(f"merge_method: {method}\nbase_model: {self.pair}/pre\nmodels:\n  - model: {self.pair}/post\n"
                        f"    parameters: {{weight: 1.0, {parameters}}}\ndtype: bfloat16\n")
        line = shlex.join(map(str, [self.options.venv / "bin/mergekit-yaml", path, out, *MERGEKIT_OPTIONS, *options]))
        return ["bash", "-c", f"{line} && sync -f {out}"]

    def cases(self, part):
        """Names; command, folder of what it leaves (None: no edited model), threads."""
        out = {name: self.folder / f"out-{name.replace(' ', '-').replace(',', '')}" for name in [*MERGEKIT_WAYS, "PyTorch", "PyTorch, streamed", "cp"]}
        cases = {"deltapath": (self.job(part), self.folder / "out-ours", 1)}
        for name, options in MERGEKIT_WAYS.items():
            if part in MERGEKIT:
                cases[name] = (self.merge(part, out[name], options), out[name], 2)
        script = [self.python, HERE / "torch_edits.py", part, self.pair / "pre", self.pair / "post"]
        cases["PyTorch"] = ([*script, out["PyTorch"]], out["PyTorch"], 2)
        cases["PyTorch, streamed"] = ([*script, out["PyTorch, streamed"], "stream"], out["PyTorch, streamed"], 2)
        cases["cp"] = (["bash", "-c", f"cp -r {self.pair}/post {out['cp']} && sync -f {out['cp']}"], out["cp"], 1)
        cases["start of mpirun"] = ([*self.mpirun, "-n", "2", self.options.build / "tests/bench/bench_start"], None, 1)
        cases["start of PyTorch"] = ([self.python, "-c", "import torch, safetensors.torch"], None, 2)
        return cases

    def check(self, part, cases):
        """Names of the peers whose models are those of deltapath, by chance's measure."""
        good = set()
        ours = next(self.folder.joinpath("out-ours").rglob("*.safetensors")).parent
        for name, (_, out, _) in cases.items():
            if out is None or name in ("deltapath", "cp"):
                continue
            done = subprocess.run([self.python, HERE / "torch_edits.py", "compare", self.pair / "pre", ours, out], check=True, text=True,
                                  stdout=subprocess.PIPE).stdout
            (share, norm), (other_share, other_norm) = [map(float, line.split()) for line in done.splitlines()]
            off = max(abs(other_share - share) / share, abs(other_norm - norm) / norm)
            say(f"{part}: changed {share:.4f}, norm {norm:.6g} by deltapath; {other_share:.4f}, {other_norm:.6g} by {name}")
            if off <= AGREE:
                good.add(name)
            else:
                self.agreed = False
        return good

    def edits(self, part):
        cases = self.cases(part)
        times, sizes = {name: [] for name in cases}, {name: [] for name in cases}
        good = set()
        for turn in range(self.options.repeats):
            for name, (command, out, threads) in cases.items():
                if out:
                    shutil.rmtree(out, ignore_errors=True)
                os.sync()
                seconds, memory = measured(command, environment(threads))
                times[name].append(seconds)
                sizes[name].append(memory)
                say(f"{part}, turn {turn + 1}, {name}: {seconds:.2f} s, {memory[0]:.0f} MiB")
            if turn == 0:
                good = self.check(part, cases)
        for _, out, _ in cases.values():
            if out:
                shutil.rmtree(out, ignore_errors=True)
        self.keep(part, times, sizes, good | {"cp"})

    def keep(self, part, times, sizes, comparable):
        ours, start = times["deltapath"], statistics.median(times["start of mpirun"])
        for name in times:
            result = {"part": part, "who": name, "unit": "s", **figure(times[name])}
            result["memory [MiB]"] = max(own for own, _ in sizes[name])
            result["memory with files [MiB]"] = max(both for _, both in sizes[name])
            if name in comparable:
                result["ratio"] = statistics.median(a / b for a, b in zip(times[name], ours))
                result["ratio without start"] = statistics.median(a / (b - start) for a, b in zip(times[name], ours))
                result["memory ratio"] = result["memory [MiB]"] / max(own for own, _ in sizes["deltapath"])
            self.results.append(result)

    def lowrank(self):
        """Each matrix and spectrum: ours, and the quickest setting of each library whose residual is as small."""
        faster = subprocess.run([self.options.build / "tests/bench/bench_core", "faster"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
        env = environment(1)
        if faster:
            env.setdefault("OPENBLAS_CORETYPE", faster)
        ours = Server([*self.mpirun, "-n", "2", self.options.build / "tests/bench/bench_lowrank"], env)
        theirs = Server([self.python, HERE / "low_rank.py"], environment(2))
        for rows, cols in self.options.matrices:
            for kind in ("flat", "decaying"):
                path = self.folder / f"{kind}-{rows}x{cols}.f32"
                subprocess.run([self.python, "-c", WRITE_MATRIX, path, str(rows), str(cols), kind], check=True)
                self.matrix(f"{rows} x {cols}, {kind}", (path, rows, cols, RANK), ours, theirs)
                path.unlink()
        ours.close()
        theirs.close()

    def search(self, asked, library, theirs, least):
        """The quickest setting that reaches a residual, or the one with the best. @return setting, whether it reaches it."""
        found, best = None, (math.inf, None)
        for width, iterations in SEARCH:
            if found is not None and found[1][0] == width:
                continue  # more iterations are slower
            seconds, residual, _ = theirs.ask(*asked, library, width, iterations)
            best = min(best, (residual, (width, iterations)))
            if residual <= least + EXCESS and (found is None or seconds < found[0]):
                found = (seconds, (width, iterations))
        return (found[1], True) if found else (best[1], False)

    def matrix(self, label, asked, ours, theirs):
        least = ours.ask(*asked, "auto")[1]
        settings = {library: self.search(asked, library, theirs, least) for library in ("torch", "sklearn")}
        settings["torch as it comes"] = ((RANK, 2), theirs.ask(*asked, "torch", RANK, 2)[1] <= least + EXCESS)
        rows = {name: [] for name in ("deltapath", *settings)}
        for _ in range(self.options.repeats):
            rows["deltapath"].append(ours.ask(*asked, "auto"))
            for name, (setting, _) in settings.items():
                rows[name].append(theirs.ask(*asked, name.split()[0], *setting))
        for name, answers in rows.items():
            result = {"part": "lowrank", "case": label, "who": name, "unit": "s", **figure([a[0] for a in answers]),
                      "residual": statistics.median(a[1] for a in answers)}
            if name == "deltapath":
                result["how"] = " ".join(answers[0][2])
            else:
                (width, iterations), reached = settings[name]
                result["how"] = f"width {width}, {iterations} iterations" + ("" if reached else ", residual not reached")
                result["ratio"] = statistics.median(a[0] / b[0] for a, b in zip(answers, rows["deltapath"]))
            self.results.append(result)
            say(f"{label}, {name}: {result['median']:.3f} s, residual {result['residual']:.6f} ({result['how']})")

    def about(self):
        about = document.machine(self.options.build)
        about["model [GB]"] = self.options.size
        for package in ("torch", "mergekit", "scikit-learn"):
            about[package] = subprocess.run([self.python, "-c", f"import importlib.metadata as m; print(m.version('{package}'))"],
                                            check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
        return about


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, help="as build/release, with the program and its benches")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(OURS)}, lowrank; all of them without any")
    parser.add_argument("--size", type=float, default=1.0, help="of a model [GB]")
    parser.add_argument("--matrices", default=MATRICES, help="of lowrank")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "out/peers")
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "build/bench/venv")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "build/bench/peers.json")
    options = parser.parse_args()
    options.parts = options.parts or [*OURS, "lowrank"]
    unknown = set(options.parts) - {*OURS, "lowrank"}
    if unknown:
        parser.error(f"{', '.join(unknown)}: give some of {', '.join(OURS)}, lowrank")
    options.matrices = [tuple(map(int, matrix.split("x"))) for matrix in options.matrices.split(",")]
    for name in ("build", "folder", "venv", "json"):
        setattr(options, name, getattr(options, name).absolute())
    options.folder.mkdir(parents=True, exist_ok=True)
    peers = Peers(options)
    peers.make_venv()
    about = peers.about()
    if set(options.parts) & set(OURS):
        peers.make_pair()
    for part in options.parts:
        if part == "lowrank":
            peers.lowrank()
        else:
            peers.edits(part)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": about, "results": peers.results}, indent=1) + "\n")
    subprocess.run([sys.executable, ROOT / "tools/bench_tables.py", "--peers", options.json], check=True)
    return 0 if peers.agreed else 1


if __name__ == "__main__":
    sys.exit(main())
