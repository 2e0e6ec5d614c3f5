#!/usr/bin/env bash
# seconds: 600
# No verb loses a file of the user: inputs are never outputs, by whatever spelling or link, and only files
# that the program wrote are replaced or removed. Every case compares the whole tree before and after.
. "$(dirname "$0")/../support/tap.sh"
parallel=3 limit=90
$models llama "$tap_root/m"
run_at 1 convert "$tap_root/m/pre" "$tap_root/m/pre.h5"
run_at 1 convert "$tap_root/m/post" "$tap_root/m/post.h5"
cat >"$tap_root/job.yaml" <<Y
name: mine
models: {pre: $tap_root/m/pre, post: $tap_root/m/post}
data: [{name: task, file: $tap_root/m/data.h5, loss: lm, samples: 2}]
edits: [{name: dare, method: dare, p: 0.5, seed: [1, 2]}]
riemann: {rule: left, points: 1}
output: {directory: nowhere, checkpoint: safetensors}
Y

tree() { # tree FOLDER: all that is in it, with what the files hold
    (cd "$1" && find . -printf '%y %p %l\n' | sort && find . -type f -print0 | sort -z | xargs -0r sha256sum)
}

job() { # job RANKS ARGUMENTS...: the job, its output in $tmp/w/o
    run_at "$1" run "$tap_root/job.yaml" --set "output.directory=$tmp/w/o" "${@:2}"
}

refused() { # refused NAME REGEX FUNCTION ARGUMENTS...: 4, one line that matches, nothing changed
    local name=$1 regex=$2 before
    shift 2
    before=$(tree "$tmp/w")
    "$@"
    expect_error "$name: refused" 4 "$regex"
    holds "$name: nothing changed" test "$before" = "$(tree "$tmp/w")"
}

refused_usage() { # refused_usage NAME FUNCTION ARGUMENTS...: 2, nothing changed
    local name=$1 before
    shift
    before=$(tree "$tmp/w")
    "$@"
    expect_error "$name: refused" 2 "give "
    holds "$name: nothing changed" test "$before" = "$(tree "$tmp/w")"
}

fresh() { # a folder of the user with copies of the inputs, and a finished study
    rm -rf "$tmp/w"
    mkdir -p "$tmp/w"
    cp -r "$tap_root/m" "$tmp/w/m"
    [[ ${1:-} == study ]] && cp -r "$tap_root/o" "$tmp/w/o"
    return 0
}

mkdir -p "$tap_root/w"
job 2
expect_exit "the study" 0
mv "$tap_root/w/o" "$tap_root/o"

inputs_in_the_directory() { # models at proj/models, as the directory of the study names its own
    local format ending
    for format in safetensors hdf5; do
        ending=; [[ $format == hdf5 ]] && ending=.h5
        rm -rf "$tmp/w" && mkdir -p "$tmp/w/o/models" "$tmp/w/o/references" "$tmp/w/o/units"
        cp -r "$tap_root/m/pre$ending" "$tap_root/m/post$ending" "$tmp/w/o/models"
        cp "$tap_root/m/data.h5" "$tmp/w/o/references/data.h5"
        echo mine >"$tmp/w/o/units/notes.txt"
        local sets=(--set "models.pre=$tmp/w/o/models/pre$ending"
            --set "models.post=$tmp/w/o/models/post$ending" --set "output.checkpoint=$format"
            --set "data.0.file=$tmp/w/o/references/data.h5")
        local before after
        before=$(tree "$tmp/w" | grep -E '^[0-9a-f]{64}')
        job 2 "${sets[@]}" --set output.overwrite=true
        expect_exit "$format: inputs inside the directory may be read" 0
        after=$(tree "$tmp/w" | grep -E '^[0-9a-f]{64}')
        holds "$format: they stay" test -z "$(comm -23 <(sort <<<"$before") <(sort <<<"$after"))"
        refused "$format: inputs among the outputs, overwrite" \
            "o/(models/p|references/data|units/notes)" job 1 "${sets[@]}" --set output.overwrite=true
        refused "$format: an edit named as an input" "models/post.*input" job 2 "${sets[@]}" --resume \
            --set 'edits=[{name: post, method: dare, p: 0.5}]'
        refused "$format: the same by a fresh run" "models/post.*input" job 1 "${sets[@]}" \
            --set 'edits=[{name: post, method: dare, p: 0.5}]' --set output.overwrite=true
    done
}

directory_is_a_model() {
    fresh
    local sets=(--set "models.post=$tmp/w/m/post" --set "models.pre=$tmp/w/m/pre")
    refused "the directory is the model's folder" "m/post.*input" job 2 "${sets[@]}" \
        --set "output.directory=$tmp/w/m/post"
    refused "the directory is in the model's folder" "m/post.*input" job 1 "${sets[@]}" \
        --set "output.directory=$tmp/w/m/post/a/b"
    ln -s m/post "$tmp/w/link"
    refused "the directory is a link to the model" "link.*input" job 1 "${sets[@]}" \
        --set "output.directory=$tmp/w/link/" --set output.overwrite=true
    mkdir "$tmp/w/o" && ln -s ../m "$tmp/w/o/models"
    refused "models/ is a link to the folder of the inputs" "models/post.*input" job 1 "${sets[@]}" \
        --set 'edits=[{name: post, method: dare, p: 0.5}]' --set output.overwrite=true
}

files_in_the_way() {
    local flag
    for flag in --resume --set=output.overwrite=true; do
        fresh
        mkdir -p "$tmp/w/o" && cp "$tap_root/m/data.h5" "$tmp/w/o/results.h5"
        refused "$flag: a data set at results.h5" "o/results.h5.*input" job 2 "$flag" \
            --set "data.0.file=$tmp/w/o/results.h5"
        refused "$flag: the same by another path" "o/results.h5" job 1 "$flag" \
            --set "data.0.file=$tmp/w/o/../o//results.h5"
        refused "$flag: a foreign results.h5" "o/results.h5.*results file" job 1 "$flag"
        rm "$tmp/w/o/results.h5" && cp "$tap_root/job.yaml" "$tmp/w/o/summary.csv"
        refused "$flag: the job at summary.csv" "o/summary.csv.*input" \
            run_at 2 run "$tmp/w/o/summary.csv" --set "output.directory=$tmp/w/o" "$flag"
        rm "$tmp/w/o/summary.csv" && mkdir "$tmp/w/o/references" && cp "$tap_root/m/pairs.h5" "$tmp/w/o/references/pref.h5"
        refused "$flag: preferences in references/" "references/pref.h5.*input" job 2 "$flag" --set \
            "data=[{name: pref, file: $tmp/w/o/references/pref.h5, loss: dpo, reference: $tap_root/m/pre}]"
    done
    local name
    for name in summary.csv seeds.csv results.json report.html manifest.json units/dare-seed1@task.h5 \
        models/dare-seed1; do
        rm -rf "$tmp/w/o" && mkdir -p "$tmp/w/o/units" "$tmp/w/o/models"
        echo mine >"$tmp/w/o/$name"
        refused "a user's $name" "o/$name" job 1
    done
}

