# For the lints to source: the root of the tree as folder, `status` for the exit code, and complain.
set -uo pipefail
shopt -s lastpipe # complain sets status in this shell
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
status=0

complain() { # complain TITLE: prints standard input under a title when there is any
    local found
    found=$(cat)
    [[ -z $found ]] && return
    echo "$1"
    sed 's/^/  /' <<<"$found"
    status=1
}
