#!/usr/bin/env bash
# seconds: 120
# A disk that loses what it has taken: writes go to the disk while the next cells are edited, so the error comes after
# they returned. The file of a disk image lies where there is no room for it.
. "$(dirname "$0")/../support/tap.sh"

loop=
drop_disk() {
    umount "$tmp/disk" 2>/dev/null
    [[ -n $loop ]] && losetup -d "$loop" 2>/dev/null
    umount "$tmp/small" 2>/dev/null
    loop=
}
trap 'drop_disk; rm -rf "$tap_root"' EXIT

make_disk() { # 200 MB of which 40 can be kept
    mkdir -p "$tmp/small" "$tmp/disk" && mount -t tmpfs -o size=40m none "$tmp/small" &&
        truncate -s 200M "$tmp/small/image" && mkfs.ext4 -q -O ^has_journal "$tmp/small/image" &&
        loop=$(losetup -f --show "$tmp/small/image") && mount "$loop" "$tmp/disk"
}

lost() { # lost NAME RANKS: what the disk loses is an error that names the file
    make_disk 2>"$tmp/err"
    ok "$2 ranks, $1: the disk" $?
    run_at "$2" convert "$tmp/pair/post" "$tmp/disk/$1"
    expect_error "$2 ranks, $1: what the disk loses is told" 4 \
        "disk/$1.partial-deltapath.*tensor .*(could not be written|failed)"
    holds "$2 ranks, $1: nothing stays" test ! -e "$tmp/disk/$1" -a ! -e "$tmp/disk/$1.partial-deltapath"
    drop_disk
}

if [[ -n ${DPT_TEST_NO_MOUNT:-} ]] || ! make_disk 2>/dev/null; then
    skip "a disk that loses what was written" "no right to mount"
    done_testing
fi
drop_disk
run_at 1 synthetic share/shapes/smollm2-135m.json "$tmp/pair" --set num_hidden_layers=2
lost model 1
lost model 2
lost model.h5 3
done_testing