foreign_in_a_study() { # nothing is removed when something is not ours
    local name
    for name in units/notes.txt models/notes.md models/dare-seed1/modelling_mine.py \
        models/dare-seed2/README.md models/mine/config.json references/mine.h5; do
        fresh study
        mkdir -p "$(dirname "$tmp/w/o/$name")" && echo mine >"$tmp/w/o/$name"
        refused "overwrite with $name" "o/$(dirname "$name")" job 1 --set output.overwrite=true
    done
    for name in summary.csv results.json seeds.csv models/dare-seed1/config.json \
        models/dare-seed2/tokenizer.json; do
        fresh study
        echo " " >>"$tmp/w/o/$name"
        refused "overwrite with a changed $name" "o/$name" job 1 --set output.overwrite=true
    done
    fresh study
    cp "$tmp/w/m/data.h5" "$tmp/w/o/units/data.h5"
    run_at 2 verify "$tmp/w/o"
    expect_error "verify with a foreign file in units/" 3 "units/data.h5: is no unit.*move it away"
    fresh study
    refused "overwrite of another study" "results.h5.*'mine'.*'other'|manifest.*'mine'" \
        job 2 --set output.overwrite=true --set name=other
    refused "resume of another study" "'mine'.*'other'" job 1 --resume --set name=other
    rm "$tmp/w/o/summary.csv" && ln -s ../m/data.h5 "$tmp/w/o/summary.csv"
    refused "summary.csv is a link" "o/summary.csv.*link" job 1 --resume
    rm "$tmp/w/o/summary.csv" && mkfifo "$tmp/w/o/summary.csv"
    refused "summary.csv is a pipe" "o/summary.csv.*pipe" job 1 --resume
    fresh study
    echo mine >"$tmp/w/o/notes.txt" && echo mine >"$tmp/w/o/summary.csv.partial"
    echo mine >"$tmp/w/o/models.old"
    job 2 --set output.overwrite=true
    expect_exit "overwrite next to other files" 0
    holds "other files stay" test "$(cat "$tmp"/w/o/{notes.txt,summary.csv.partial,models.old})" = \
        "$(printf 'mine\nmine\nmine')"
}

converts() {
    local src dst ending
    for ending in '' .h5; do
        fresh
        cd "$tmp/w" || return
        src=m/post$ending
        refused "convert $src onto itself" "post$ending.*input" run_at 2 convert $src $src --overwrite
        refused "convert onto itself by .." "input" run_at 1 convert $src "m/../m/post$ending" --overwrite
        ln -s "post$ending" "m/link$ending"
        refused "convert onto a link to itself" "link$ending" run_at 1 convert $src "m/link$ending" --overwrite
    done
    refused "convert into its source" "m/post" run_at 2 convert m/post m/post/copy.h5 --overwrite
    refused "convert around its source" "m: holds" run_at 1 convert m/post m --overwrite
    refused "convert of one file around it" "m/post" \
        run_at 1 convert m/post/model.safetensors m/post --overwrite
    ln m/post.h5 hard.h5
    refused "convert onto a hard link" "hard.h5.*input" run_at 1 convert m/post.h5 hard.h5 --overwrite
    refused "convert over a model of others" "m/pre" run_at 2 convert m/post m/pre --overwrite
    mkdir docs && echo mine >docs/README.md && echo mine >docs/model.gguf
    refused "convert over a folder of others" "docs" run_at 1 convert m/post docs --overwrite
    echo mine >notes.h5
    refused "convert over a file of others" "notes.h5" run_at 1 convert m/post notes.h5 --overwrite
    run_at 2 convert m/post.h5 made
    for dst in README.md modeling_mine.py pytorch_model.bin model.gguf model-00001-of-00002.safetensors; do
        echo mine >"made/$dst"
        refused "convert over a model with $dst" "made/$dst" run_at 1 convert m/post made --overwrite
        rm "made/$dst"
    done
    mkdir made.partial made.old && echo mine >made.partial/notes && echo mine >made.old/notes
    run_at 2 convert m/post made --overwrite
    expect_exit "convert over a model of its own" 0
    holds "folders next to it stay" test "$(cat made.partial/notes made.old/notes)" = "$(printf 'mine\nmine')"
}

