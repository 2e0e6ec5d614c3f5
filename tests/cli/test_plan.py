#!/usr/bin/python3
# seconds: 240
"""`machine`, `plan` with its tables, and what a run says of its plan: memory and bytes within a tenth."""
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import make_models as models
import studies
from studies import check

JOB = """name: p
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 12}]
edits: [%s]
riemann: {rule: left, points: 2}
output: {directory: %%s, checkpoint: none, report: false}
"""
EDITS = {"dare": "{name: dare, method: dare, p: 0.5}", "prune": "{name: prune, method: prune, keep: 0.3}",
         "twin": "{name: twin, method: lowrank, sparsity: 0.9}", "bits": "{name: bits, method: multibit, bits: 2}",
         "rows": "{name: rows, method: bitdelta, granularity: row}"}
LINE = (r"plan against run: memory per rank ([\d.]+) / ([\d.]+) MiB .*?read ([\d.]+) / ([\d.]+) GB .*?"
        r"written ([\d.]+) / ([\d.]+) GB .*?time ([\d.]+) / ([\d.]+) s")


def compare(name, done, limit=0.1):
    """The line of a run."""
    line = re.search(LINE, done.stderr)
    check(f"{name}: it says so", done.returncode == 0 and line, done.stderr[-600:])
    values = [float(v) for v in line.groups()] if line else [0] * 8
    for at, what, least in ((0, "memory", 0.0), (2, "bytes read", 0.0), (4, "bytes written", 1e-3)):
        planned, taken = values[at], values[at + 1]
        check(f"{name}: {what} within a tenth", abs(planned - taken) <= limit * taken + least / 10 and taken > 0,
              f"{planned} planned, {taken} taken")
    check(f"{name}: a time", values[6] > 0 and values[7] > 0, values)


def runs(folder):
    for name, edit in EDITS.items():
        job = JOB % edit
        for ranks in (1, 3) if name in ("prune", "twin") else (1,):
            done = studies.study(f"{folder}/job.yaml", job % f"{folder}/{name}{ranks}", ranks, "riemann=off",
                                 "output.checkpoint=safetensors")
            compare(f"{name} alone at {ranks} ranks", done)
    both = JOB % ", ".join(EDITS[e] for e in ("dare", "prune"))
    # Gradients are kept whatever a pass takes, else the bytes would depend on the load of the machine.
    os.environ["DELTAPATH_SAVE_SECONDS"] = "60"
    for ranks in (1, 2, 4):
        compare(f"a study at {ranks} ranks", studies.study(f"{folder}/job.yaml", both % f"{folder}/s{ranks}", ranks))
    # The gradients of eigenvalues are kept, of which steps that are tried take more than the plan counts.
    done = studies.study(f"{folder}/top.yaml", JOB % EDITS["dare"] % f"{folder}/top", 1, "hessian={lanczos: 1, steps: 2}")
    line = re.search(LINE, done.stderr)
    planned, taken = (float(line[5]), float(line[6])) if line else (0.0, 0.0)
    check("eigenvalues: bytes written", 0.7 * taken <= planned <= 1.1 * taken and taken > 0, done.stderr[-600:])
    del os.environ["DELTAPATH_SAVE_SECONDS"]


WIDE = ("hidden_size=1536", "intermediate_size=4096", "num_hidden_layers=2", "vocab_size=64", "num_attention_heads=8",
        "num_key_value_heads=4")
WIDE_JOB = """name: w
models: {pre: AT/wide/pre, post: AT/wide/post}
data: [{name: d, file: AT/wide.h5, loss: lm}]
edits: [{name: a, method: prune, keep: 0.5}, {name: b, method: drop, p: 0.5}]
riemann: {rule: gauss, points: 1}
output: {directory: %s, checkpoint: none, report: false}
"""


