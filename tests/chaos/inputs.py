"""Inputs that change while a study runs: it ends with 3 and says so, or its results are those of the
unchanged inputs. Never a mixture."""
import os
import shutil
import time

from support import in_parallel, setups

FILES = ("pre/model.safetensors", "post/model.safetensors", "data.h5", "pairs.h5", "post/config.json")


def other_bytes(path):
    """The same length, other content: values for weights, anything for the rest."""
    raw = bytearray(path.read_bytes())
    for at in range(len(raw) // 2, len(raw), 2):
        raw[at] ^= 1
    return bytes(raw)


def change(path, how, content):
    if how == "rewrite":
        with open(path, "r+b") as file:
            file.write(content)
    elif how == "truncate":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "replace":
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.rename(path)
    elif how == "delete":
        path.unlink()


def one(chaos, case):
    setup, name, how, instant = case
    kind, ranks = setup
    folder = chaos.folder()
    shutil.copytree(chaos.models, folder / "m")
    path = folder / "m" / name
    content = other_bytes(path)
    job = (chaos.tmp / f"{kind}.yaml").read_text().replace(f"{chaos.models}/", "m/")
    (folder / "job.yaml").write_text(job)
    started = chaos.start(folder, ranks, ["run", "job.yaml"])
    time.sleep(instant)
    early = started[0].poll() is None
    change(path, how, content)
    run = chaos.finish(started)
    why = ""
    if run.code == 124:
        why = "HANG"
    elif run.code == 0:
        why = chaos.same_numbers(chaos.undisturbed_relative(*setup), folder / "study")
        if why and consistent(chaos, folder, how, ranks):
            why = ""
    elif run.code not in (2, 3):
        why = f"code: {run}"
    elif len(run.errors) != 1:
        why = f"lines: {run}"
    shutil.rmtree(folder)
    if why:
        why = f"{kind}, {ranks} ranks: {how} of {name} at {instant:.2f} s{'' if early else ' (after the end)'}: {why}"
        print(f"# DEFECT {why}", flush=True)
    return f"{how} of an input", run.code, why


def consistent(chaos, folder, how, ranks):
    """The change came before anything was read: all results are those of the changed input."""
    if how not in ("rewrite", "replace"):
        return False
    shutil.move(folder / "study", folder / "first")
    run = chaos.finish(chaos.start(folder, ranks, ["run", "job.yaml"]))
    return run.code == 0 and not chaos.same_numbers(folder / "study", folder / "first")


def main(chaos, number):
    kinds, codes = {}, {}
    cases = setups(number)
    for setup in sorted(set(cases)):
        chaos.undisturbed_relative(*setup)
    cases = [(setup, chaos.random.choice(FILES), ("rewrite", "truncate", "replace", "delete")[i % 4],
              chaos.random.uniform(0.1, 1.0) * chaos.seconds["relative", *setup]) for i, setup in enumerate(cases)]
    for name, code, why in in_parallel(lambda case: one(chaos, case), cases, chaos.arguments.jobs):
        kinds.setdefault(name, []).append(why)
        codes[code] = codes.get(code, 0) + 1
    print(f"# codes of {number} studies whose input changed: {dict(sorted(codes.items()))}")
    return kinds
