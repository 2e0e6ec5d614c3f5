#!/usr/bin/python3
# seconds: 300
"""Pairs whose names differ: by prefixes, which are recognised, and otherwise, where models.rename maps them. Every edited
tensor has the bytes, and every term the value, that the pair has under one set of names."""
import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import make_models as models
import studies
from studies import check

JOB = """name: n
models: {pre: %s, post: %s%s}
data: [{name: d, file: %s/data.h5, loss: lm}]
edits: [{name: expo, method: expo, alpha: -0.25}, {name: prune, method: prune, keep: 0.5}]
riemann: {rule: left, points: 2}
output: {directory: %s, checkpoint: safetensors, report: false}
"""
TOWER = ("vision_tower.vision_model.encoder.layers.0.fc1.weight", "multi_modal_projector.linear.weight")


def renamed(tensors, change):
    """The same values under other names."""
    return {change(name): value for name, value in tensors.items()}


WRAPPERS = {
    "peft": lambda name: f"base_model.model.{name}",
    "inner": lambda name: name.removeprefix("model."),
    "outer": lambda name: f"language_model.{name}",
    "new": lambda name: name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name,
}


class Bench:
    """A folder with a plain pair, and what its study gave."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.config = models.llama_config(64)
        self.pre, self.post = models.llama_pair(self.config, "BF16")
        models.write_data(self.folder / "data.h5", models.random_samples(64))
        self.save("pre", self.pre)
        self.save("post", self.post)
        self.plain, done = self.study("plain", "pre", "post", 1)
        check("the plain pair", done.returncode == 0, done.stderr)

    def save(self, name, tensors, config=None):
        """A model of the folder."""
        models.write_model(self.folder / name, tensors, config or self.config)

    def study(self, name, pre, post, ranks, rename="", more=""):
        """results.json, or None, and the process."""
        out = self.folder / name
        job = JOB % (self.folder / pre, self.folder / post, rename, self.folder, out)
        done = studies.study(self.folder / f"{name}.yaml", job + more, ranks)
        if done.returncode != 0:
            return None, done
        return json.loads((out / "results.json").read_text()), done

    def same(self, name, results, change):
        """Bytes and terms against those of the plain pair."""
        for edit in ("expo", "prune"):
            plain = studies.load_model(self.folder / f"plain/models/{edit}")
            own = studies.load_model(self.folder / f"{name}/models/{edit}")
            check(f"{name} {edit}: bytes", all(own[change(key)] == value for key, value in plain.items()))
        for unit, other in zip(results["units"], self.plain["units"]):
            keys = ("estimate", "change", "loss_post", "loss_pre")
            far = {key: (unit[key], other[key]) for key in keys if abs(unit[key] - other[key]) > 1e-6}
            terms = [abs(a["integrated"] - b["integrated"]) for a, b in zip(unit["by_module"], other["by_module"])]
            check(f"{name} {unit['edit']}: losses, estimate and terms", not far and max(terms) < 1e-6, (far, terms))


def wrapped(bench):
    """Every prefix, on either side and on both."""
    for ranks, (name, change) in enumerate(WRAPPERS.items(), 1):
        bench.save(f"post-{name}", renamed(bench.post, change))
        bench.save(f"pre-{name}", renamed(bench.pre, change))
        results, done = bench.study(name, "pre", f"post-{name}", ranks)
        check(f"{name}: runs", done.returncode == 0, done.stderr)
        if results:
            bench.same(name, results, change)
        check(f"{name}: one line says so", done.stderr.count("prefixes of their names differ") == 1 and
              done.stderr.count("names have other prefixes than this architecture's") == 1, done.stderr)
    results, done = bench.study("both", "pre-outer", "post-peft", 2)
    check("both wrapped: runs", done.returncode == 0, done.stderr)
    if results:
        bench.same("both", results, WRAPPERS["peft"])
    table = studies.deltapath("diff", f"{bench.folder}/pre-outer", f"{bench.folder}/post-inner", "--iterations", "0")
    check("diff pairs them", table.returncode == 0 and "prefixes of their names differ" in table.stdout + table.stderr and
          table.stdout.count("layers.1.mlp.down_proj.weight") >= 1, table.stdout + table.stderr)


def told_apart(bench):
    """Two names that differ by prefixes alone pair with nothing but their own."""
    twice = dict(bench.post, **{"norm.weight": bench.post["model.norm.weight"]})
    bench.save("post-twice", twice)
    bench.save("pre-bare", renamed(bench.pre, WRAPPERS["inner"]))
    _, done = bench.study("twice", "pre", "post-twice", 1)
    check("a second name: no partner", done.returncode == 3 and "'norm.weight': missing in the pre-trained" in done.stderr,
          done.stderr)


def mapped(bench):
    """models.rename."""
    change = lambda name: name.replace("model.layers.", "model.decoder.blocks.")
    odd = renamed(bench.post, change)
    bench.save("post-odd", odd)
    _, done = bench.study("odd", "pre", "post-odd", 1)
    check("other names: refused", done.returncode == 3 and "missing in the pre-trained model" in done.stderr, done.stderr)
    edits = "\nriemann: off\n"
    job = (JOB % (bench.folder / "pre", bench.folder / "post-odd",
                  ', rename: {"model.decoder.blocks.": "model.layers."}', bench.folder, bench.folder / "mapped"))
    lines = [line for line in job.splitlines() if not line.startswith(("data", "riemann"))]
    done = studies.study(bench.folder / "mapped.yaml", "\n".join(lines) + edits, 3)
    check("rename: runs", done.returncode == 0, done.stderr)
    for edit in ("expo", "prune") if done.returncode == 0 else ():
        plain = studies.load_model(bench.folder / f"plain/models/{edit}")
        own = studies.load_model(bench.folder / f"mapped/models/{edit}")
        check(f"rename {edit}: bytes under post's names", own == {change(key): value for key, value in plain.items()})
    for name, rename, code, text in (
            ("of nothing", '{"model.blocks.": "x."}', 3, "'model.blocks.' maps no name"),
            ("of two to one", '{"model.decoder.blocks.0.": "model.layers.1.", "model.decoder.blocks.": "model.layers."}', 3,
             "would both pair with 'model.layers.1."),
            ("a list", "[a, b]", 2, "OLD PREFIX"), ("a number of keys", "{a: {b: c}}", 2, "OLD PREFIX")):
        done = studies.study(bench.folder / "bad.yaml", "\n".join(lines) + edits, 1, f"models.rename={rename}",
                             options=("--dry-run",))
        check(f"rename {name}: refused", done.returncode == code and text in done.stderr, done.stderr)


def mapped_gradients(bench):
    """Losses and terms find the architecture's tensors under the names of the pre-trained model."""
    odd = {"blocks": lambda name: name.replace("model.layers.", "decoder.blocks."),
           "all": lambda name: f"net.{name}".replace("layers.", "blocks.")}
    renames = {"blocks": '{"decoder.blocks.": "model.layers."}',
               "all": '{"net.": "", "net.model.blocks.": "model.layers."}'}
    for ranks, name in enumerate(("blocks", "all", "blocks", "all"), 1):
        bench.save(f"odd-{name}", renamed(bench.post, odd[name]))
        own = f"mapped-{name}-{ranks}"
        results, done = bench.study(own, "pre", f"odd-{name}", ranks, rename=f", rename: {renames[name]}")
        check(f"{own}: runs", done.returncode == 0, done.stderr)
        if results:
            bench.same(own, results, odd[name])
    # The pre-trained model has the odd names, the post-trained one those of the architecture.
    bench.save("odd-pre", renamed(bench.pre, odd["blocks"]))
    results, done = bench.study("turned", "odd-pre", "post", 2, rename=', rename: {"model.layers.": "decoder.blocks."}')
    check("the other way round: runs", done.returncode == 0, done.stderr)
    if results:
        bench.same("turned", results, lambda name: name)
    _, done = bench.study("nowhere", "odd-pre", "odd-blocks", 1)
    check("names of no architecture: refused", done.returncode == 3 and "models.rename" in done.stderr and
          "tensor model.layers.0.input_layernorm.weight is missing" in done.stderr, done.stderr)
    results, done = bench.study("both-odd", "odd-pre", "odd-blocks", 3, rename=f', rename: {renames["blocks"]}')
    check("mapped to the architecture's: runs", done.returncode == 0, done.stderr)
    if results:
        bench.same("both-odd", results, odd["blocks"])


