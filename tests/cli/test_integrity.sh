#!/usr/bin/env bash
# seconds: 600
# A finished edit and its model prove that they belong together; full disks leave nothing half written and end
# with code 4; damaged inputs are refused by run and convert; an input that changes while it is read ends the study.
. "$(dirname "$0")/../support/tap.sh"
parallel=2 limit=120
$models llama "$tap_root/m"
cat >"$tap_root/job.yaml" <<Y
models: {pre: $tap_root/m/pre, post: $tap_root/m/post}
data: [{name: task, file: $tap_root/m/data.h5, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5}]
riemann: {rule: midpoint, points: 1}
output: {directory: study, checkpoint: hdf5, report: false}
Y

verified() { # verified NAME: verify of the study finds nothing
    run_at 1 verify "$tmp/study"
    expect_exit "$1: verify" 0
    holds "$1: nothing half written" test -z "$(find "$tmp/study" -name '*.partial*')"
}

model_of() { [[ $1 == hdf5 ]] && echo "$tmp/study/models/dare.h5" || echo "$tmp/study/models/dare"; }

# The model of p = 0.6 is in place when the rank is killed; its unit is still that of p = 0.5. Whichever p
# the study goes on with, unit and model are of that one.
killed_between() { # killed_between FORMAT P: that of the last run
    local model
    model=$(model_of "$1")
    study_at 2 --set output.checkpoint="$1"
    expect_exit "$1, p=$2: first" 0
    cp -r "$model" "$tmp/first"
    DPT_FAULT=results.unit:0:1:kill study_at 2 --set output.checkpoint="$1" --set edits.0.p=0.6 --resume
    [[ $code -ne 0 && $code -ne 124 ]]
    ok "$1, p=$2: killed between model and unit" $? "exit code $code"
    holds "$1, p=$2: the model is that of the second run" bash -c "! cmp -s '$model' '$tmp/first' &&
        ! diff -rq '$model' '$tmp/first' >/dev/null"
    run_at 1 verify "$tmp/study"
    expect_error "$1, p=$2: verify tells that they do not belong together" 3 "models/dare"
    study_at 2 --set output.checkpoint="$1" --set edits.0.p="$2" --resume
    expect_exit "$1, p=$2: resumed" 0
    [[ $2 == 0.5 ]] && holds "$1, p=$2: the model is that of the first run" \
        $compare tensors "$model" "$tmp/first"
    verified "$1, p=$2"
    rm -rf "$tmp/study"
}

flipped_data() { # flipped_data BYTE
    cp share/demo/task.h5 "$tmp/task.h5"
    "$python" - "$tmp/task.h5" "$1" <<'P'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    byte = f.read(1)[0]
    f.seek(int(sys.argv[2]))
    f.write(bytes([byte ^ 4]))
P
}

# The tools end a data set with the SHA-256 of all of it; what HDF5 itself changes has no such line any more.
damaged_data() {
    local at size ranks
    size=$(stat -c %s share/demo/task.h5)
    for at in 0 900 $((size / 2)) $((size - 150)) $((size - 60)) $((size - 5)); do
        flipped_data "$at"
        ranks=$((1 + at % 3))
        run_at "$ranks" verify "$tmp/task.h5"
        expect_error "data with a flipped bit at $at: verify at $ranks" 3 "task.h5: .*(checksum|HDF5|not)"
    done
    flipped_data $((size / 2))
    study_at 2 --set "data=[{name: task, file: $tmp/task.h5, loss: lm}]" --set "models.post=$PWD/share/demo/llama-post" \
        --set "models.pre=$PWD/share/demo/llama-pre"
    expect_error "a study on damaged data" 3 "task.h5: its checksum does not match"
    cp share/demo/task.h5 "$tmp/task.h5"
    "$python" -c "import h5py, sys; h5py.File(sys.argv[1], 'r+')['weights'] = [1.0] * 192" "$tmp/task.h5"
    run_at 2 verify "$tmp/task.h5"
    expect_exit "data to which h5py added weights" 0
    for at in digits preference; do
        run_at 2 verify "share/demo/$at.h5"
        expect_exit "verify of $at" 0
    done
}

