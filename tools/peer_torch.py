#!/usr/bin/env python3
"""The same study by deltapath and by PyTorch, beside each other: time of one pass (forward, backward and terms of each
tensor), time of the whole study, memory.

    tools/peer_torch.py MODELS [--tokens 128,512,2048] [--samples 4096/T] [--precision fp32,bf16] [--repeats 5]

MODELS holds pre/ and post/, LLaMA-like pairs, as `make paper-real` makes them in build/real (there --post high). The study:
BitDelta and EXPO at alpha -0.3, both over all linear layers, five left points each, losses before and after, on sequences
of T random tokens. PyTorch shares the gradient at t = 0 between the edits, as deltapath does, takes as many sequences a batch
as have 2048 tokens, and gives terms of all samples together, while deltapath gives each sample's slope and loss as well. Its weights
are W(t) in fp32, or rounded to bf16.

A pass is the difference of nine and five points over four. The whole study is from loading the files to the last
result, without the imports of Python; mpirun's start counts for deltapath. Memory is the largest sum of the proportional
set sizes (PSS) of all processes of a run. Both get two cores: deltapath as two ranks, PyTorch as two threads. Runs
alternate; the medians of repeats are set against each other. Needs torch, transformers, h5py."""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BATCH_TOKENS = 2048
ALPHA = -0.3
LINEAR = re.compile(r"layers\.\d+\..*proj\.weight$")
RESULT = "result: "


def torch_study(options):
    """What PyTorch does; prints its seconds."""
    import h5py
    import torch
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(2)
    kind = torch.bfloat16 if options.precision == "bf16" else torch.float32
    began = time.monotonic()
    with h5py.File(options.data) as file:
        tokens = torch.from_numpy(file["tokens"][:].reshape(-1, options.length)).long()
    pre = AutoModelForCausalLM.from_pretrained(options.pre, dtype=torch.float32).state_dict()
    model = AutoModelForCausalLM.from_pretrained(options.post, dtype=torch.float32)
    post = {name: value.detach().clone() for name, value in model.named_parameters()}
    model = model.to(kind)
    batch = max(1, BATCH_TOKENS // options.length)

    def place(at):
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(at(name))

    def run(slopes):
        total = 0.0
        model.zero_grad()
        for begin in range(0, len(tokens), batch):
            some = tokens[begin:begin + batch]
            with torch.set_grad_enabled(slopes):
                logits = model(some).logits[:, :-1].float()
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten())
                if slopes:
                    (loss * (len(some) / len(tokens))).backward()
            total += loss.item() * len(some) / len(tokens)
        return total

    def terms(edit):
        return {name: torch.sum(value.grad.float() * edit[name]).item()
                for name, value in model.named_parameters() if name in edit}

    def edit_of(method):
        out = {}
        for name, value in post.items():
            if LINEAR.search(name):
                delta = value - pre[name]
                out[name] = (ALPHA * delta if method == "expo"
                             else delta.abs().mean() * torch.sign(delta) - delta)
        return out

    place(lambda name: pre[name])
    losses = [run(False)]
    place(lambda name: post[name])
    losses.append(run(True))
    shared = {name: value.grad.clone() for name, value in model.named_parameters()}
    for method in ("bitdelta", "expo")[:options.edits]:
        edit = edit_of(method)
        sums = []
        for point in range(options.points):
            if point == 0:
                for name, value in model.named_parameters():
                    value.grad = shared[name].clone()
            else:
                t = point / options.points
                place(lambda name: post[name] + t * edit[name] if name in edit else post[name])
                run(True)
            sums.append(sum(terms(edit).values()))
        place(lambda name: post[name] + edit[name] if name in edit else post[name])
        losses.append(run(False))
        print(f"{method}: estimate {sum(sums) / len(sums):.5g}, change {losses[-1] - losses[1]:.5g}")
    print(RESULT + str(time.monotonic() - began))


def members(root):
    """A process and all that it started."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = pathlib.Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
            except OSError:
                pass
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def measured(command, environment):
    """Run a command. @return its output, seconds and largest sum of PSS in MiB."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=environment)
    most, done = [0], threading.Event()

    def watch():
        while not done.wait(0.25):
            total = 0
            for pid in members(process.pid):
                try:
                    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
                    total += int(re.search(r"^Pss: +(\d+)", text, re.M).group(1))
                except (OSError, AttributeError):
                    pass
            most[0] = max(most[0], total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output = process.communicate()[0]
    seconds = time.monotonic() - began
    done.set()
    watcher.join()
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))[:200]}\n{output[-2000:]}")
    return output, seconds, most[0] / 1024