def multimodal(bench):
    """The text model of one that has an image tower and a projector."""
    config = {"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
              "tie_word_embeddings": False, "vision_config": {"hidden_size": 8},
              "text_config": {k: v for k, v in bench.config.items() if k not in ("architectures", "tie_word_embeddings")}}
    change = WRAPPERS["new"]
    tower = {f"model.{name}": ([[1.5, 2.0], [0.25, 3.0]], "BF16") for name in TOWER}
    moved = dict(tower, **{f"model.{TOWER[0]}": ([[1.5, 2.0], [0.25, 3.5]], "BF16")})
    bench.save("pre-multi", dict(renamed(bench.pre, change), **tower), config)
    bench.save("post-multi", dict(renamed(bench.post, change), **tower), config)
    bench.save("post-moved", dict(renamed(bench.post, change), **moved), config)
    results, done = bench.study("multi", "pre-multi", "post-multi", 2)
    check("multimodal: runs", done.returncode == 0, done.stderr)
    if results:
        bench.same("multi", results, change)
    check("multimodal: says what is outside", done.stderr.count("2 tensors are not part of the text model") == 1, done.stderr)
    both = dict(config, tie_word_embeddings=True, text_config=dict(config["text_config"], tie_word_embeddings=False))
    for side, model in (("pre", bench.pre), ("post", bench.post)):
        copy = dict(model, **{"lm_head.weight": model["model.embed_tokens.weight"]})
        bench.save(f"{side}-copy", dict(renamed(copy, change), **tower), both)
    _, done = bench.study("copy", "pre-copy", "post-copy", 2)
    check("multimodal: a copy of the head that the outer key ties", done.returncode == 0 and
          done.stderr.count("is a copy of the embedding") == 1, done.stderr)
    alone = {k: v for k, v in both.items() if k != "tie_word_embeddings"}  # transformers takes the default of the wrapper
    for side, model in (("pre", bench.pre), ("post", bench.post)):
        bare = {name: value for name, value in model.items() if name != "lm_head.weight"}
        bench.save(f"{side}-bare-head", dict(renamed(bare, change), **tower), alone)
    _, done = bench.study("bare-head", "pre-bare-head", "post-bare-head", 2)
    check("multimodal: no head, and no outer key: refused", done.returncode == 3 and
          "lm_head.weight is missing: write `tie_word_embeddings: true` in config.json" in done.stderr, done.stderr)
    _, done = bench.study("moved", "pre-multi", "post-moved", 3)
    check("a tower that moved: refused", done.returncode == 3 and "outside the text model" in done.stderr and
          "exclude" in done.stderr, done.stderr)
    results, done = bench.study("kept", "pre-multi", "post-moved", 1, more='select: {exclude: ["*vision_tower*"]}\n')
    check("the tower left out: runs", done.returncode == 0, done.stderr)
    if results:
        bench.same("kept", results, change)
        own = studies.load_model(bench.folder / "kept/models/expo")[f"model.{TOWER[0]}"]
        check("and stays as it is", own == studies.load_model(bench.folder / "post-moved")[f"model.{TOWER[0]}"])
    extra = dict(renamed(bench.post, change), **{"model.language_model.layers.7.mlp.up_proj.weight": ([[1.0]], "BF16")})
    bench.save("post-extra", extra, config)
    bench.save("pre-extra", extra, config)
    _, done = bench.study("extra", "pre-extra", "post-extra", 1)
    check("more layers than config.json says: refused", done.returncode == 3 and
          "layers.7.mlp.up_proj.weight is not part of this architecture" in done.stderr, done.stderr)


