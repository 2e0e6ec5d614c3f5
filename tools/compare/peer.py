#!/usr/bin/env python3
"""The PyTorch side of tools/compare/run.py: a LLaMA as plain modules, passes over it, and a study of two edits.

    peer.py passes FROM TO    one pass a line of standard input, as tests/bench/bench_pass.c has it
    peer.py study PRE POST SEQUENCES TOKENS

Needs torch and safetensors. Written as one writes it for speed: attention by scaled_dot_product_attention, weights W(t) put
into the parameters once a pass, W_post and E in fp32 kept next to them, one backward pass for the mean loss, terms as dot
products, logits of the scored tokens alone. With bf16 the parameters, activations and gradients are bf16, so W(t) is
rounded; the loss and the terms are in fp32."""
import json
import pathlib
import sys
import time

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

PLACE = 0.4     # of a pass
ALPHA = -0.3    # of the study's EXPO
POINTS = 5
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def turned(x, cos, sin):
    """Rotary embedding of (batch, heads, tokens, width)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Norm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config["hidden_size"]))
        self.eps = config["rms_norm_eps"]

    def forward(self, x):
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, self.heads = config["hidden_size"], config["num_attention_heads"]
        self.groups = config.get("num_key_value_heads", self.heads)
        self.head = config.get("head_dim") or width // self.heads
        self.q_proj = nn.Linear(width, self.heads * self.head, bias=False)
        self.k_proj = nn.Linear(width, self.groups * self.head, bias=False)
        self.v_proj = nn.Linear(width, self.groups * self.head, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head, width, bias=False)

    def forward(self, x, cos, sin):
        batch, tokens, _ = x.shape
        q = self.q_proj(x).view(batch, tokens, self.heads, self.head).transpose(1, 2)
        k = self.k_proj(x).view(batch, tokens, self.groups, self.head).transpose(1, 2)
        v = self.v_proj(x).view(batch, tokens, self.groups, self.head).transpose(1, 2)
        y = functional.scaled_dot_product_attention(turned(q, cos, sin), turned(k, cos, sin), v, is_causal=True,
                                                    enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, tokens, -1))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, units = config["hidden_size"], config["intermediate_size"]
        self.gate_proj = nn.Linear(width, units, bias=False)
        self.up_proj = nn.Linear(width, units, bias=False)
        self.down_proj = nn.Linear(units, width, bias=False)

    def forward(self, x):
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(config), Norm(config)
        self.self_attn, self.mlp = Attention(config), Mlp(config)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Parameters by the names of the files; the loss of sequences of one length, the mean over their scored tokens."""

    def __init__(self, config):
        super().__init__()
        if config["model_type"] != "llama" or not config.get("tie_word_embeddings") or config.get("rope_scaling"):
            sys.exit("peer.py: it is written for LLaMA with a tied head and without scaled rotation")
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.model.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.model.norm = Norm(config)
        self.theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
        self.tables = {}

    def rotary(self, tokens, kind):
        if (tokens, kind) not in self.tables:
            half = self.model.layers[0].self_attn.head // 2
            angles = torch.outer(torch.arange(tokens).float(), self.theta ** (-torch.arange(half).float() / half))
            self.tables[tokens, kind] = angles.cos().to(kind), angles.sin().to(kind)
        return self.tables[tokens, kind]

    def forward(self, tokens):
        x = self.model.embed_tokens(tokens)
        cos, sin = self.rotary(tokens.shape[1], x.dtype)
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        x = self.model.norm(x[:, :-1]).flatten(0, 1)
        logits = functional.linear(x, self.model.embed_tokens.weight)
        return functional.cross_entropy(logits.float(), tokens[:, 1:].flatten())


def weights(folder):
    """A model as it is stored, without the copy of a tied head."""
    out = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        out.update(load_file(file))
    out.pop("lm_head.weight", None)
    return out


def shaped(folder, kind):
    """The model of a folder, without its values."""
    with torch.device("meta"):
        model = Llama(json.loads((pathlib.Path(folder) / "config.json").read_text()))
    return model.to(kind).to_empty(device="cpu")


