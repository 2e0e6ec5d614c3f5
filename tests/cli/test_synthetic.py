#!/usr/bin/python3
# seconds: 300
"""Models that `deltapath synthetic` makes: tensors are those of the architecture, by tables written apart; every verb
reads them; runs at 1 to 4 ranks agree, edits to the byte."""
import json
import os
import pathlib
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
import studies
import test_plan_families as families
from studies import check, deltapath

DEMO = "share/demo/llama-pre/config.json"
JOB = """name: s
models: {pre: %(at)s/pair/pre, post: %(at)s/pair/post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 4}]
edits:
  - {name: dare, method: dare, p: 0.5}
  - {name: prune, method: prune, keep: 0.3}
riemann: {rule: left, points: 2}
output: {directory: %%s, checkpoint: safetensors, report: false}
"""


def tensors(model):
    done = deltapath("inspect", "--json", str(model))
    return {t["name"]: (t["dtype"], tuple(t["shape"])) for t in json.loads(done.stdout)["tensors"]}


def check_families(at):
    """Decoders that store one matrix a tensor, or several as rows; and those that are refused."""
    for name, (architecture, kind, config, shapes, count, _) in families.MODELS.items():
        if "image_size" in config:
            continue
        text = {"architectures": [architecture], "model_type": kind} | {
            k: v for k, v in config.items() if k != "experts"}
        (at / f"{name}.json").write_text(json.dumps(text))
        done = deltapath("synthetic", str(at / f"{name}.json"), str(at / name))
        if name.startswith("gpt2") or name.startswith("gpt-oss"):
            check(f"{name}: refused by a tensor", done.returncode == 3 and "of all experts" in done.stderr, done.stderr)
            continue
        want = {t: ("BF16", shape) for t, shape in shapes(config).items()}
        check(f"{name}: tensors", done.returncode == 0 and tensors(at / name / "post") == want, done.stderr)
        check(f"{name}: parameters", f"{count} parameters" in done.stdout, done.stdout)


def check_shipped(at):
    for name in ("llama", "qwen"):
        done = deltapath("synthetic", f"share/demo/{name}-pre/config.json", str(at / name), "--seed", "3")
        check(f"{name}: tensors of the shipped model",
              done.returncode == 0 and tensors(at / name / "pre") == tensors(f"share/demo/{name}-pre"), done.stderr)
    done = deltapath("synthetic", "share/demo/vit-pre/config.json", str(at / "vit"))
    check("classes are not in a configuration", done.returncode == 3 and "classifier" in done.stderr, done.stderr)
    done = deltapath("synthetic", DEMO, str(at / "two"), "--set", "num_hidden_layers=2", "--set", "vocab_size=100",
                     "--dtype", "f32")
    two = tensors(at / "two" / "pre")
    check("--set and --dtype", done.returncode == 0 and two["model.embed_tokens.weight"] == ("F32", (100, 192)) and
          "model.layers.1.input_layernorm.weight" in two and "model.layers.2.input_layernorm.weight" not in two)
    for words, says in ((("--delta", "2"), "--delta 2"), (("--dtype", "i8"), "--dtype i8"), (("--set", "x"), "--set x"),
                        (("--set", "x="), "--set x=")):
        done = deltapath("synthetic", DEMO, str(at / "never"), *words)
        check(f"refused: {' '.join(words)}", done.returncode == 2 and says in done.stderr, done.stderr)
    done = deltapath("synthetic", DEMO, str(at / "llama"))
    check("what is there stays", done.returncode == 4 and "llama/pre" in done.stderr, done.stderr)
    done = deltapath("synthetic", str(at / "nowhere.json"), str(at / "never"))
    check("no configuration", done.returncode == 3 and "nowhere.json" in done.stderr, done.stderr)


def check_verbs(at):
    """A copy has the bytes that a run reads; pairs with several seeds differ; the delta has its size."""
    deltapath("synthetic", DEMO, str(at / "pair"), "--delta", "0.05", "--set", "num_hidden_layers=2")
    for side in ("pre", "post"):
        done = deltapath("convert", str(at / "pair" / side), str(at / f"{side}-copy"))
        check(f"convert {side}", done.returncode == 0, done.stderr)
    pre, post = studies.load_model(at / "pre-copy"), studies.load_model(at / "post-copy")
    name = "model.layers.0.mlp.down_proj.weight"
    a, b = ((np.frombuffer(m[name][2], "<u2").astype(np.uint32) << 16).view(np.float32) for m in (pre, post))
    check("deviation and delta", abs(a.std() * 512**0.5 - 1) < 0.01 and abs((b - a).std() / a.std() / 0.05 - 1) < 0.02,
          f"{a.std()} {(b - a).std()}")
    check("a norm is near 1", np.frombuffer(pre["model.norm.weight"][2], "<u2").min() > 0x3f00)
    done = deltapath("diff", str(at / "post-copy"), str(at / "pair" / "post"))
    check("diff with its copy", done.returncode == 0 and "21 of 21" in done.stdout, done.stderr)
    check("verify", deltapath("verify", str(at / "pair" / "post")).returncode == 0)
    done = deltapath("convert", "share/demo/llama-pre", str(at / "pair" / "post" / "below"))
    check("nothing is put into its folder", done.returncode == 4, done.stderr)


def check_runs(at):
    job, kept = JOB % {"at": at}, {}
    for ranks in (1, 2, 3, 4):
        got, done = studies.results_of(str(at), f"run{ranks}", job, ranks)
        check(f"run at {ranks}", got is not None, done.stderr[-500:])
        if got is None:
            continue
        kept[ranks] = [[u["loss_post"], u["loss_edit"], u["estimate"]] for u in got["units"]]
        check(f"finite at {ranks}", np.all(np.isfinite(kept[ranks])))
        check(f"losses and estimates at {ranks} are those at 1", np.allclose(kept[ranks], kept[1], rtol=1e-5, atol=1e-7),
              kept)
        for edit in ("dare", "prune"):
            same = [pathlib.Path(at / f"run{n}" / "models" / edit / "model.safetensors").read_bytes() for n in (1, ranks)]
            check(f"{edit} at {ranks}: same bytes", same[0] == same[1])
    copies = job.replace(f"{at}/pair/pre", f"{at}/pre-copy").replace(f"{at}/pair/post", f"{at}/post-copy")
    got, done = studies.results_of(str(at), "copies", copies, 2)
    have = [[u["loss_post"], u["loss_edit"], u["estimate"]] for u in got["units"]] if got else []
    check("a run over copies on disk has the same values", have == kept.get(2), f"{have} {kept.get(2)} {done.stderr[-300:]}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        check_shipped(at)
        check_verbs(at)
        check_runs(at)
        check_families(at)
    return studies.finish()


if __name__ == "__main__":
    os.chdir(HERE.parent.parent)
    sys.exit(main())