def takes_turns(folder):
    """The activations of a pass and the cells of an edit are not there at the same time: a rank
    counts less than it would with both, as the plan says."""
    done = studies.deltapath("synthetic", "share/shapes/llama-3-70b.json", f"{folder}/wide",
                             *(word for key in WIDE for word in ("--set", key)))
    check("a wide pair", done.returncode == 0, done.stderr)
    models.write_data(f"{folder}/wide.h5", [[(5 * s + i) % 64 for i in range(50)] for s in range(4)])
    for ranks in (1, 2):
        group = f"tensor_parallel={ranks}"
        job = WIDE_JOB.replace("AT", folder) % f"{folder}/w{ranks}"
        done = studies.study(f"{folder}/wide.yaml", job, ranks, group)
        line = re.search(LINE, done.stderr)
        check(f"it runs at {ranks} ranks", done.returncode == 0 and line, done.stderr[-600:])
        plan = json.loads(studies.deltapath("plan", f"{folder}/wide.yaml", "--ranks", str(ranks), "--json", "--set",
                                            group).stdout)["gib_per_rank"]
        both = 1024 * sum(plan[key] for key in ("weights", "activations", "edited_model"))
        taken = float(line[2]) if line else 0.0
        check(f"memory within a tenth at {ranks}", abs(1024 * plan["peak"] - taken) <= 0.1 * taken, (plan, taken))
        check(f"less than all at a time at {ranks}", 0 < taken < 0.95 * both, (plan, taken))
        # The most is an edit next to the one that is bound, which can go.
        tight = f"{int(1024 * plan['peak']) - 1}M"
        results = [open(f"{folder}/w{ranks}/results.json", encoding="utf-8").read()]
        done = studies.study(f"{folder}/wide.yaml", job, ranks, group, "output.overwrite=true",
                             options=("--memory", tight))
        results.append(open(f"{folder}/w{ranks}/results.json", encoding="utf-8").read())
        numbers = [[[unit[key] for key in ("loss_edit", "estimate")] for unit in json.loads(text)["units"]] for text in results]
        check(f"within {tight} at {ranks} as well", done.returncode == 0 and re.search(LINE, done.stderr), done.stderr[-600:])
        # Batches may be smaller in less memory, so that sums are rounded otherwise.
        off = max(abs(x - y) for a, b in zip(*numbers) for x, y in zip(a, b))
        check("with the same numbers", results[0] != results[1] and off < 1e-7, numbers)


def machines(folder):
    path = f"{folder}/machine.yaml"
    done = studies.deltapath("machine", folder, "-o", path)
    cache = subprocess.run(["getconf", "LEVEL3_CACHE_SIZE"], check=False, capture_output=True, text=True).stdout.strip()
    wanted = min(2 * int(cache) if cache.isdigit() else 0, 1 << 28)
    taken = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    check("copies go beyond the last cache", taken >= wanted, (taken, wanted))
    check("a machine is measured", done.returncode == 0 and os.path.exists(path), done.stderr)
    text = open(path, encoding="utf-8").read() if os.path.exists(path) else ""
    values = dict(re.findall(r"^(\w+): (\S+) #", text, re.M))
    check("with cores and rates", float(values.get("cores", 0)) == os.cpu_count() and
          all(float(values.get(k, 0)) > 0 for k in ("sgemm_gflops", "memory_gb_per_s", "read_gb_per_s")), text)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        has_bf16 = "avx512f" in file.read()
    check("products in bf16 too, where there are any", (float(values.get("bf16_gflops", 0)) > 0) == has_bf16, text)
    check("nothing else is left", sorted(os.listdir(folder)) == ["machine.yaml"], os.listdir(folder))
    again = studies.deltapath("machine", "--defaults", "-o", path)
    check("a file that is there stays", again.returncode == 4 and "--overwrite" in again.stderr and
          open(path, encoding="utf-8").read() == text, again.stderr)
    again = studies.deltapath("machine", "--defaults", "--overwrite", "-o", path)
    check("unless it may go", again.returncode == 0, again.stderr)
    other = f"{folder}/thesis.txt"
    with open(other, "w", encoding="utf-8") as file:
        file.write("ten years\n")
    bad = studies.deltapath("machine", "--defaults", "--overwrite", "-o", other)
    check("a user's file never does", bad.returncode == 4 and open(other, encoding="utf-8").read() == "ten years\n", bad.stderr)
    bad = studies.deltapath("machine", f"{folder}/none")
    check("a folder that is not there", bad.returncode == 4 and f"{folder}/none" in bad.stderr and
          bad.stderr.count("\n") == 1, bad.stderr)
    return path


