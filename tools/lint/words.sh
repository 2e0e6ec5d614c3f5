#!/usr/bin/env bash
# The field's words: what the last column of the glossary in doc/architecture.md lists is used nowhere, nor its plural.
# A word in backquotes or in double quotes alone is a name that a file format promises.
set -euo pipefail
cd "$(dirname "$0")/../.."
words=$(sed -n '/^## Words$/,/^## /p' doc/architecture.md |
    awk -F'|' '/^\|/ && NR > 4 && $4 !~ /^-*$/ { n = split($4, w, ","); for (i = 1; i <= n; i++) print w[i] }' |
    sed 's/^ *//; s/ *$//; /^$/d; /^not$/d' | paste -sd'|')
[[ -n $words ]] || { echo "tools/lint/words.sh: doc/architecture.md has no glossary"; exit 1; }
found=$(git ls-files src include doc README.md CONTRIBUTING.md slurm 'tests/*.[ch]' 'tests/*.sh' |
    xargs grep -niP "\b(?!besides\b)($words)(s|es)?\b" | grep -vE '^doc/architecture\.md:[0-9]+:\|' |
    grep -vwE "[\`\"'](${words})(s|es)?[\`\"']" || true)
[[ -z $found ]] || { echo "words that the glossary of doc/architecture.md replaces:"; echo "$found"; exit 1; }
