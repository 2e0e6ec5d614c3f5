"""Lines of TAP, and studies that are run, for the tests of the command line in Python."""
import json
import os
import subprocess

import numpy as np

PROGRAM = os.path.join(os.environ.get("DELTAPATH_BUILD", "build/release"), "deltapath")
results = []  # of all checks


def check(name, good, why=""):
    """One TAP line."""
    results.append(bool(good))
    print(f"{'ok' if good else 'not ok'} {len(results)} - {name}")
    if not good:
        print("#   " + str(why).replace("\n", "\n#   "))


def finish():
    """The last line. Returns the exit code."""
    print(f"1..{len(results)}")
    return 0 if all(results) else 1


def deltapath(*words):
    """The program without ranks; the finished process."""
    return subprocess.run([PROGRAM, *words], check=False, capture_output=True, text=True)


def run(path, ranks, *options, fault=None):
    """Run the job that lies at path; the finished process."""
    start = os.environ.get("DPT_MPIRUN", "mpirun -q").split()
    environment = dict(os.environ, **({"DPT_FAULT": fault} if fault else {}))
    return subprocess.run([*start, "-n", str(ranks), PROGRAM, "run", path, *options], check=False,
                          capture_output=True, text=True, env=environment)


def study(path, job, ranks, *sets, options=(), fault=None):
    """Write a job and run it; the finished process."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(job)
    return run(path, ranks, *options, *(word for change in sets for word in ("--set", change)), fault=fault)


def results_of(folder, name, job, ranks, *sets, options=(), fault=None):
    """Run a job whose %s is its output directory, folder/name; its results.json, or None, and the finished process."""
    done = study(f"{folder}/{name}.yaml", job % f"{folder}/{name}", ranks, *sets, options=options, fault=fault)
    if not os.path.exists(f"{folder}/{name}/results.json"):
        return None, done
    with open(f"{folder}/{name}/results.json", encoding="utf-8") as file:
        return json.load(file), done


def save_model(folder, config, tensors):
    """A folder in the format of safetensors."""
    os.mkdir(folder)
    header, data = {}, b""
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name], dtype=np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [len(data), len(data) + len(value)]}
        data += value
    text = json.dumps(header).encode()
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        file.write(config)


def load_model(folder):
    """{name: (type, shape, bytes)} of the one safetensors file of a folder."""
    with open(f"{folder}/model.safetensors", "rb") as file:
        raw = file.read()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    header.pop("__metadata__", None)
    return {name: (at["dtype"], tuple(at["shape"]), raw[end + at["data_offsets"][0]:end + at["data_offsets"][1]])
            for name, at in header.items()}