def files(folder, job):
    for text, words in (("cores 2\n", ":1: no `key: number`"), ("\ncorse: 2\n", ":2: 'corse' is no key of a machine (did you mean 'cores'?)"),
                        ("cores: two\n", ":1: cores: 'two'"), ("cores: 0\n", ":1: cores: '0' is no number from 1"),
                        ("cores: 2\ncores: 3 # more\n", ":2: cores is given twice"), ("read_gb_per_s: nan\n", "'nan'"),
                        ("cores: 2 3\n", "'2 3'"), ("cores: 3e9\n", "cores: '3e9' is no number from 1 to 1e+06"),
                        ("memory_gib: 1e300\n", "memory_gib: '1e300'"), ("storage_gb_per_s: 1e300\n", "storage_gb_per_s: '1e300'")):
        with open(f"{folder}/bad.yaml", "w", encoding="utf-8") as file:
            file.write(text)
        bad = studies.deltapath("plan", job, "--machine", f"{folder}/bad.yaml")
        check(f"refused: {text.strip()!r}", bad.returncode == 3 and words in bad.stderr and "bad.yaml:" in bad.stderr and bad.stderr.count("\n") == 1, bad.stderr)


def names(folder, job):
    """A machine file whose name is no UTF-8."""
    for name in b"m\xfc.yaml", b"m\xc3\xbc.yaml":
        path = os.path.join(folder.encode(), name)
        with open(path, "wb") as file:
            file.write(b"cores: 4\n")
        done = subprocess.run([studies.PROGRAM.encode(), b"plan", job.encode(), b"--json", b"--machine", path], check=False,
                              capture_output=True)
        check(f"JSON by {name}", done.returncode == 0 and folder in json.loads(done.stdout)["machine"], done.stderr)


def rate(path, **values):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{key}: {value}\n" for key, value in values.items())


def tables(folder, job):
    path = f"{folder}/m.yaml"
    rate(path, cores=4, memory_gib=64, sgemm_gflops=100, memory_gb_per_s=1000, network_gb_per_s=10)
    plan = studies.deltapath("plan", job, "--ranks", "8", "--machine", path, "--json")
    check("a plan as JSON", plan.returncode == 0, plan.stderr)
    one = json.loads(plan.stdout or "{}")
    check("of eight ranks on two nodes", (one.get("ranks"), one.get("nodes")) == (8, 2.0), plan.stdout)
    check("its phases are its time", abs(sum(one["seconds"].values()) - 3600 * one["hours"]) < 1e-3 * sum(one["seconds"].values()),
          plan.stdout)
    check("node hours", abs(one["node_hours"] - 2 * one["hours"]) < 1e-9)
    rate(path, cores=4, memory_gib=64, sgemm_gflops=50, memory_gb_per_s=1000, network_gb_per_s=10)
    slow = json.loads(studies.deltapath("plan", job, "--ranks", "8", "--machine", path, "--json").stdout)
    check("half the rate of products takes longer", 1.05 * one["hours"] < slow["hours"] < 2.05 * one["hours"], (one, slow))
    text = studies.deltapath("plan", job, "--ranks", "8", "--machine", path).stdout
    check("the text says by what", f"time, by {path}" in text and "node hours" in text, text)
    scaling = studies.deltapath("plan", job, "--ranks", "1..6", "--machine", path, "--json")
    rows = json.loads(scaling.stdout or '{"scaling": []}')
    check("a table of ranks", [r["ranks"] for r in rows["scaling"]] == [1, 2, 4, 6], scaling.stdout + scaling.stderr)
    costs = {r["ranks"]: r["node_hours"] for r in rows["scaling"]}
    check("and the cheapest of them", rows["cheapest"]["node_hours"] <= 1.001 * min(costs.values()), rows)
    shorter = 3600 * max(r["hours"] for r in rows["scaling"]) * 0.9
    limited = json.loads(studies.deltapath("plan", job, "--ranks", "1..6", "--machine", path, "--json", "--time",
                                           f"{shorter:.9f}").stdout or "{}")
    check("within a time", limited["cheapest"]["hours"] * 3600 <= shorter, limited.get("cheapest"))
    text = studies.deltapath("plan", job, "--ranks", "1..6", "--machine", path)
    check("as text", len(re.findall(r"^ +\d+ +\d+ +\d+ x \d+ ", text.stdout, re.M)) == 4 and "cheapest:" in text.stdout, text.stdout)
    none = studies.deltapath("plan", job, "--ranks", "1..6", "--machine", path, "--memory", "2M")
    check("none fits", none.returncode == 4 and "--memory" in none.stderr, none.stderr)
    for words in (), ("--ranks", "4"):
        bad = studies.deltapath("plan", job, "--time", "60", *words)
        check(f"a time without a table {words}", bad.returncode == 2 and "--time" in bad.stderr and "N..M" in bad.stderr, bad.stderr)
    bad = studies.deltapath("plan", job, "--ranks", "6..1")
    check("ranks that fall", bad.returncode == 2 and "--ranks 6..1" in bad.stderr, bad.stderr)