def copies(bench):
    """A head that the family ties, of which either model has a copy or none: one study."""
    config = {k: v for k, v in bench.config.items() if k not in ("tie_word_embeddings", "hidden_act")}
    config.update(architectures=["GemmaForCausalLM"], model_type="gemma", head_dim=4, hidden_activation="gelu_pytorch_tanh")
    table = "model.embed_tokens.weight"
    for side, model in (("pre", bench.pre), ("post", bench.post)):
        bare = {name: value for name, value in model.items() if name != "lm_head.weight"}
        bench.save(f"{side}-bare", bare, config)
        bench.save(f"{side}-head", dict(bare, **{"lm_head.weight": bare[table]}), config)
    bare, done = bench.study("bare", "pre-bare", "post-bare", 1)
    check("no copy: runs", done.returncode == 0 and bare["units"][0]["estimate"] != 0, done.stderr)
    for ranks, (pre, post) in enumerate((("head", "bare"), ("bare", "head"), ("head", "head")), 2):
        name = f"{pre}-{post}"
        results, done = bench.study(name, f"pre-{pre}", f"post-{post}", ranks)
        check(f"copy {name}: runs", done.returncode == 0, done.stderr)
        for unit, other in zip(results["units"] if results else [], bare["units"]):
            keys = ("estimate", "change", "loss_post", "loss_pre", "loss_edit")
            far = {key: (unit[key], other[key]) for key in keys if abs(unit[key] - other[key]) > 1e-6}
            terms = {part["module"]: part["integrated"] for part in unit["by_module"]}
            off = [abs(terms[part["module"]] - part["integrated"]) for part in other["by_module"]]
            check(f"copy {name} {unit['edit']}: losses, estimate and terms", not far and max(off) < 1e-6 and
                  terms.get("head", 0.0) == 0.0, (far, off))
            own, true = (studies.load_model(bench.folder / f"{study}/models/{unit['edit']}") for study in (name, "bare"))
            check(f"copy {name} {unit['edit']}: bytes", all(own[key] == value for key, value in true.items()) and
                  own.get("lm_head.weight", true[table]) == true[table] and ("lm_head.weight" in own) == (post == "head"))
    _, done = bench.study("stays", "pre-head", "post-head", 2, more=f"select: {{exclude: [{table}]}}\n")
    own, true = (studies.load_model(bench.folder / place) for place in ("stays/models/expo", "post-head"))
    check("copy of what is not selected: both stay", done.returncode == 0 and own["lm_head.weight"] == own[table] == true[table] and
          done.stderr.count("lm_head.weight is a copy of the embedding, to which the configuration ties it: it stays, as") == 1, done.stderr)


def main():
    """A bench, and everything on it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        bench = Bench(folder)
        wrapped(bench)
        told_apart(bench)
        mapped(bench)
        mapped_gradients(bench)
        multimodal(bench)
        copies(bench)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())
