#!/usr/bin/env bash
# The walls of ARCHITECTURE.md, read off `cargo tree`: who may depend on whom.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
# forbid CRATE NAME...: CRATE must not reach any NAME through normal dependencies. With depth=1 it must not name it
# itself; what others' crates use inside is theirs.
forbid() {
    local crate=$1 tree
    shift
    tree=$(cargo tree --offline --locked -p "$crate" -e normal --depth "${depth:-255}" --prefix none --format '{p}' | awk '{print $1}' | sort -u)
    for name in "$@"; do
        if grep -qx -- "$name" <<<"$tree"; then
            echo "wall broken: $crate depends on $name" >&2
            bad=1
        fi
    done
}

files="hdf5-metno safetensors bincode"
# The algorithm: no sibling, no file, no command line.
forbid zipit zipit-artifact zipit-data zipit-torch zipit-stage tch torch-sys $files clap indicatif serde_json
# Files and networks never meet; neither knows a command line.
forbid zipit-artifact zipit-torch zipit-stage zipit-data tch torch-sys clap indicatif
# (tch itself reads safetensors.)
forbid zipit-torch zipit-artifact zipit-stage zipit-data hdf5-metno bincode clap indicatif
forbid zipit-data zipit-torch zipit-stage tch torch-sys clap indicatif
forbid zipit-stage zipit-torch zipit-data tch torch-sys
for crate in zipit zipit-artifact zipit-data zipit-torch; do
    depth=1 forbid "$crate" anyhow
done
# These run on any machine, without LibTorch.
for crate in zipit-import zipit-inspect zipit-match zipit-apply zipit-combine zipit-experiment zipit-report; do
    forbid "$crate" zipit-torch tch torch-sys
done
# A binary is small: at most 150 lines in its main.rs.
for main in crates/*/src/main.rs; do
    lines=$(wc -l <"$main")
    if ((lines > 150)); then
        echo "wall broken: $main has $lines lines, 150 at most" >&2
        bad=1
    fi
done
# Only zipit-artifact, zipit-torch and zipit-import name the C libraries and foreign formats in their code.
for door in "hdf5::|crates/artifact" "safetensors::|crates/artifact" "bincode::|crates/artifact" "tch::|crates/torch"; do
    pattern=${door%%|*} home=${door##*|}
    if git grep -nE "(^|[^a-z_:])$pattern" -- 'crates/*.rs' "tests/*.rs" ":!$home" | grep -vE '^\S+:\s*//'; then
        echo "wall broken: $pattern outside $home" >&2
        bad=1
    fi
done
exit "$bad"