def groups(job):
    """Tables have the numbers of ranks on which the job's groups can be formed."""
    def ranks(key, numbers):
        done = studies.deltapath("plan", job, "--ranks", numbers, "--json", "--set", key)
        return [r["ranks"] for r in json.loads(done.stdout)["scaling"]] if done.returncode == 0 else done.stderr

    for key, numbers, wanted in (("tensor_parallel=4", "1..16", [4, 8, 16]), ("tensor_parallel=3", "1..14", [3, 6, 12]),
                                 ("tensor_parallel=2", "3..9", [4, 8]), ("svd_group=4", "1..8", [4, 8])):
        rows = ranks(key, numbers)
        check(f"{key} of {numbers}", rows == wanted, rows)
    none = ranks("tensor_parallel=4", "1..3")
    check("a table without any", "--ranks 1..3" in none and "tensor_parallel: 4" in none and none.count("\n") == 1, none)


def elsewhere(folder):
    """A machine file says the rate of bf16: the processor that plans need not have such products."""
    path = f"{folder}/m.yaml"
    rate(path, cores=4, memory_gib=64, bf16_gflops=500)
    words = [studies.PROGRAM, "plan", f"{folder}/job.yaml", "--ranks", "2", "--set", "precision=bf16"]
    environment = dict(os.environ, ONEDNN_MAX_CPU_ISA="AVX2")
    for options, code in (["--machine", path], 0), ([], 2):
        done = subprocess.run(words + options, check=False, capture_output=True, text=True, env=environment)
        check(f"bf16 of a processor without, {options}", done.returncode == code and ("AVX-512" in done.stderr) == (code != 0),
              done.stderr)


def precision(folder):
    """Products of `precision: bf16` by number and rate: the seconds of each phase, from those of the same study in fp32."""
    path, slow, fast = f"{folder}/m.yaml", 0.01, 0.03
    with open(f"{folder}/precision.yaml", "w", encoding="utf-8") as file:
        file.write(JOB % EDITS["dare"] % f"{folder}/precision")

    def plan(kind, *options, **rates):
        rate(path, cores=1, memory_gib=64, sgemm_gflops=slow, sgemm_small_gflops=slow, memory_gb_per_s=1e6, **rates)
        return studies.deltapath("plan", f"{folder}/precision.yaml", "--ranks", "1", "--machine", path, "--set",
                                 f"precision={kind}", *options)

    def seconds(kind, *options, **rates):
        found = json.loads(plan(kind, "--json", *options, **rates).stdout)
        check("activations of all layers are kept", found["gib_per_rank"]["activations_kept"] > 0 and found["layers_kept"] == 5, found)
        return found["seconds"]

    fp32, bf16 = seconds("fp32"), seconds("bf16", bf16_gflops=fast)
    # Slopes at t = 0, which is kept, and at 0.5; losses of W_pre and of the edit. Products with weights for all of them,
    # of what is computed again on the way back, and the attention, as seconds at a rate of 1.
    weights = fp32["terms"] * slow / 2
    attention = fp32["forward"] * slow / 4 - weights
    layers = fp32["backward"] * slow / 2 - weights - 2.5 * attention
    few = 4 / 12  # of the samples, on which slopes at 0.5 are taken once more in both precisions
    both = 1 + few

    def near(what, found, expected):
        check(f"bf16: {what}", abs(found - expected) < 1e-3 * expected, (found, expected))

    near("forward, one product at the ends and two between them", bf16["forward"],
         (3 + 2 * both) * weights / fast + few * weights / slow + (4 + 2 * few) * attention / slow)
    near("backward", bf16["backward"], (1 + 2 * both) * (layers + weights) / fast + few * (layers + weights) / slow +
         2.5 * (2 + 2 * few) * attention / slow)
    near("the gradient alone takes products of its own", bf16["terms"], weights / fast + few * weights / slow)
    split = seconds("bf16", "--set", "output.dtype=f32", bf16_gflops=fast)
    near("of fp32 edits the terms do too", split["terms"], (1 + both) * weights / fast + few * weights / slow)
    near("and the loss of the edit", split["forward"], bf16["forward"] + weights / fast)
    default = seconds("bf16")
    check("bf16: a machine without its rate", default == seconds("bf16", bf16_gflops=slow), default)
    says = "no bf16_gflops there"
    check("bf16: of which the plan speaks", says in plan("bf16").stdout and says not in plan("fp32").stdout and
          says not in plan("bf16", bf16_gflops=fast).stdout)