tables_and_reports() {
    local results=o/results.h5 overwrite
    fresh study
    cd "$tmp/w" || return
    refused "diff --csv onto a model" "m/post.h5.*input" run_at 2 diff m/pre.h5 m/post.h5 --csv m/post.h5
    refused "diff --csv into a model" "m/post.*input" run_at 1 diff m/pre m/post --csv m/post/d.csv
    refused "diff --csv onto a folder" "m/post.*input" run_at 1 diff m/pre m/post --csv m/post
    refused "diff --csv onto another file" "m/data.h5.*table" run_at 1 diff m/pre m/post --csv m/data.h5
    mkfifo pipe # not a device: a program that fails here would replace it for the whole machine
    refused "diff --csv onto a pipe" "pipe: is a device, pipe" run_at 1 diff m/pre m/post --csv pipe
    refused "report -o onto its results" "results.h5.*input" run_at 2 report $results -o $results
    cp "$tap_root/job.yaml" job.yaml
    refused "report -o onto a job" "job.yaml.*report" run_at 1 report $results -o job.yaml
    ln $results hard.html && ln -s $results soft.html
    refused "report -o onto a hard link" "hard.html.*input" run_at 1 report $results -o hard.html
    refused "report -o onto a link" "soft.html.*input" run_at 1 report $results -o soft.html
    run_at 1 report $results -o edited.html && sed -i 's/<title>/<title>MINE /' edited.html
    refused "report -o onto a report that was changed" "edited.html: was changed" \
        run_at 1 report $results -o edited.html
    job 1 --set name=other --set output.directory="$tmp/w/other"
    refused "report -o into another study" "other/report.html: belongs to the study 'other'" \
        run_at 2 report $results -o other/report.html
    job 1 --set output.directory="$tmp/w/same" --set output.checkpoint=none --set edits.0.p=0.7
    refused "report -o of other results of that name" "o/report.html: .*not same/results.h5" \
        run_at 1 report same/results.h5 -o o/report.html
    refused "report -o into a model" "m/post/x.html: lies in the folder of a model" \
        run_at 2 report $results -o m/post/x.html
    refused "report --csv-dir into a model" "m/post: lies in the folder of a model" \
        run_at 1 report $results -o new.html --csv-dir m/post
    refused "diff --csv among units" "o/units/d.csv: lies among the files of a study" \
        run_at 2 diff m/pre m/post --csv o/units/d.csv
    refused "convert onto a study's edited model" "o/models/a: lies among the files of a study" \
        run_at 2 convert m/post o/models/a --overwrite
    cp -r o/models/dare-seed1 collected
    refused "convert over an edited model that was put elsewhere" "collected: is no converted model" \
        run_at 2 convert m/post collected --overwrite
    rm -r collected
    refused_usage "report -o nothing" run_at 1 report $results -o ''
    refused_usage "diff --csv nothing" run_at 1 diff m/pre m/post --csv ''
    refused_usage "convert to nothing" run_at 2 convert m/pre ''
    mkdir csv && echo mine >csv/changes-task.csv
    refused "report --csv-dir over another table" "csv/changes-task.csv" \
        run_at 1 report $results -o new.html --csv-dir csv
    rm csv/*
    for overwrite in '' --overwrite; do
        run_at 1 report $results -o again.html --csv-dir csv $overwrite
        expect_exit "report over its own" 0
        run_at 1 diff m/pre m/post --csv d.csv $overwrite
        expect_exit "diff over its own" 0
    done
    echo "a remark" | tee -a d.csv >>csv/changes-task.csv # nothing in them tells that they were changed
    refused "diff --csv onto a table" "d.csv: exists already.*--overwrite" run_at 2 diff m/pre m/post --csv d.csv
    refused "report --csv-dir onto tables" "csv/changes-task.csv: exists already.*--overwrite" \
        run_at 1 report $results -o again.html --csv-dir csv
    echo mine | tee d.csv >csv/changes-task.csv
    refused "diff --overwrite over another table" "d.csv: is no table of diff" \
        run_at 2 diff m/pre m/post --csv d.csv --overwrite
    refused "report --overwrite over another table" "csv/changes-task.csv: is no table of a plot" \
        run_at 1 report $results -o again.html --csv-dir csv --overwrite
}

below_others() { # at no depth below the folder of a model or among the files of a study, links followed
    local results=o/results.h5 place
    fresh study
    cd "$tmp/w" || return
    cp -r m/post other # a model that is no input
    cp -r o killed && rm killed/{manifest.json,results.*,*.csv,report.html}
    ln -s ../o/units m/link
    local lies="lies (among the files of a study|in the folder of a model)"
    for place in o/models o/models/dare-seed1 m/link/a; do
        refused "join -o $place" "$place: $lies" run_at 1 join o -o $place
    done
    for place in o/references killed/units/a new/../o/models other other/a/b; do
        refused "run into $place" "$place: $lies" job 1 --set "output.directory=$tmp/w/$place"
    done
    mkdir -p other/a/b
    for place in other/x.h5 other/a/b/x o/models/dare-seed1/x.h5 o/progress; do
        refused "convert to $place" "$place: $lies" run_at 1 convert m/pre $place
    done
    refused "diff --csv at a depth" "x.csv: $lies" run_at 1 diff m/pre m/post --csv other/a/b/x.csv
    refused "report -o at a depth" "x.html: $lies" run_at 1 report $results -o o/units/a/x.html
    refused "report --csv-dir at a depth" "other/a/c: $lies" run_at 1 report $results -o new.html --csv-dir other/a/c
    mkdir p && ln -s ../other/a p/units
    refused "units/ is a link into a model" "p/units: lies in the folder of a model" \
        job 1 --set "output.directory=$tmp/w/p"
    mkdir -p package/units package/models && touch package/units/__init__.py
    run_at 1 convert m/pre package/models/pre
    expect_exit "folders of those names that are no study's" 0
    run_at 1 join o -o o/joined
    expect_exit "below a study, but not among its files" 0
    run_at 1 report $results -o o/report.html --csv-dir o/plots
    expect_exit "a report of a study into its own folder" 0
}

at_once() { # two runs, and a report, of one study at the same time
    local run other others
    fresh study
    for run in 1 2 3; do
        others=()
        mkdir -p "$tmp/mpi$run" "$tmp/mpi$run.report"
        (OMPI_MCA_orte_tmpdir_base=$tmp/mpi$run timeout 90 $DPT_MPIRUN -n 1 "$program" run "$tap_root/job.yaml" \
            --set "output.directory=$tmp/w/o" --resume >/dev/null 2>&1 </dev/null) &
        others+=($!)
        (OMPI_MCA_orte_tmpdir_base=$tmp/mpi$run.report timeout 90 $DPT_MPIRUN -n 1 "$program" report "$tmp/w/o/results.h5" \
            -o "$tmp/w/o/report.html" >/dev/null 2>&1 </dev/null) &
        others+=($!)
        job 1 --resume
        expect_exit "two runs at once, $run: one" 0
        for other in "${others[@]}"; do holds "two runs at once, $run: others" wait "$other"; done
        run_at 1 verify "$tmp/w/o"
        expect_exit "two runs at once, $run: the study is whole" 0
    done
}

converts_at_once() { # only one of them writes, and the model is whole
    local ending name first
    rm -rf "$tmp/w" && mkdir "$tmp/w"
    for ending in .h5 ''; do
        mkdir -p "$tmp/mpi"
        (OMPI_MCA_orte_tmpdir_base=$tmp/mpi DPT_FAULT=store.write:0:3:stop timeout 60 $DPT_MPIRUN -n 1 "$program" convert \
            "$tap_root/m/pre" "$tmp/w/m$ending" >/dev/null 2>&1 </dev/null) &
        first=$!
        until [[ -e $tmp/w/m$ending.partial-deltapath ]]; do sleep 0.1; done
        sleep 1
        run_at 2 convert "$tap_root/m/post" "$tmp/w/m$ending"
        expect_error "a convert next to another one$ending" 4 "m$ending: another run is writing it"
        pkill -CONT -f "convert $tap_root/m/pre $tmp/w/m$ending"
        holds "the first convert$ending" wait "$first"
        run_at 1 verify "$tmp/w/m$ending"
        expect_exit "its model is whole$ending" 0
    done
    holds "no lock is left" test "$(ls "$tmp/w" | tr '\n' ' ')" = "m m.h5 "
    for name in e.h5 e.partial-deltapath; do
        run_at 1 run "$tap_root/job.yaml" --set "output.directory=$tmp/w/o" \
            --set "edits=[{name: $name, method: dare, p: 0.5}]"
        expect_error "an edit named $name" 2 "name"
    done
}

half_models() { # what a run that was killed left under temporary names blocks nothing
    rm -rf "$tmp/w" && mkdir -p "$tmp/w/m.partial-deltapath"
    echo '{' >"$tmp/w/m.partial-deltapath/deltapath-manifest.json.partial-deltapath"
    run_at 1 convert "$tap_root/m/post" "$tmp/w/m"
    expect_exit "a convert after one that was killed" 0
    holds "nothing else is left" test "$(ls "$tmp/w")" = m
    fresh study
    mv "$tmp/w/o/models/dare-seed1" "$tmp/w/o/models/dare-seed1.partial-deltapath"
    rm "$tmp/w/o/models/dare-seed1.partial-deltapath/deltapath-manifest.json"
    job 2 --resume
    expect_exit "a resume after a removal that was killed" 0
    holds "the model is whole" test "$(ls "$tmp/w/o/models" | tr '\n' ' ')" = "dare-seed1 dare-seed2 "
    DPT_FAULT=store.write:0:3:usr1 run_at 1 convert "$tap_root/m/post" "$tmp/w/n"
    expect_error "a convert that is stopped" 75 "stopped by a signal, nothing is written"
    holds "nothing of it is left" test -z "$(find "$tmp/w" -name 'n*')"
}

left_names() { # what other processes that were killed left next to files of the study
    fresh study
    local left=(summary.csv units/dare-seed1@task.h5 units/gone.h5 progress/0123456789abcdef.g0)
    mkdir "$tmp/w/o/progress"
    for name in "${left[@]}"; do
        echo half >"$tmp/w/o/$name.partial-deltapath.0123abcd.77"
        echo half >"$tmp/w/o/$name.partial-deltapath"
    done
    cp -r "$tmp/w/o/models/dare-seed1" "$tmp/w/o/models/gone.partial-deltapath.0123abcd.77"
    cp -r "$tmp/w/o/models/dare-seed1" "$tmp/w/o/models/half.partial-deltapath"
    echo mine >"$tmp/w/o/notes.partial-deltapath.0123abcd.77"
    job 2 --resume
    expect_exit "a resume after a run that was killed" 0
    holds "what it left is gone, and nothing else" test "$(find "$tmp/w" -name '*partial*')" = \
        "$tmp/w/o/notes.partial-deltapath.0123abcd.77"
    run_at 1 report "$tmp/w/o/results.h5" -o "$tmp/w/r.html"
    (exit 0) & # a process that has ended
    wait $!
    echo half >"$tmp/w/r.html.partial-deltapath"
    echo half >"$tmp/w/r.html.partial-deltapath.0123abcd.$!" # of another machine, which may be at work
    run_at 1 report "$tmp/w/o/results.h5" -o "$tmp/w/r.html"
    expect_exit "a report over its own" 0
    holds "what is another machine's stays" test "$(ls "$tmp/w" | tr '\n' ' ')" = \
        "m o r.html r.html.partial-deltapath.0123abcd.$! "
}

reports_at_once() { # outside of a study there is no lock: each writes for itself, and the last one wins
    local turn other others
    fresh study
    for turn in 1 2 3; do
        others=()
        for other in 1 2; do
            mkdir -p "$tmp/mpi$other"
            (OMPI_MCA_orte_tmpdir_base=$tmp/mpi$other timeout 90 mpirun -q -n 1 "$program" report \
                "$tmp/w/o/results.h5" -o "$tmp/w/r.html" >/dev/null 2>&1 </dev/null) &
            others+=($!)
        done
        run_at 1 report "$tmp/w/o/results.h5" -o "$tmp/w/r.html"
        expect_exit "reports at once, $turn: one" 0
        for other in "${others[@]}"; do holds "reports at once, $turn: others" wait "$other"; done
    done
    run_at 1 report "$tmp/w/o/results.h5" -o "$tmp/w/r.html"
    expect_exit "the report is whole" 0
    holds "nothing else is left" test "$(ls "$tmp/w" | tr '\n' ' ')" = "m o r.html "
}

overwrite_fails() { # an earlier study is removed when the new one has something to put in its place
    local before set
    fresh study
    cp "$tap_root/m/post.h5" "$tmp/w/bad.h5" && change_value "$tmp/w/bad.h5"
    before=$(tree "$tmp/w")
    for set in riemann.points=1 riemann=off; do
        job 2 --set output.overwrite=true --set "models.post=$tmp/w/bad.h5" --set $set
        expect_error "$set: overwrite with damaged weights" 3 "bad.h5"
        rm -rf "$tmp/w/o/progress"
        holds "$set: the earlier study is as it was" test "$before" = "$(tree "$tmp/w")"
    done
    DPT_FAULT=results.unit:0 job 2 --set output.overwrite=true --set output.checkpoint=none
    expect_error "a fault at the first unit" 4 "injected fault"
    rm -rf "$tmp/w/o"; cp -r "$tap_root/o" "$tmp/w/o"
    job 2 --set output.overwrite=true --set output.checkpoint=hdf5 \
        --set 'edits=[{name: new, method: dare, p: 0.5}]'
    expect_exit "overwrite with another edit" 0
    holds "the earlier study is gone" test "$(cd "$tmp/w/o" && find . -type f | sort | tr '\n' ' ')" = \
        "./manifest.json ./models/new.h5 ./report.html ./results.h5 ./results.json ./summary.csv ./units/new@task.h5 "
    run_at 1 verify "$tmp/w/o"
    expect_exit "the new one is whole" 0
}

killed_overwrite() { # at the moment when all of the earlier study is aside, and while it is removed
    local flags name before set=(--set output.overwrite=true --set output.checkpoint=none)
    fresh study
    before=$(tree "$tmp/w/o" | grep -oE '^[0-9a-f]{64}' | sort)
    DPT_FAULT=results.rename:0:1:kill job 2 "${set[@]}"
    holds "killed when all is aside" test -z "$(find "$tmp/w/o/units" "$tmp/w/o/models" -mindepth 1 -maxdepth 1 ! -name '*.partial-deltapath*')"
    rm -rf "$tmp/aside" && cp -r "$tmp/w/o" "$tmp/aside"
    for flags in "" "--dry-run" "--only dare-seed1"; do
        refused "a plain run after it, '$flags'" "old.partial-deltapath.*moved aside.*--resume" job 1 $flags
    done
    for flags in "" "--resume" "--set output.overwrite=true"; do
        refused "a run of another name after it, '$flags'" "'mine', not to 'other'" job 2 --set name=other $flags
    done
    run_at 1 join "$tap_root/o" -o "$tmp/w/o"
    expect_error "a join into it" 4 "which no join wrote"
    rm -rf "$tmp/w/o/progress"
    holds "all of the study is there" test "$before" = "$(tree "$tmp/w/o" | grep -oE '^[0-9a-f]{64}' | sort)"
    for flags in --resume --set=output.overwrite=true; do
        rm -rf "$tmp/w/o" && cp -r "$tmp/aside" "$tmp/w/o"
        job 2 $flags
        expect_exit "$flags after it goes on" 0
        run_at 1 verify "$tmp/w/o"
        expect_exit "$flags: the study is whole" 0
        holds "$flags: nothing else is left" test -z "$(find "$tmp/w/o" -name '*partial*')"
    done
    rm -rf "$tmp/w/o" && cp -r "$tmp/aside" "$tmp/w/o" # killed later: the new unit has its name
    for name in "$tmp"/w/o/units/dare-seed1@*.old.*; do cp "$name" "$tmp/w/o/units/dare-seed1@task.h5"; done
    touch "$tmp/w/o/replaced.partial-deltapath"
    refused "a plain run while it is removed" "holds a study already" job 1
    job 2 --resume --set output.checkpoint=none
    expect_exit "a resume while it is removed" 0
    holds "the earlier study is removed" test "$(cd "$tmp/w/o" && find . -path '*model*' -o -name '*partial*')" = ./models
    DPT_FAULT=results.rename:0:1:kill job 1 "${set[@]}"
    touch "$tmp/w/o/replaced.partial-deltapath" # of a run before, which could not remove it
    job 1 --resume --set output.checkpoint=none
    DPT_FAULT=results.rename:0:1:kill job 1 "${set[@]}"
    holds "a mark is of one run alone" test ! -e "$tmp/w/o/replaced.partial-deltapath"
}

only_with_overwrite() { # removes no edit that --only leaves out
    local checkpoint
    fresh study
    refused "--only with overwrite" "dare-seed2.*--only leaves out.*--resume" \
        job 2 --only dare-seed1 --set output.overwrite=true
    rm -rf "$tmp/w/o"/units/dare-seed2* # its model alone
    refused "--only with overwrite, of a model" "models/dare-seed2: .*--only leaves out" \
        job 1 --only 0/2 --set output.overwrite=true
    job 2 --only 0/2 --resume
    expect_exit "--only with --resume" 0
    holds "it keeps the rest" test -e "$tmp/w/o/models/dare-seed2"
    for checkpoint in none hdf5; do
        rm -rf "$tmp/w/o"
        job 1 --only dare-seed1 --set output.checkpoint=$checkpoint
        job 2 --only dare-seed1 --set output.overwrite=true --set output.checkpoint=$checkpoint
        expect_exit "$checkpoint: overwrite of a part of its own" 0
    done
}

unfinished_models() { # verify of a study that was killed between its first model and that model's unit
    fresh
    DPT_FAULT=results.unit:0:1:kill job 1
    rm -rf "$tmp/w/o/units" "$tmp/w/o/progress"
    run_at 2 verify "$tmp/w/o"
    expect_error "verify of models alone" 3 "manifest.json: is missing or incomplete: finish the study with --resume"
    holds "a finding names the model" grep -q "models/dare-seed1: no result is about this model yet: .*--resume" "$tmp/out"
    holds "and is counted" grep -q ", 2 findings" "$tmp/out"
}

as_user() { # a command without the rights of root
    if [[ $(id -u) == 0 ]]; then
        set -- setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$tmp" TMPDIR="$tmp" "$@"
    fi
    "$@"
}

run_as_user() { # run_as_user RANKS ARGUMENTS...: as run_at
    ran="deltapath ${*:2} (at $1, as another user)"
    as_user timeout --kill-after=5 "$((limit * patience))" $DPT_MPIRUN -n "$1" "$program" "${@:2}" \
        >"$tmp/out" 2>"$tmp/err" </dev/null
    code=$?
}

job_as_user() { run_as_user "$1" run "$tap_root/job.yaml" --set "output.directory=$tmp/w/o" "${@:2}"; }

rights() { # what may not be written or removed is known before any work, and stays
    local place
    fresh study
    cd "$tmp/w" || return
    mkdir locked && echo mine >locked/notes
    if [[ $(id -u) == 0 ]]; then
        place=$tmp
        while [[ $place == "$tap_root"* || $place == */deltapath-tests.* ]]; do
            chmod 755 "$place" && place=${place%/*}
        done
        chown -R 65534:65534 "$tmp"
        as_user test -x "$program" || { skip "rights" "another user cannot reach the program"; return; }
    fi
    chmod 555 locked
    for place in locked locked/new/er; do
        refused "run into $place" "locked.*: cannot be (written|made): Permission denied" \
            job_as_user 2 --set "output.directory=$tmp/w/$place"
        refused "join -o $place" "locked.*: cannot be (written|made): Permission denied" run_as_user 1 join o -o $place
    done
    refused "convert into an unwritable folder" "locked cannot be written to .Permission denied" \
        run_as_user 2 convert m/pre locked/x.h5
    refused "diff --csv into an unwritable folder" "locked/d.csv: .*Permission denied" \
        run_as_user 1 diff m/pre m/post --csv locked/d.csv
    refused "report -o into an unwritable folder" "locked/r.html: .*Permission denied" \
        run_as_user 1 report o/results.h5 -o locked/r.html
    for place in units models models/dare-seed2; do
        chmod a-w o/$place
        refused "overwrite with a read-only $place" "o/$place.*: could not be removed: (Perm|it is read-only)" \
            job_as_user 2 --set output.overwrite=true
        chmod u+w o/$place
    done
    chmod -R a-w o/models/dare-seed1
    refused "a read-only model is not made again" "models/dare-seed1: could not be removed: it is read-only" \
        job_as_user 2 --resume --set edits.0.p=0.6
    refused "nor by who may" "models/dare-seed1: could not be removed: it is read-only" \
        job 1 --resume --set edits.0.p=0.6
    chmod -R u+w o/models/dare-seed1 && chmod a-w o/models
    refused "nor one in a read-only folder" "models.*: (could not be removed|cannot be written): " \
        job_as_user 1 --resume --set edits.0.p=0.6
    chmod u+w o/models
    job_as_user 2 --resume --set edits.0.p=0.6
    expect_exit "with all rights it is" 0
}

mounts() { # a mount point as a place for outputs
    fresh
    mkdir -p "$tmp/w/o" "$tmp/w/p/models" "$tmp/w/q"
    if ! mount -t tmpfs -o size=64m none "$tmp/w/o" 2>/dev/null; then
        skip "mount points" "nothing can be mounted here"
        return
    fi
    mount -t tmpfs -o size=64m none "$tmp/w/p/models" && mount -t tmpfs -o size=64m none "$tmp/w/q"
    local place flags
    for place in o p; do
        for flags in "" --set=output.overwrite=true; do
            job 2 --set "output.directory=$tmp/w/$place" $flags
            expect_exit "a study in a mount point: $place, '$flags'" 0
        done
        run_at 1 verify "$tmp/w/$place"
        expect_exit "it is whole: $place" 0
        holds "nothing else is left: $place" test -z "$(find "$tmp/w/$place" -name '*partial*')"
    done
    refused "convert onto a mount point" "w/q: could not be removed: it is a mount point" \
        run_at 2 convert "$tap_root/m/pre" "$tmp/w/q" --overwrite
    mount -t tmpfs -o size=1m none "$tmp/w/p/models/dare-seed1"
    refused "overwrite of a model with a mount on it" "models/dare-seed1.*: could not be removed: it is a mount point" \
        job 1 --set "output.directory=$tmp/w/p" --set output.overwrite=true
    umount "$tmp/w/p/models/dare-seed1" "$tmp/w/p/models" "$tmp/w/o" "$tmp/w/q"
}

single_file() { # a weights file next to its configuration stands for the folder
    fresh
    local file=$tmp/w/m/post/model.safetensors
    refused "an output directory next to a weights file" "lies in the folder of the input|is the input" \
        job 2 --set models.post="$file" --set output.directory="$tmp/w/m/post"
    refused "a convert next to a weights file" "input" run_at 1 convert "$file" "$tmp/w/m/post/y.h5"
    refused "a diff next to a weights file" "input" run_at 1 diff "$tmp/w/m/pre" "$file" --csv "$tmp/w/m/post/d.csv"
}

another_study() { # of another name, in the directory or in a folder of models that both use
    local flags
    job 1 --set output.directory="$tmp/plain" --set output.checkpoint=none
    for flags in "" "--resume" "--set output.overwrite=true" "--dry-run" "--only dare-seed1" \
        "--only 1/2 --set output.overwrite=true"; do
        rm -rf "$tmp/w" && mkdir "$tmp/w" && cp -r "$tmp/plain" "$tmp/w/o"
        refused "a study named otherwise without models, '$flags'" "'mine', not to 'other'" \
            job 2 --set name=other --set output.checkpoint=none $flags
        rm "$tmp"/w/o/{manifest.json,results.h5,results.json,*.csv,report.html}
        refused "the same of a study that was stopped, '$flags'" "units/dare.*'mine', not to 'other'" \
            job 1 --set name=other --set output.checkpoint=none ${flags/dare-seed1/1\/2} --set 'edits=[{name: b, method: dare, p: [0.5, 0.6]}]'
    done
    fresh study
    mv "$tmp/w/o/models" "$tmp/w/shared" && ln -s ../shared "$tmp/w/o/models"
    mkdir "$tmp/w/b" && ln -s ../shared "$tmp/w/b/models"
    local b=(--set name=b --set output.directory="$tmp/w/b")
    for flags in "" "--resume" "--set output.overwrite=true"; do
        refused "models of another study by a link, '$flags'" "b/models/dare-seed1: belongs to the study 'mine'" \
            job 2 "${b[@]}" --set select.include='[model.layers.0.*]' $flags
    done
    job 1 "${b[@]}" --set output.checkpoint=none
    expect_exit "a study next to models of another one" 0
    refused "overwrite next to models of another study" "b/models/.*'mine', not to 'b'" \
        job 2 "${b[@]}" --set output.checkpoint=none --set output.overwrite=true
    fresh study # two of one name
    mv "$tmp/w/o/models" "$tmp/w/shared" && ln -s ../shared "$tmp/w/o/models"
    job 1 --set output.directory="$tmp/w/b" --set output.checkpoint=none
    ln -s ../shared "$tmp/w/b/models"
    for flags in "--resume --set edits.0.p=0.6" "--set output.overwrite=true"; do
        refused "models of another study of that name, '$flags'" "b/models/dare-seed[12]: no result in .*/b is about this model" \
            job 2 --set output.directory="$tmp/w/b" $flags
    done
    job 2 --resume --set edits.0.p=0.6
    expect_exit "its own models it makes again" 0
    fresh study
    cp "$tap_root/o/units/dare-seed1@task.h5" "$tmp/w/unit"
    job 1 --set name=other --set output.directory="$tmp/w/c" --set output.checkpoint=none \
        --set 'edits=[{name: b, method: dare, p: 0.5}]'
    cp "$tmp/w/unit" "$tmp/w/c/units/dare-seed1@task.h5"
    run_at 2 verify "$tmp/w/c"
    expect_error "verify of a unit of another study" 3 "units/dare-seed1@task.h5: belongs to the study 'mine'"
}

