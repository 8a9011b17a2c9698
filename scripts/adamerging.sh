#!/usr/bin/env bash
# AdaMerging beside everything else, on two fine-tunes of one base: ResNet-20s, CIFAR-10's classes 0-4 and 5-9, from one
# that knows 50 classes of Tiny-ImageNet at 32 px. Sums of weights get statistics of their own (recalibrate) before they are
# measured. Prints what networks come to on validation and test images; what is there already is not made again.
#
#     scripts/adamerging.sh CIFAR10 TINYIMAGENET32 [FOLDER]
#
# The two folders are data sets as `make` reads them; BIN says where the stages are.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$(realpath "${BIN:-$root/target/release}")
cifar=$(realpath "${1:?which folder holds CIFAR-10?}")
tiny=$(realpath "${2:?which folder holds Tiny-ImageNet at 32 px?}")
mkdir -p "${3:-$root/runs/adamerging}" && cd "${3:-$root/runs/adamerging}"

on=(--data "$cifar" --images 2000)
stage() { "$bin/$1" "${@:2}" > /dev/null; }
file() { for name; do printf '%s.safetensors ' "$name"; done; }

stage train --arch resnet20 --width 1 --data "$tiny" --classes 0-49 --epochs 5 --bf16 --seed 1 -o base.safetensors
fine_tune() { stage train --from base.safetensors --data "$cifar" --classes "$2" --epochs 3 --lr 0.05 --bf16 --seed "$3" -o "$1.safetensors"; }
fine_tune a 0-4 1
fine_tune b 5-9 2
tuned=(a.safetensors b.safetensors)
networks="a b"

measured() {
    stage recalibrate "$1.safetensors" "${on[@]}" -o "$1_measured.safetensors"
    networks+=" $1_measured"
}
# Equal weights of what the fine-tunes hold at the same places, features as they are.
stage collect "${tuned[@]}" "${on[@]}" --importance -o stats.h5
stage match stats.h5 --method identity --unmerge pinv -o identity.bin
stage apply identity.bin "${tuned[@]}" -o average.safetensors
measured average

sum() {
    stage adapt average_measured.safetensors --to "${tuned[@]}" --base base.safetensors "${on[@]}" \
        --learn coefficients --objective entropy "${@:2}" --report "$1.json" -o "$1.safetensors"
    measured "$1"
}
# Task arithmetic: coefficients that stay where they begin.
for scale in 0.3 0.5 0.7 1.0; do
    sum "arithmetic_$scale" --initial "$scale" --lr 1e-12 --epochs 0.01
    sum "ties_$scale" --ties 0.2 --initial "$scale" --lr 1e-12 --epochs 0.01
done
learn=(--lr 0.01 --epochs 20)
sum ada_task "${learn[@]}"
sum ada_tensor --per tensor "${learn[@]}"
sum ada_task_ties --ties 0.2 "${learn[@]}"
sum ada_tensor_ties --per tensor --ties 0.2 "${learn[@]}"
sum ada_tensor_clamp --per tensor --clamp "${learn[@]}"

# Layers solved again, features as they are and selected; and gradients towards what the fine-tunes say.
stage refit identity.bin "${tuned[@]}" "${on[@]}" -o refit.safetensors
stage match stats.h5 --method select --budget 1 -o select.bin
stage refit select.bin "${tuned[@]}" "${on[@]}" -o select.safetensors
networks+=" refit select"
for start in average_measured ada_tensor_measured refit select; do
    stage adapt "$start.safetensors" --to "${tuned[@]}" "${on[@]}" --flip --shift 4 --bf16 -o "adapted_$start.safetensors"
    networks+=" adapted_$start"
done
for split in val test; do
    echo "$split images:"
    # shellcheck disable=SC2046,SC2086
    "$bin/eval" $(file $networks) --ensemble "${tuned[@]}" --data "$cifar" --split "$split"
done