def gathers(folder, job):
    """Weights of other machines: bytes by number, and time that shrinks with a faster network and is hidden by arithmetic."""
    path, both = f"{folder}/m.yaml", 2 * 4526208 / 1e9
    plans = {}
    for network, products in ((1, 1e5), (0.01, 1e5), (0.01, 0.01)):
        rate(path, cores=2, memory_gib=64, sgemm_gflops=products, memory_gb_per_s=1000, network_gb_per_s=network)
        for ranks in (2, 4, 8):
            plans[network, products, ranks] = json.loads(studies.deltapath(
                "plan", job, "--ranks", str(ranks), "--machine", path, "--json", "--set", "tensor_parallel=1").stdout)
    for ranks, machines in ((2, 1), (4, 2), (8, 4)):
        plan = plans[1, 1e5, ranks]
        # One batch of a replica; both ends, and for each of two edits its slope at t = 0.5 and its loss at t = 1, the
        # gradient at t = 0 kept: slopes of W_post, which move one model, and of two edits, losses of W_pre and of two edits.
        # The head and the last of five layers lie there when a pass turns back, the embedding and the first when the next begins
        # along the same weights.
        head = 192 * 768 / 2263104
        there = head + (1 - 2 * head) / 5
        times = plan["gathered_gb"] / (both * (1 - 1 / machines)) if machines > 1 else 0
        check(f"{machines} machines gather both models for each pass", plan["gathered_gb"] == 0 if machines == 1 else
              abs(times - (2.5 * (2 - there) + 1 + 2 * (1 - there))) < 1e-4, (times, plan))
        check(f"{machines} machines: it takes time", (plan["seconds"]["gather"] > 0) == (machines > 1), plan["seconds"])
    # In fp32 an edit's values take twice those of bf16, where they lie and where a layer is gathered.
    weights = [json.loads(studies.deltapath("plan", job, "--ranks", "4", "--ranks-per-node", "2", "--json", "--set",
                                            "tensor_parallel=1", "--set", f"output.dtype={dtype}").stdout)
               ["gib_per_rank"]["weights"] for dtype in ("bf16", "f32")]
    check("wider edits need wider rooms", abs(weights[1] / weights[0] - 1.5) < 0.001, weights)
    slow, fast, hidden = (plans[key]["seconds"]["gather"] for key in ((0.01, 1e5, 4), (1, 1e5, 4), (0.01, 0.01, 4)))
    check("a slower network takes longer", slow > 20 * fast, (slow, fast))
    check("arithmetic hides all but the first unit", hidden < slow / 3, (hidden, slow))


