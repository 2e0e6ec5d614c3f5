#!/usr/bin/env bash
# Fail on an include that goes up the layers. The table is that of doc/architecture.md: a layer, and
# the layers that its headers and sources may include besides its own.
set -euo pipefail
cd "$(dirname "$0")/../.."

declare -A may=(
    [base]=""
    [comm]="base"
    [tensor]="base comm"
    [hdf5]="base tensor/dtype.h"
    [store]="base comm tensor hdf5"
    [data]="base comm tensor hdf5 store"
    [results]="base comm tensor hdf5 store"
    [linalg]="base comm tensor"
    [nn]="base tensor/dtype.h"
    [edit]="base comm tensor linalg"
    [model]="base comm tensor linalg nn"
    [loss]="base comm tensor linalg nn model"
    [path]="base comm tensor"
    [report]="base comm tensor store results"
    [job]="base comm tensor store edit path"
    [study]="base comm tensor store data results linalg nn edit model loss path job"
    [verbs]="base comm tensor store data results linalg model"
    [cli]="base comm tensor store results edit job study verbs report linalg model"
)
# cli stands on study, verbs and report; base and comm serve its main.

status=0
while IFS=: read -r file line text; do
    rest=${file#include/deltapath/}
    rest=${rest#src/}
    layer=${rest%%/*}
    header=$(sed -n 's/.*"deltapath\/\([^"]*\)".*/\1/p' <<<"$text")
    target=${header%%/*}
    [[ $layer == "$target" ]] && continue
    if [[ -z ${may[$layer]+known} ]]; then
        echo "$file:$line: the layer '$layer' is not in the table of tools/lint/layers.sh"
        status=1
        continue
    fi
    allowed=" ${may[$layer]} "
    if [[ $allowed != *" $target "* && $allowed != *" $header "* ]]; then
        echo "$file:$line: layer $layer may not include $header"
        status=1
    fi
done < <(grep -rnE '#include "deltapath/' include src)
# Private headers stay inside their layer: they are included by bare name, from a folder in it with "../".
if grep -rnE '#include "(\.\./|src/)' include src | grep -vE '^src/[a-z]+/[a-z]+/[a-z0-9_]+\.[ch]:[0-9]+:#include "\.\./[a-z0-9_]+\.h"'; then
    echo "private headers of another layer are included above"
    status=1
fi
exit $status
