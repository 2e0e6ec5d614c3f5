#!/usr/bin/env bash
# Make sure that the Debian packages of one purpose are there: `tools/deps.sh build|demo|paper|check|fuzz|tsan`.
# Installs what is missing when run as root (or with sudo that asks nothing); otherwise prints the one
# command to run.
set -euo pipefail

build=(gcc libc6-dev make pkg-config openmpi-bin libopenmpi-dev libscalapack-openmpi-dev
    libhdf5-openmpi-dev libopenblas-openmp-dev liblapacke-dev librandom123-dev libxxhash-dev
    libfyaml-dev libjansson-dev)
demo=(gnuplot-nox)
paper=(python3 python3-h5py python3-numpy)
check=(libcmocka-dev hdf5-tools python3 python3-h5py python3-numpy slurm-wlm munge)
lint=(clang-format cppcheck universal-ctags)
tidy=(clang-tidy)
fuzz=(clang libclang-rt-14-dev)
tsan=("${fuzz[@]}" libomp-14-dev)

purpose=${1:-build}
case $purpose in
build) wanted=("${build[@]}") ;;
demo) wanted=("${build[@]}" "${demo[@]}") ;;
paper) wanted=("${build[@]}" "${demo[@]}" "${paper[@]}") ;;
check) wanted=("${build[@]}" "${demo[@]}" "${check[@]}") ;;
lint) wanted=("${lint[@]}") ;;
tidy) wanted=("${build[@]}" "${tidy[@]}") ;;
fuzz) wanted=("${build[@]}" "${fuzz[@]}") ;;
tsan) wanted=("${build[@]}" "${check[@]}" "${tsan[@]}") ;;
all) wanted=("${build[@]}" "${demo[@]}" "${check[@]}" "${lint[@]}" "${tidy[@]}") ;;
*)
    echo "deps: unknown purpose '$purpose': build demo paper check lint tidy fuzz tsan all" >&2
    exit 2
    ;;
esac

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [[ $status == "install ok installed" ]] || missing+=("$package")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

if [[ $(id -u) -eq 0 ]]; then
    as_root=()
elif sudo -n true 2>/dev/null; then
    as_root=(sudo)
else
    echo "deps: packages are missing; run this once:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
echo "deps: installing ${missing[*]}"
log=$(mktemp)
if ! {
    "${as_root[@]}" apt-get update -q &&
        DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -q \
            --no-install-recommends "${missing[@]}"
} >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "deps: apt-get failed; its whole output is in $log" >&2
    exit 1
fi
rm -f "$log"
