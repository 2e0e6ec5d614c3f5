#!/usr/bin/env bash
# slow.sh FOLDER PROGRAM ARGUMENTS...: run a program under Slurm, in the first start of its job at a tenth
# of its speed once there is a file in a folder: an edit of seconds then takes longer than the shortest
# time limit. Later starts note in FOLDER/../../kept what they find in the folder.
if [[ ${SLURM_RESTART_COUNT:-0} -gt 0 ]]; then
    ls "$1" >"$1/../../kept"
    exec "${@:2}"
fi
"${@:2}" &
program=$!
trap : USR1 TERM # the program gets them too
until compgen -G "$1/*" >/dev/null || ! kill -0 "$program" 2>/dev/null; do sleep 0.2; done
while kill -STOP "$program" 2>/dev/null; do
    sleep 0.9
    kill -CONT "$program" 2>/dev/null
    sleep 0.1
done
wait "$program"