# A model in place that is cut off, or of another program, is not "finished".
not_finished() {
    study_at 1
    expect_exit "model in place: first" 0
    local model=$tmp/study/models/dare.h5
    cp "$model" "$tmp/whole"
    truncate -s -100 "$model"
    study_at 1 --resume
    holds "cut model: it is made again, or refused by name" bash -c "
        [[ $code == 0 ]] && cmp '$model' '$tmp/whole' || [[ $code == 4 ]] && grep -q models/dare.h5 '$tmp/err'"
    cp "$tmp/whole" "$model"
    verified "cut model"
    cp "$tap_root/m/data.h5" "$model"
    study_at 1 --resume
    [[ $code == 0 ]] && ok "a foreign file is no model of the study" 0 ||
        expect_error "a foreign file is no model of the study" 4 "models/dare.h5"
    cp "$tmp/whole" "$model"
    # A whole model of the right recipe and other bytes: not the one that the unit judges.
    local before
    before=$(stat -c %i "$model")
    study_at 1 --resume
    expect_exit "resume of a finished study" 0
    holds "resume of a finished study keeps the model" test "$before" = "$(stat -c %i "$model")"
}

# One bit of an input that carries hashes: run and convert name file and tensor, and leave nothing.
flip_tensor() { # flip_tensor MODEL.h5 | FOLDER: the highest bit of the last byte of a tensor
    $python - "$1" <<'P'
import sys, os, h5py
path = sys.argv[1]
if os.path.isdir(path):
    path += "/model.safetensors"
    at = os.path.getsize(path) - 1
else:
    with h5py.File(path, "r") as file:
        data = file["tensors/model.layers.1.mlp.up_proj.weight"]
        at = data.id.get_offset() + data.id.get_storage_size() - 1
with open(path, "r+b") as file:
    file.seek(at)
    byte = file.read(1)[0] ^ 1
    file.seek(at)
    file.write(bytes([byte]))
P
}

damaged_input() { # damaged_input pre|post NAME RANKS EDIT
    local model=$tmp/$2
    run_at 2 convert "$tap_root/m/$1" "$model"
    study_at 2 --set "models.$1=$model" --set output.directory="$tmp/sound" --set output.checkpoint=hdf5
    expect_exit "$1 $2 with hashes" 0
    flip_tensor "$model"
    study_at "$3" --set "models.$1=$model" --set output.checkpoint=hdf5 --set "edits=[$4]"
    expect_error "$1 $2 damaged: run" 3 "$2.*tensor .*XXH3"
    holds "$1 $2 damaged: run leaves nothing" test -z \
        "$(find "$tmp/study" -path '*/models/*' -o -path '*/units/*' -o -name 'results*')"
    local target
    run_at 2 run "$tap_root/job.yaml" --set "models.$1=$model" --set output.directory="$tmp/study" \
        --verify-inputs
    expect_error "$1 $2 damaged: run --verify-inputs" 3 "$2.*tensor .*XXH3"
    run_at 2 convert "$model" "$tmp/new" --verify-inputs
    expect_error "$1 $2 damaged: convert --verify-inputs" 3 "$2.*tensor .*XXH3"
    for target in new.h5 new; do
        run_at "$3" convert "$model" "$tmp/$target" --dtype f32
        expect_error "$1 $2 damaged: convert to $target" 3 "$2.*tensor .*XXH3"
        holds "$1 $2 damaged: convert leaves nothing" test -z "$(ls -d "$tmp/$target"* 2>/dev/null)"
    done
}

# A model that is written to while a study runs.
rewritten() { # rewritten FAULT: where the study waits meanwhile
    cp -r "$tap_root/m/post" "$tmp/post"
    (cd "$tmp" && DPT_FAULT=$1:stop exec "$program" run "$tap_root/job.yaml" --set models.post="$tmp/post" \
        >out 2>err </dev/null) &
    local run=$! waited=0
    ran="deltapath run (stopped at $1)"
    until [[ $(ps -o stat= -p "$run") == T* || waited -gt 600 ]]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    flip_tensor "$tmp/post"
    kill -CONT "$run"
    wait "$run"
    code=$?
    expect_error "rewritten in place at $1" 3 "post/model.safetensors: changed while it was read"
    holds "rewritten in place at $1: no results" test ! -e "$tmp/study/results.h5"
    [[ $1 == results.unit* ]] || holds "rewritten in place at $1: no unit" test -z \
        "$(ls "$tmp/study/units" 2>/dev/null)"
}