stale_models() { # of an earlier set of parameters, next to results of another one
    local first
    for first in safetensors hdf5; do
        rm -rf "$tmp/w" && mkdir "$tmp/w"
        job 1 --set output.checkpoint=$first
        job 2 --resume --set output.checkpoint=none
        holds "$first: models of the same recipe need no warning" test -z "$(grep 'is not the model' "$tmp/err")"
        run_at 1 verify "$tmp/w/o"
        expect_exit "$first: nor a finding" 0
        job 2 --resume --set output.checkpoint=none --set edits.0.p=0.6
        expect_exit "$first: resume without models" 0
        holds "$first: a warning" grep -q "models/dare-seed1.*: is not the model" "$tmp/err"
        run_at 2 verify "$tmp/w/o"
        expect_error "$first: verify without models" 3 "models/dare-seed1.*: is not the model"
    done
    rm -rf "$tmp/w" && cp -r "$tap_root/o" "$tmp" && mkdir "$tmp/w" && mv "$tmp/o" "$tmp/w/o"
    job 1 --resume --set output.checkpoint=hdf5 --set edits.0.p=0.6
    holds "the other format: a warning" grep -q "models/dare-seed1: is not the model" "$tmp/err"
    run_at 1 verify "$tmp/w/o"
    expect_error "verify of both formats" 3 "models/dare-seed1: is not the model"
    holds "it finds both" grep -q "2 findings" "$tmp/out"
    fresh study
    rm "$tmp/w/o/units/dare-seed2@task.h5"
    run_at 1 verify "$tmp/w/o"
    holds "a model without a unit" grep -q "models/dare-seed2: no result is about this model" "$tmp/out"
}

