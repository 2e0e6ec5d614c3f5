#!/usr/bin/env bash
# seconds: 60
# Every job file of jobs/paper is valid on the shipped models, and tools/paper.sh knows its figure; what it changes of
# jobs/allocation.yaml is valid on each pair. Every study of tools/paper-real.sh is valid on a shipped decoder in place of the real one.
. "$(dirname "$0")/../support/tap.sh"
for job in jobs/paper/*.yaml; do
    figure=$(basename "$job" .yaml)
    run_at 1 plan "$job" --set "output.directory=$tmp/$figure" # whatever lies in out/paper
    expect_exit "plan of $figure" 0
    holds "tools/paper.sh runs $figure" grep -qE "[( ]$figure-" tools/paper.sh
done

tree=$tmp/tree
mkdir -p "$tree/tools/real"
cp tools/paper.sh tools/paper-real.sh tools/mpi-env.sh "$tree/tools"
ln -s "$PWD/tools/paper" "$tree/tools"
ln -s "$PWD/jobs" "$PWD/share" "$tree"
printf '#!/bin/sh\n' >"$tree/tools/real/prepare.sh"
cat >"$tree/plan" <<END
#!/usr/bin/env bash
# What run is asked for, planned on other models and data.
args=() demo=share/demo
for arg in "\${@:2}"; do
    [[ \$arg == --resume ]] && continue
    arg=\${arg//build\/real\/pre/\$demo\/llama-pre}
    arg=\$(sed 's|build/real/[a-z]*|share/demo/llama-post|; s|share/real/place.h5|share/demo/task.h5|g' <<<"\$arg")
    args+=("\$(sed 's|share/real/pair.h5|share/demo/reverse.h5|; s|share/real/text.h5|share/demo/text.h5|' <<<"\$arg")")
done
exec $program plan "\${args[@]}" --set "allow=[other-tokenizer]"
END
chmod +x "$tree/plan" "$tree/tools/real/prepare.sh"
timeout $((limit * patience)) "$tree/tools/paper.sh" "$tree/plan" 1 allocation >"$tmp/out" 2>"$tmp/err"
[[ $(grep -c '^allocation-\(llama\|qwen\|vit\): done (' "$tmp/out") -eq 3 &&
    $(grep -l 'samples that only choose' "$tree"/out/paper/*.log | wc -l) -eq 3 ]]
ok "a value for each tensor is asked for on each shipped pair" $? "$(grep -v ': done (' "$tmp/out" | head -n 1)"
for quick in "" 1; do
    QUICK=$quick timeout $((5 * limit * patience)) "$tree/tools/paper-real.sh" "$tree/plan" 1 >"$tmp/out" 2>"$tmp/err"
    listed=$(sed -n '/^studies=(/,/)/p' tools/paper-real.sh | tr -cs 'a-z0-9\n-' '[\n*]' | grep -c -- -smollm2-)
    [[ $listed -gt 10 && $(grep -c ': done (' "$tmp/out") -eq $listed ]]
    ok "the $listed studies on the real decoder are valid${quick:+, some edits of each}" $? "$(grep -v ': done (' "$tmp/out" | head -n 1)"
done
done_testing