class Path:
    """W(t) = W_post + t E, its slopes and losses."""

    def __init__(self, folder, post, kind):
        self.model = shaped(folder, kind)
        self.post, self.edit = post, {}
        if set(post) != set(dict(self.model.named_parameters())):
            sys.exit("peer.py: these weights are not of this configuration")

    def move(self, t):
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                post, edit = self.post[name], self.edit.get(name)
                if edit is None or t == 0.0:
                    value.copy_(post)
                elif value.dtype == torch.float32:
                    torch.add(post, edit, alpha=t, out=value)
                else:
                    value.copy_(torch.add(post, edit, alpha=t))

    def slopes(self, tokens):
        """@return the loss; the gradient is in the parameters."""
        self.model.zero_grad(set_to_none=True)
        loss = self.model(tokens)
        loss.backward()
        return loss.item()

    def loss(self, tokens):
        with torch.no_grad():
            return self.model(tokens).item()

    def gradient(self):
        return {name: value.grad for name, value in self.model.named_parameters()}

    def terms(self, gradient):
        return {name: torch.dot(gradient[name].float().view(-1), edit.view(-1)).item()
                for name, edit in self.edit.items()}


def made_tokens(sequences, length, vocabulary):
    return torch.tensor([i * 2654435761 % vocabulary for i in range(sequences * length)]).view(sequences, length)


def passes(start, end):
    post = {name: value.float() for name, value in weights(start).items()}
    edit = {name: value.float() - post[name] for name, value in weights(end).items()}
    paths = {}
    for line in sys.stdin:
        sequences, length, precision = line.split()
        if precision not in paths:
            paths.clear()
            paths[precision] = Path(start, post, torch.bfloat16 if precision == "bf16" else torch.float32)
            paths[precision].edit = edit
        path = paths[precision]
        tokens = made_tokens(int(sequences), int(length), path.model.model.embed_tokens.num_embeddings)
        began, used = time.monotonic(), time.process_time()
        path.move(PLACE)
        loss = path.slopes(tokens)
        terms = path.terms(path.gradient())
        print(f"{time.monotonic() - began:.6f} {loss:.9g} {sum(terms.values()):.9g} {time.process_time() - used:.6f}",
              flush=True)


def bitdelta(pre, post, name):
    """The mean magnitude of a linear weight's delta times its sign; other tensors stay as they are in W_post."""
    if name.split(".")[-2] not in LINEAR:
        return None
    delta = post - pre
    return pre + delta.abs().mean(dtype=torch.float64).float() * delta.sign()


def expo(pre, post, name):
    return pre + (1.0 + ALPHA) * (post - pre)


def study(pre_folder, post_folder, sequences, length):
    began = time.monotonic()
    post = {name: value.float() for name, value in weights(post_folder).items()}
    path = Path(post_folder, post, torch.float32)
    tokens = made_tokens(sequences, length, path.model.model.embed_tokens.num_embeddings)
    path.move(0.0)
    loss_post = path.slopes(tokens)
    start = path.gradient()  # of the mean loss at t = 0: the same for all edits
    path.edit = {name: value.float() - post[name] for name, value in weights(pre_folder).items()}
    path.move(1.0)
    result = {"loss_post": loss_post, "loss_pre": path.loss(tokens), "edits": {}}
    for method in (bitdelta, expo):
        path.edit = {}
        for name, value in weights(pre_folder).items():
            edited = method(value.float(), post[name], name)
            if edited is not None:  # the edited model is stored in the type of the files
                path.edit[name] = edited.to(value.dtype).float() - post[name]
        sums = [sum(path.terms(start).values())]
        for point in range(1, POINTS):
            path.move(point / POINTS)
            path.slopes(tokens)
            sums.append(sum(path.terms(path.gradient()).values()))
        path.model.zero_grad(set_to_none=True)
        path.move(1.0)
        result["edits"][method.__name__] = {"loss": path.loss(tokens), "estimate": sum(sums) / POINTS}
    result["seconds"] = time.monotonic() - began
    print(json.dumps(result))


def main():
    torch.set_num_threads(2)
    if sys.argv[1] == "passes":
        passes(*sys.argv[2:4])
    else:
        study(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))


if __name__ == "__main__":
    main()