stays_whole() { # stays_whole NAME REGEX: overwrite is refused at once and the earlier study is as it was
    refused "$1" "$2" job 1 --set output.overwrite=true
}

cannot_be_removed() {
    fresh study
    local name
    for name in models/dare-seed2/config.json units/dare-seed2@task.h5 results.h5; do
        chattr +i "$tmp/w/o/$name" 2>/dev/null || { echo "# no chattr here"; continue; }
        stays_whole "$name is marked" "o/${name%/config.json}: could not be removed"
        chattr -i "$tmp/w/o/$name"
    done
    for name in units references; do
        [[ $(id -u) == 0 ]] && break
        mkdir -p "$tmp/w/o/$name" && chmod 555 "$tmp/w/o/$name"
        [[ $name == units ]] && stays_whole "$name is read-only" "o/$name/.*could not be removed"
        chmod 755 "$tmp/w/o/$name"
    done
    local before
    before=$(tree "$tmp/w")
    DPT_FAULT=results.rename:0 job 2 --set output.overwrite=true --set output.checkpoint=none
    expect_error "a fault when the first unit gets its name" 4 "injected fault"
    rm -rf "$tmp/w/o/progress"
    holds "the earlier study has come back" test "$before" = "$(tree "$tmp/w")"
    DPT_FAULT=store.finish:0 job 2 --set output.overwrite=true
    expect_error "a fault when the first model is completed" 4 "injected fault"
    rm -rf "$tmp/w/o/progress"
    holds "the earlier study has come back again" test "$before" = "$(tree "$tmp/w")"
}

