"""What llama_golden.py, vit_golden.py and dpo_golden.py share: models in double, slopes, and the file's groups."""
import json
import pathlib
import sys
import tempfile

import h5py
import numpy as np
import torch

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))
import outputs  # noqa: E402


class _DoubleTorch:
    """The model codes name torch.float32 for norms and softmax; here that means double."""
    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def in_double(*modules) -> None:
    for module in modules:
        module.torch = _DoubleTorch()


def saved(model) -> tuple[str, dict]:
    """config.json as transformers saves it, and the name in the file of each parameter.

    Some models are saved under older names than their parameters have; the two are matched by
    their values, which are random and so differ between tensors.
    """
    from safetensors.torch import load_file
    with tempfile.TemporaryDirectory() as d:
        model.save_pretrained(d)
        config = json.loads((pathlib.Path(d) / "config.json").read_text())
        stored = load_file(pathlib.Path(d) / "model.safetensors")
    config["architectures"] = [type(model).__name__]
    names = {}
    for pname, p in model.named_parameters():
        same = [n for n, v in stored.items() if v.shape == p.shape and torch.equal(v, p)]
        assert len(same) == 1, f"{pname}: is stored as {same}"
        names[pname] = same[0]
    assert len(set(names.values())) == len(stored)
    return json.dumps(config, indent=2, sort_keys=True), names


def measure(params: dict, edit: dict, samples: list, sample_loss) -> dict:
    """loss, loss_edit, terms and grad of the mean loss; sample_loss(sample) is a scalar tensor.

    params and edit have the same keys.  Asserts that the terms are the slopes that finite
    differences see.
    """
    losses, terms, grad = [], [], {n: torch.zeros_like(p) for n, p in params.items()}
    for s in samples:
        for p in params.values():
            p.grad = None
        loss = sample_loss(s)
        assert loss.dtype == torch.float64
        loss.backward()
        losses.append(loss.item())
        terms.append([(p.grad * edit[n].double()).sum().item() for n, p in params.items()])
        for n, p in params.items():
            grad[n] += p.grad / len(samples)

    def losses_at(step: float) -> np.ndarray:
        """Losses at W_post + step E, leaving the weights as they were."""
        kept = {n: p.detach().clone() for n, p in params.items()}
        with torch.no_grad():
            for n, p in params.items():
                p += step * edit[n].double()
            values = [sample_loss(s).item() for s in samples]
            for n, p in params.items():
                p.copy_(kept[n])
        return np.array(values)

    h = 1e-3
    slope = (losses_at(h) - losses_at(-h)) / (2 * h)
    off = np.abs(slope - np.sum(terms, axis=1)).max()
    assert off < 1e-4 * np.abs(slope).max(), f"finite differences are off by {off}"
    return {"loss": np.array(losses), "loss_edit": losses_at(1.0), "terms": np.array(terms),
            "grad": grad}


def write_model(f: h5py.File, config: str, params: dict, edit: dict, names: dict,
                result: dict) -> None:
    """The part of a golden file that all kinds have, under the names of a checkpoint."""
    f.attrs["config"] = np.bytes_(config)
    for n, p in params.items():
        f[f"tensors/{names[n]}"] = p.detach().float().numpy()
        f[f"edit/{names[n]}"] = edit[n].numpy()
        f[f"grad/{names[n]}"] = result["grad"][n].float().numpy()
    for key in ("loss", "loss_edit", "terms"):
        f[key] = result[key]
    f["term_names"] = np.array([names[n] for n in params], dtype="S")


def say(name: str, path: pathlib.Path, params: dict, result: dict) -> None:
    print(f"{name}: {sum(p.numel() for p in params.values())} weights, "
          f"{path.stat().st_size} bytes, losses {np.round(result['loss'], 4)}, "
          f"edited {np.round(result['loss_edit'], 4)}")


def make_all(make_case, cases, folder: str, seed: int) -> None:
    """make_case(name, seed + i, where) for each case; where is the first argument of the program, or
    tests/golden/<folder>."""
    import transformers
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/golden" / folder
    outputs.check_new(out / f"{name}.h5" for name in cases)
    out.mkdir(parents=True, exist_ok=True)
    transformers.logging.disable_progress_bar()
    for i, name in enumerate(cases):
        make_case(name, seed + i, out)