def plots(folder, job):
    svg = f"{folder}/scaling.svg"
    words = ("plan", job, "--ranks", "1..4", "--machine", f"{folder}/m.yaml", "--plot")
    done = studies.deltapath(*words, svg)
    root = xml.etree.ElementTree.parse(svg).getroot() if done.returncode == 0 else None
    points = root.findall(".//{http://www.w3.org/2000/svg}circle") if root is not None else []
    check("a plot of three lines", len(points) == 9, done.stderr)
    rows = {int(w[0]): float(w[5]) for w in map(str.split, done.stdout.splitlines()) if w and w[0].isdigit() and len(w) > 5}
    check("with the hours of the table", [p[0].text for p in points[:3]] == [f"{n}: {rows[n]:.4g}" for n in (1, 2, 4)] if
          len(points) == 9 and len(rows) == 3 else False, (rows, [p[0].text for p in points]))
    check("an earlier plot goes", studies.deltapath(*words, svg).returncode == 0)
    with open(svg, "w", encoding="utf-8") as file:
        file.write("<svg>mine</svg>")
    bad = studies.deltapath(*words, svg)
    check("a user's file never does", bad.returncode == 4 and open(svg, encoding="utf-8").read() == "<svg>mine</svg>", bad.stderr)
    bad = studies.deltapath("plan", job, "--ranks", "2", "--plot", f"{folder}/no.svg")
    check("of one number of ranks there is none", bad.returncode == 2 and "--plot" in bad.stderr, bad.stderr)


def budgets(folder, job):
    """A rank's share of the memory of a node is that of the ranks that the plan puts there, not of those that plan."""
    path = f"{folder}/m.yaml"
    rate(path, cores=4, memory_gib=64)

    def budget(*words):
        done = studies.deltapath("plan", job, "--json", *words)
        plan = json.loads(done.stdout) if done.returncode == 0 else {}
        plans = plan.get("scaling", [plan])
        return [p["gib_per_rank"]["budget"] for p in plans if p] or done.stderr

    def near(name, got, wanted):
        check(name, len(got) == len(wanted) and all(abs(a - b) < 1e-4 * b for a, b in zip(got, wanted)), (got, wanted))

    whole = [0.9 * 64 / n for n in (1, 2, 4, 4)]
    for ranks, share in zip((1, 2, 4, 8), whole):
        near(f"{ranks} ranks of a machine file", budget("--ranks", str(ranks), "--machine", path), [share])
    near("a table of them", budget("--ranks", "1..8", "--machine", path), whole)
    one = budget("--ranks", "1")
    near("two ranks of this node", budget("--ranks", "2", "--ranks-per-node", "2"), [one[0] / 2])
    near("eight on nodes of two", budget("--ranks", "8", "--ranks-per-node", "2"), [one[0] / 2])
    near("a table of this node", budget("--ranks", "1..4", "--ranks-per-node", "4"), [one[0] / n for n in (1, 2, 4)])
    near("what is asked for", budget("--ranks", "2", "--ranks-per-node", "2", "--memory", "1G"), [1.0])


def searches(folder):
    """What is found on the way costs passes."""
    job = JOB % "{name: auto, method: expo, alpha: auto}"
    with open(f"{folder}/auto.yaml", "w", encoding="utf-8") as file:
        file.write(job % f"{folder}/auto")
    rate(f"{folder}/m.yaml", cores=4)
    plans = [json.loads(studies.deltapath("plan", f"{folder}/auto.yaml", "--machine", f"{folder}/m.yaml", "--json", "--set",
                                          "data=[{name: task, file: share/demo/task.h5, loss: lm, samples: 12, choose: 0.5}]",
                                          "--set", f"edits.0.alpha={alpha}").stdout) for alpha in ("auto", "0.1")]
    check("alpha: auto counts", plans[0]["tflop"] > 2 * plans[1]["tflop"] and
          plans[0]["hours"] > plans[1]["hours"], plans)


def long_passes(folder):
    """Passes of minutes save what they have, and a restart reads the gradient back and loses five minutes of it at most."""
    with open(f"{folder}/long.yaml", "w", encoding="utf-8") as file:
        file.write(JOB % EDITS["dare"] % f"{folder}/long")
    path, elements, plans = f"{folder}/m.yaml", 2263104, {}
    for rate_of in 0.01, 1e5:
        rate(path, cores=2, sgemm_gflops=rate_of, sgemm_small_gflops=rate_of, memory_gb_per_s=1e6, read_gb_per_s=1)
        for rule in "left", "gauss":
            plans[rate_of, rule] = json.loads(studies.deltapath(
                "plan", f"{folder}/long.yaml", "--ranks", "1", "--machine", path, "--json", "--set",
                f"riemann={{rule: {rule}, points: 2}}").stdout)
    slow, fast = plans[0.01, "left"], plans[1e5, "left"]
    again = 3600 * (slow["restart_hours"] - plans[0.01, "gauss"]["restart_hours"])
    check("a restart has the gradient", 299.9 < again - 4e-9 * elements < 300.1, (again, slow))
    taken = sum(slow["seconds"][phase] for phase in ("forward", "backward", "terms"))
    sums = 1e9 * (slow["written_gb"] - fast["written_gb"]) - 2 * 4 * elements  # the gradient, and a state of its pass
    check("states of passes", 0.9 * taken * 24 * 12 < sums < taken * (24 * 12 + 8 * 200 + 256), (sums, taken, slow))