meanwhile() { # what the user does to the earlier study while the new one works
    local change pid
    for change in "sed -i s/dare/DARE/ summary.csv" "sed -i s/dare/DARE/ results.json" "tee units/note.txt" \
        "tee models/dare-seed2/note.txt" "tee models/note.txt" "cp report.html references/note.txt" "tee report.html"; do
        fresh study
        mkdir -p "$tmp/mpi" "$tmp/w/o/references"
        (OMPI_MCA_orte_tmpdir_base=$tmp/mpi DPT_FAULT=store.write:0:3:stop timeout 60 "$program" run \
            "$tap_root/job.yaml" --set "output.directory=$tmp/w/o" --set output.overwrite=true \
            >"$tmp/log" 2>&1 </dev/null; echo $? >"$tmp/rc") &
        pid=$!
        until [[ -e $tmp/w/o/models/dare-seed1.partial-deltapath ]]; do sleep 0.1; done
        sleep 0.5
        (cd "$tmp/w/o" && echo mine | $change >/dev/null)
        local before
        before=$(tree "$tmp/w/o" | grep -v -e partial -e progress)
        pkill -CONT -f "run $tap_root/job.yaml --set output.directory=$tmp/w/o"
        wait $pid
        holds "meanwhile $change: refused" test "$(cat "$tmp/rc")" = 4
        rm -rf "$tmp/w/o/progress"
        holds "meanwhile $change: nothing removed" test "$before" = "$(tree "$tmp/w/o")"
    done
}

