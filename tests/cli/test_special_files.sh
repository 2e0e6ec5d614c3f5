#!/usr/bin/env bash
# seconds: 600
# A FIFO, a device, a socket or a folder in the place of a file that is read: every verb says so at once.
# Opening a FIFO waits for a writer, and reading /dev/zero never ends.
. "$(dirname "$0")/../support/tap.sh"
limit=20 parallel=4
good=$tap_root/good
$models llama "$good" && $DPT_MPIRUN -n 1 "$program" convert "$good/pre" "$good/pre.h5" 2>/dev/null ||
    echo "not ok - models could not be made" >>"$tap_lines"

job() { # job PRE DATA
    cat <<Y
models: {pre: $1, post: $good/post}
data: [{name: task, file: $2, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5}]
riemann: {rule: left, points: 2}
output: {directory: $tmp/out.d, checkpoint: none, report: false}
Y
}

put() { # put KIND PATH
    rm -rf "$2"
    case $1 in
    fifo) mkfifo "$2" ;;
    device) ln -s /dev/zero "$2" ;;
    socket) $python -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$2" ;;
    folder) mkdir "$2" ;;
    esac
}

refused() { # refused NAME CODES REGEX RANKS ARGUMENTS...: ends with one of the codes, and says why
    run_at "${@:4}"
    [[ " $2 " == *" $code "* ]] && { [[ $code -eq 0 ]] || grep -qE "deltapath: error:.*$3" "$tmp/err"; }
    ok "$1" $? "exit code $code, not of $2, or no line with $3"
}

at_model() { # at_model KIND FILE CODES: in a safetensors folder, for each verb that reads one
    local m=$tmp/model
    cp -r "$good/pre" "$m"
    [[ $2 == *index* ]] && mv "$m/model.safetensors" "$m/part.safetensors"
    put "$1" "$m/$2"
    job "$m" "$good/data.h5" >"$tmp/job.yaml"
    refused "$1 at $2: inspect" "$3" "$2" 1 inspect "$m"
    refused "$1 at $2: verify" "$3" "$2" 2 verify "$m"
    refused "$1 at $2: convert" "$3" "$2" 2 convert "$m" "$tmp/o.h5"
    refused "$1 at $2: diff" "$3" "$2" 1 diff "$m" "$good/post"
    refused "$1 at $2: run" "$3" "$2" 2 run "$tmp/job.yaml"
}

at_path() { # at_path KIND: in the place of what an argument or a key names
    local p=$tmp/place.h5
    put "$1" "$p"
    for verb in inspect verify; do refused "$1: $verb" 3 place.h5 1 $verb "$p"; done
    refused "$1: convert" 3 place.h5 2 convert "$p" "$tmp/o"
    refused "$1: diff" 3 place.h5 1 diff "$p" "$good/post"
    refused "$1: report" 3 place.h5 1 report "$p" -o "$tmp/r.html"
    refused "$1: job" 2 place.h5 2 run "$p"
    refused "$1: plan" 2 place.h5 1 plan "$p"
    job "$p" "$good/data.h5" >"$tmp/job.yaml"
    refused "$1: models.pre" 3 place.h5 2 run "$tmp/job.yaml"
    job "$good/pre" "$p" >"$tmp/job.yaml"
    refused "$1: data" 3 place.h5 2 run "$tmp/job.yaml"
}

# HDF5 follows links and reads values from other files; a FIFO there holds up whoever opens it.
cat >"$tap_root/lead_away.py" <<'P'
import os, sys, h5py, numpy as np
good, data, fifo, out = sys.argv[1:]
def make(name, source, change):
    with h5py.File(source) as a, h5py.File(f"{out}/{name}.h5", "w") as b:
        for key, value in a.attrs.items():
            b.attrs[key] = value
        for key in a:
            a.copy(key, b)
        change(b)
def external(key):
    def change(f):
        if key in f:
            del f[key]
        f[key] = h5py.ExternalLink(fifo, "/x")
    return change
def stored(f):
    n = f["loss_mask"].shape[0]
    del f["loss_mask"]
    f.create_dataset("loss_mask", (n,), "u1", external=[(fifo, 0, n)])
def virtual(f):
    n = f["loss_mask"].shape[0]
    del f["loss_mask"]
    layout = h5py.VirtualLayout((n,), "u1")
    layout[:] = h5py.VirtualSource(fifo, "x", (n,))
    f.create_virtual_dataset("loss_mask", layout)
make("data-link", data, external("tokens"))
make("data-weights", data, external("weights"))
make("data-stored", data, stored)
make("data-virtual", data, virtual)
make("model-group", good, external("tensors"))
make("model-tensor", good, external("tensors/lm_head.weight"))
make("model-companions", good, external("companions"))
P

leads_away() { # leads_away NAME
    if [[ $1 == data-* ]]; then
        job "$good/pre" "$tap_root/away/$1.h5" >"$tmp/job.yaml"
        refused "$1" 3 "is a link, or its values lie in another file" 2 run "$tmp/job.yaml"
    else
        refused "$1" 3 "soft or external link" 2 inspect "$tap_root/away/$1.h5"
    fi
}

mkdir "$tap_root/away" && mkfifo "$tap_root/away/fifo"
$python "$tap_root/lead_away.py" "$good/pre.h5" "$good/data.h5" "$tap_root/away/fifo" "$tap_root/away" ||
    echo "not ok - links could not be made" >>"$tap_lines"
for name in data-link data-weights data-stored data-virtual model-group model-tensor model-companions; do
    part leads_away $name
done

for kind in fifo device socket folder; do part at_path $kind; done
for kind in fifo device; do
    part at_model $kind model.safetensors 3
    part at_model $kind model.safetensors.index.json 3
    part at_model $kind config.json 3
    part at_model $kind deltapath.json 3
done
part at_model fifo tokenizer.json "0 3"
part at_model fifo deltapath-manifest.json "0 3"
done_testing