def planes(folder):
    """A point of a plane is shared by all ranks: its memory falls with them."""
    with open(f"{folder}/plane.yaml", "w", encoding="utf-8") as file:
        file.write(JOB % ", ".join(EDITS[e] for e in ("dare", "prune")) % f"{folder}/plane")
    taken = [json.loads(studies.deltapath("plan", f"{folder}/plane.yaml", "--ranks", str(ranks), "--ranks-per-node", "64", "--json",
                                          "--set", "tensor_parallel=1", "--set", "plane={a: dare, b: prune, points: 3}").stdout)
             ["gib_per_rank"]["plane"] * 2**30 for ranks in (1, 2)]
    check("the point lies on two ranks", taken[0] > 4 * 2263104 and taken[1] < 0.65 * taken[0], taken)


def steady(folder):
    """The mesh, on which the last bits of losses depend, does not follow what is measured in passing: slow kernels of
    OpenBLAS choose the one that fast ones do."""
    with open(f"{folder}/steady.yaml", "w", encoding="utf-8") as file:
        file.write(JOB % "{name: dare, method: dare, p: 0.5}" % f"{folder}/steady")
    plans = []
    for kernels in ({}, {"OPENBLAS_CORETYPE": "Prescott"}):
        for ranks in "2", "3", "4", "8":
            done = subprocess.run([studies.PROGRAM, "plan", f"{folder}/steady.yaml", "--ranks", ranks, "--json", "--set",
                                   "data=[{name: task, file: share/demo/task.h5, loss: lm, samples: 12}]"],
                                  check=False, capture_output=True, text=True, env=dict(os.environ, **kernels))
            plans.append(json.loads(done.stdout)["tensor_parallel"] if done.returncode == 0 else done.stderr)
    check("the mesh is that of slow kernels too", plans[:4] == plans[4:] and all(isinstance(p, int) for p in plans), plans)


def inside(folder, job):
    """Tensor-parallel groups lie inside a node, even where the only sample leaves the other ranks nothing to do, unless only
    larger groups fit."""
    def group(*words):
        done = studies.deltapath("plan", job, "--json", "--set", "data.0.samples=1", *words)
        return json.loads(done.stdout)["tensor_parallel"] if done.returncode == 0 else done.stderr

    for ranks, node, wanted in ((4, 4, 4), (4, 2, 2), (6, 3, 3), (4, 1, 1)):
        size = group("--ranks", str(ranks), "--ranks-per-node", str(node))
        check(f"{ranks} ranks, {node} a node: groups of {wanted}", size == wanted, size)
    for mib in range(40, 5, -1):
        size = group("--ranks", "4", "--ranks-per-node", "2", "--memory", f"{mib}M")
        if size != 2:
            break
    check("only a larger group fits", size == 4, size)


def main():
    with tempfile.TemporaryDirectory() as folder:
        machines(folder)
    with tempfile.TemporaryDirectory() as folder:
        runs(folder)
        files(folder, f"{folder}/job.yaml")
        names(folder, f"{folder}/job.yaml")
        tables(folder, f"{folder}/job.yaml")
        budgets(folder, f"{folder}/job.yaml")
        inside(folder, f"{folder}/job.yaml")
        groups(f"{folder}/job.yaml")
        elsewhere(folder)
        precision(folder)
        gathers(folder, f"{folder}/job.yaml")
        plots(folder, f"{folder}/job.yaml")
        searches(folder)
        long_passes(folder)
        planes(folder)
        steady(folder)
        takes_turns(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())