exchanged() { # another study comes to lie in the place of the output directory while a run works
    local at=$1 pid before tries=0
    fresh study
    mv "$tmp/w/o" "$tmp/w/other"
    [[ ${2:-} == *overwrite* ]] && cp -r "$tmp/w/other" "$tmp/w/o"
    DPT_FAULT=$at:stop "$program" run "$tap_root/job.yaml" --set "output.directory=$tmp/w/o" "${@:2}" \
        >"$tmp/out" 2>"$tmp/err" </dev/null &
    pid=$!
    ran="deltapath run at $at"
    until grep -qs '^State:.T' "/proc/$pid/status" || ! kill -0 $pid || [[ $((tries++)) -gt 600 ]]; do sleep 0.1; done
    mv "$tmp/w/o" "$tmp/w/mine" && mv "$tmp/w/other" "$tmp/w/o"
    before=$(tree "$tmp/w/o")
    kill -CONT $pid
    wait $pid
    code=$?
    expect_error "exchanged at $at" 4 "w/o(/models|/units)?: is another folder than the one.*--resume"
    holds "exchanged at $at: nothing changed" test "$before" = "$(tree "$tmp/w/o")"
    job 2 --resume --set "output.directory=$tmp/w/mine"
    expect_exit "exchanged at $at: the run goes on where its folder is" 0
    run_at 1 verify "$tmp/w/mine"
    expect_exit "exchanged at $at: its study is whole" 0
}