# A real file system with less and less room: whatever does not fit, the answer is one line and code 4.
full_disk() { # full_disk ROOM [KiB]
    mkdir "$tmp/study"
    if ! mount -t tmpfs -o size=1m none "$tmp/study" 2>/dev/null; then
        skip "full disk with $1 KiB left" "no right to mount"
        return
    fi
    head -c $(((1024 - $1) * 1024)) /dev/zero >"$tmp/study/ballast" 2>/dev/null
    study_at 2 --set output.checkpoint=none --set 'data.0.name=task'
    if [[ $code -ne 0 ]]; then
        expect_error "full disk with $1 KiB left" 4 "study.*space"
        holds "full disk with $1 KiB left: nothing half written" test -z \
            "$(find "$tmp/study" -name '*.partial*')"
    fi
    echo "$code" >"$tap_root/full.$1"
    rm "$tmp/study/ballast"
    study_at 2 --set output.checkpoint=none --resume
    expect_exit "full disk with $1 KiB left: resumed with room" 0
    verified "full disk with $1 KiB left: resumed"
    umount -l "$tmp/study"
}

# Nothing is made, removed or changed in the folders of inputs.
inputs_untouched() {
    $python - "$program" "$tap_root" "$tmp" <<'P' >"$tmp/events" 2>&1
import ctypes, os, struct, subprocess, sys
program, root, tmp = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
watch = libc.inotify_init1(os.O_NONBLOCK)
MODIFY, ATTRIB, CLOSE_WRITE, MOVED, CREATE, DELETE = 2, 4, 8, 0xC0, 0x100, 0x200
for folder in ("m", "m/pre", "m/post"):
    assert libc.inotify_add_watch(watch, f"{root}/{folder}".encode(),
                                  MODIFY | ATTRIB | CLOSE_WRITE | MOVED | CREATE | DELETE) > 0
def launch(*arguments):
    launcher = os.environ["DPT_MPIRUN"].split()
    subprocess.run([*launcher, "-n", "2", program, *arguments], cwd=tmp, check=True, timeout=120)
launch("run", f"{root}/job.yaml")
launch("convert", f"{root}/m/post", f"{tmp}/copy.h5")
launch("verify", f"{root}/m/post")
launch("diff", f"{root}/m/pre", f"{root}/m/post")
try:
    events = os.read(watch, 1 << 16)
except BlockingIOError:
    events = b""
at = 0
while at < len(events):
    _, mask, _, n = struct.unpack_from("iIII", events, at)
    print(f"event {mask:#x} of", events[at + 16:at + 16 + n].rstrip(b"\0").decode())
    at += 16 + n
open(f"{root}/m/pre/marker", "w").close() # the watch works
print("seen" if b"marker" in os.read(watch, 1 << 16) else "blind")
os.remove(f"{root}/m/pre/marker")
P
    holds "input folders: no event" test "$(grep -vE '^(seen)$' "$tmp/events" | grep -cE 'event|blind|Error')" = 0
    holds "input folders: the watch works" grep -qx seen "$tmp/events"
}

inputs_untouched
part killed_between hdf5 0.5
part killed_between hdf5 0.6
part killed_between safetensors 0.5
part not_finished
part damaged_data
part damaged_input post hashed.h5 1 '{name: dare, method: dare, p: 0.5}'
part damaged_input pre hashed 3 '{name: dare, method: dare, p: 0.5}'
part damaged_input pre hashed.h5 2 '{name: twin, method: lowrank, rank: 2}'
part rewritten loss.evaluate:0:3
part rewritten results.unit:0:1
configured() { # a checkpoint whose tensors are sound and whose configuration is not
    local text
    run_at 2 convert "$tap_root/m/post" "$tmp/model.h5"
    for text in '{"a": ' '[1]' '{"a": 1, "a": 2}'; do
        $python -c '
import sys, h5py
with h5py.File(sys.argv[1], "r+") as file:
    file.attrs["config"] = sys.argv[2]
    file.attrs.pop("sealed", None)' "$tmp/model.h5" "$text"
        run_at 2 verify "$tmp/model.h5"
        expect_error "configuration $text: verify" 3 "model.h5: its configuration is no JSON object"
    done
}
part configured
for room in 0 8 24 48 72 96 120; do part full_disk "$room"; done
wait
holds "some levels are too full" grep -qx 4 "$tap_root"/full.*
done_testing