def ours(options, data, length, precision, points, edits, folder):
    chosen = ["{name: bit, method: bitdelta}", f"{{name: expo, method: expo, alpha: {ALPHA}}}"][:edits]
    job = folder / "job.yaml"
    job.write_text(f"models: {{pre: {options.models / options.pre}, post: {options.models / options.post}}}\n"
                   f"data: [{{name: d, file: {data}, loss: lm}}]\n"
                   f"edits: [{', '.join(chosen)}]\n"
                   f"precision: {precision}\nriemann: {{rule: left, points: {points}}}\n"
                   f"batch_tokens: {BATCH_TOKENS}\ntensor_parallel: 1\nselect: {{include: ['*_proj.weight']}}\n"
                   f"output: {{directory: {folder}/out, checkpoint: none, report: false}}\n")
    subprocess.run(["rm", "-rf", folder / "out"], check=True)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    output, seconds, memory = measured(["mpirun", "-q", "-n", "2", options.program, "run", job], environment)
    for line in output.splitlines():
        if "change" in line and options.verbose:
            print("#", line)
    return seconds, memory


def theirs(options, data, length, precision, points, edits, _folder):
    output, _, memory = measured(
        [sys.executable, __file__, "child", "--pre", options.models / options.pre, "--post",
         options.models / options.post, "--data", data, "--length", str(length), "--points", str(points),
         "--edits", str(edits), "--precision", precision], dict(os.environ, OMP_NUM_THREADS="2"))
    if options.verbose:
        print("#", output.replace("\n", "; ")[-300:])
    return float(output.rsplit(RESULT, 1)[1]), memory


def make_data(path, length, samples):
    import h5py
    import numpy as np
    tokens = np.random.default_rng(1).integers(5, 49000, length * samples, dtype=np.int32)
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["version"], file.attrs["kind"] = "deltapath-data", 1, "lm"
        file["tokens"] = tokens
        file["loss_mask"] = np.ones(len(tokens), np.uint8)
        file["offsets"] = np.arange(samples + 1, dtype=np.int64) * length


def compare(options):
    """Medians and spread, as lines and as JSON."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for length in map(int, options.tokens.split(",")):
            samples = options.samples or max(2, 4096 // length)
            make_data(folder / "d.h5", length, samples)
            for precision in options.precision.split(","):
                took = {"deltapath": {}, "torch": {}}
                memory = {"deltapath": 0.0, "torch": 0.0}
                for _ in range(options.repeats):
                    for points, edits in ((5, 1), (9, 1), (5, 2)):
                        for who, run in (("deltapath", ours), ("torch", theirs)):
                            seconds, mib = run(options, folder / "d.h5", length, precision, points, edits, folder)
                            took[who].setdefault((points, edits), []).append(seconds)
                            memory[who] = max(memory[who], mib)
                row = {"tokens": length, "samples": samples, "precision": precision}
                for who, times in took.items():
                    passes = [(b - a) / 4 for a, b in zip(times[5, 1], times[9, 1])]
                    row[who] = {"pass_s": statistics.median(passes), "pass_min_s": min(passes), "pass_max_s": max(passes),
                                "study_s": statistics.median(times[5, 2]), "study_min_s": min(times[5, 2]),
                                "study_max_s": max(times[5, 2]), "mib": memory[who]}
                rows.append(row)
                a, b = row["deltapath"], row["torch"]
                print(f"{precision} T={length} x {samples}: pass {a['pass_s']:.3f} s [{a['pass_min_s']:.3f}, "
                      f"{a['pass_max_s']:.3f}] against {b['pass_s']:.3f} s [{b['pass_min_s']:.3f}, {b['pass_max_s']:.3f}], "
                      f"ratio {a['pass_s'] / b['pass_s']:.2f}; study {a['study_s']:.2f} s [{a['study_min_s']:.2f}, "
                      f"{a['study_max_s']:.2f}] against {b['study_s']:.2f} s [{b['study_min_s']:.2f}, {b['study_max_s']:.2f}], "
                      f"ratio {a['study_s'] / b['study_s']:.2f}; memory {a['mib']:.0f} against {b['mib']:.0f} MiB, "
                      f"ratio {a['mib'] / b['mib']:.2f}", flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path, help="folder of pre/ and post/; `child` is for its own use")
    parser.add_argument("--pre", default="pre")
    parser.add_argument("--post", default="post")
    parser.add_argument("--tokens", default="128,512,2048")
    parser.add_argument("--samples", type=int, help="4096 tokens together")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--program", default=ROOT / "build/release/deltapath")
    parser.add_argument("--json", help="write the figures there too")
    parser.add_argument("--verbose", action="store_true", help="print changes, which have to agree")
    for name, kind in (("--data", str), ("--length", int), ("--points", int), ("--edits", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if str(options.models) == "child":
        torch_study(options)
    else:
        options.models = options.models.resolve()
        compare(options)


if __name__ == "__main__":
    main()