linked_parts() { # the folders of a study may be links to folders elsewhere: they stay its own
    local part
    rm -rf "$tmp/w" && mkdir -p "$tmp/w/far/m" "$tmp/w/far/u" "$tmp/w/o"
    ln -s ../far/m "$tmp/w/o/models"
    ln -s ../far/u "$tmp/w/o/units"
    ln -s o/models "$tmp/w/way"
    ln -s o "$tmp/w/alias"
    job 2
    expect_exit "a study whose models and units are links" 0
    run_at 1 verify "$tmp/w/o"
    expect_exit "it is whole" 0
    for part in o/models alias/models way alias/../o/models; do
        refused "convert through $part onto an edited model" "dare-seed1: lies among the files of a study" \
            run_at 2 convert "$tap_root/m/post" "$tmp/w/$part/dare-seed1" --overwrite
        refused "convert through $part" "new.h5: lies among the files of a study" \
            run_at 1 convert "$tap_root/m/post" "$tmp/w/$part/new.h5"
    done
    refused "diff --csv through a link of units" "x.csv: lies among the files of a study" \
        run_at 1 diff "$tap_root/m/pre" "$tap_root/m/post" --csv "$tmp/w/o/units/x.csv"
    refused "report -o through a link of units" "r.html: lies among the files of a study" \
        run_at 1 report "$tmp/w/o/results.h5" -o "$tmp/w/o/units/new/r.html"
    refused "join -o through a link of models" "models/all: lies among the files of a study" \
        run_at 1 join "$tmp/w/o" -o "$tmp/w/o/models/all"
    refused "run through a link of units" "units/run: lies among the files of a study" \
        job 1 --set "output.directory=$tmp/w/o/units/run"
    refused "convert over an edited model by its real path" "far/m/dare-seed1: is no converted model" \
        run_at 1 convert "$tap_root/m/post" "$tmp/w/far/m/dare-seed1" --overwrite
    (cd "$tmp/w/o" && run_at 1 diff "$tap_root/m/pre" "$tap_root/m/post" --csv models/../d.csv)
    holds "next to the links there is room" test -s "$tmp/w/far/d.csv"
    job 2 --resume
    expect_exit "the study itself goes on in them" 0
}

hard_links() { # copies of a folder that share their files are the files
    fresh study
    cp -al "$tmp/w/o" "$tmp/w/backup"
    refused "overwrite of a study whose files are an input" "o/models/dare-seed1/.*is the input .*backup/models/dare-seed1" \
        job 2 --set output.overwrite=true --set "models.pre=$tmp/w/backup/models/dare-seed1"
    run_at 1 convert "$tap_root/m/post" "$tmp/w/own"
    cp -al "$tmp/w/own" "$tmp/w/twin"
    refused "convert onto hard links of its source" "twin/.*is the input .*own" \
        run_at 2 convert "$tmp/w/own" "$tmp/w/twin" --overwrite
}

change_hdf5() { $python -c 'import h5py, sys
with h5py.File(sys.argv[1], "r+") as file: file["notes"] = list(range(100))' "$1"; }
change_value() { printf '\x55' | dd of="$1" bs=1 seek="$(($(stat -c %s "$1") / 2))" conv=notrunc 2>/dev/null; }

changed_by_the_user() { # what deltapath wrote is the user's once the user has changed it
    local format ending weights change
    for change in change_hdf5 change_value; do
        fresh
        cp "$tap_root/m/pre.h5" "$tmp/w/pre.h5" && $change "$tmp/w/pre.h5"
        refused "convert over an HDF5 model after $change" "pre.h5: was changed" \
            run_at 2 convert "$tap_root/m/post" "$tmp/w/pre.h5" --overwrite
    done
    rm -rf "$tmp/w" && mkdir "$tmp/w"
    run_at 1 convert "$tap_root/m/post" "$tmp/w/folder"
    change_value "$tmp/w/folder/model.safetensors"
    refused "convert over a folder with other weights" "folder: was changed" \
        run_at 1 convert "$tap_root/m/post" "$tmp/w/folder" --overwrite
    for format in safetensors hdf5; do
        weights=models/dare-seed1/model.safetensors
        [[ $format == hdf5 ]] && weights=models/dare-seed1.h5
        rm -rf "$tmp/w" && mkdir "$tmp/w"
        job 2 --set output.checkpoint=$format
        expect_exit "$format: a study" 0
        change_value "$tmp/w/o/$weights"
        refused "$format: weights were changed, overwrite" "dare-seed1.*was changed" \
            job 1 --set output.checkpoint=$format --set output.overwrite=true
        refused "$format: weights were changed, made again by --resume" "dare-seed1.*was changed" \
            job 2 --set output.checkpoint=$format --set edits.0.p=0.6 --resume
    done
    change_hdf5 "$tmp/w/o/results.h5"
    refused "results.h5 was changed" "results.h5: was changed" job 1 --set output.checkpoint=hdf5 --resume
    for change in "rm $tmp/w/o/manifest.json" "sed -i s/version/versio/ $tmp/w/o/manifest.json"; do
        fresh study
        echo "a remark" >>"$tmp/w/o/summary.csv" && $change
        refused "tables that no manifest vouches for: ${change%% *}" "manifest.json" job 1 --resume
        refused "the same, overwrite: ${change%% *}" "manifest.json" job 1 --set output.overwrite=true
    done
}

inputs_are_not_written_to() { # not even for a moment: the time of the folders stays
    fresh
    touch -d 2001-01-01 "$tmp"/w/m/{.,pre,post}
    job 2 --set "models.pre=$tmp/w/m/pre" --set "models.post=$tmp/w/m/post"
    expect_exit "a study" 0
    run_at 2 convert "$tmp/w/m/post" "$tmp/w/copy.h5"
    run_at 2 diff "$tmp/w/m/pre.h5" "$tmp/w/m/post.h5"
    expect_exit "diff" 0
    holds "folders of inputs were not written to" \
        test "$(stat -c %Y "$tmp"/w/m/{.,pre,post} | sort -u)" = "$(date -d 2001-01-01 +%s)"
}

part inputs_in_the_directory
part directory_is_a_model
part files_in_the_way
part foreign_in_a_study
part converts
part tables_and_reports
part below_others
part changed_by_the_user
part half_models
part left_names
part reports_at_once
part overwrite_fails
part killed_overwrite
part only_with_overwrite
part unfinished_models
part rights
part mounts
part single_file
part at_once
part converts_at_once
part another_study
part stale_models
part cannot_be_removed
part meanwhile
part exchanged store.write:0:3
part exchanged study.edit:0:2
part exchanged results.rename:0:1 --set=output.overwrite=true
part exchanged results.write:0:1
part linked_parts
part hard_links
part inputs_are_not_written_to
done_testing
