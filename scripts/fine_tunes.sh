#!/usr/bin/env bash
# Every rule of `combine`, and AdaMerging, beside everything else, on two fine-tunes of one base: ResNet-20s, CIFAR-10's classes
# 0-4 and 5-9, from one that knows 50 classes of Tiny-ImageNet at 32 px. Sums of weights get statistics of their own
# (recalibrate) before they are measured. Prints what networks come to on validation and test images; what is there already is
# not made again.
#
#     scripts/fine_tunes.sh CIFAR10 TINYIMAGENET32 [FOLDER]
#
# The two folders are data sets as `make` reads them; BIN says where the stages are.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$(realpath "${BIN:-$root/target/release}")
cifar=$(realpath "${1:?which folder holds CIFAR-10?}")
tiny=$(realpath "${2:?which folder holds Tiny-ImageNet at 32 px?}")
mkdir -p "${3:-$root/runs/fine-tunes}" && cd "${3:-$root/runs/fine-tunes}"

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
# What no image is needed for. Which scale is best, validation images say.
combined() {
    stage combine base.safetensors "${tuned[@]}" --rule "${@:2}" -o "$1.safetensors"
    measured "$1"
}
combined average average
combined slerp slerp
combined model_stock model-stock
for scale in 0.3 0.5 0.7 1; do
    combined "arithmetic_$scale" task-arithmetic --scale "$scale"
    combined "breadcrumbs_$scale" breadcrumbs --scale "$scale"
    combined "ties_sum_$scale" ties --disjoint sum --scale "$scale"
    combined "dare_$scale" dare --density 0.5 --scale "$scale"
done
for scale in 0.5 1 1.5; do
    combined "ties_mean_$scale" ties --scale "$scale"
    combined "ties_tensor_$scale" ties --trim-scope tensor --scale "$scale"
    combined "dare_ties_$scale" dare-ties --density 0.5 --scale "$scale"
    combined "iso_c_$scale" iso-c --scale "$scale"
    combined "iso_cts_$scale" iso-cts --scale "$scale"
    combined "tsv_m_$scale" tsv-m --scale "$scale"
    combined "iso_c_kernels_$scale" iso-c --kernels mean --scale "$scale"
done

sum() {
    stage adapt average_measured.safetensors --to "${tuned[@]}" --base base.safetensors "${on[@]}" \
        --learn coefficients --objective entropy "${@:2}" --report "$1.json" -o "$1.safetensors"
    measured "$1"
}
learn=(--lr 0.01 --epochs 20)
sum ada_task "${learn[@]}"
sum ada_tensor --per tensor "${learn[@]}"
sum ada_task_ties --ties 0.2 "${learn[@]}"
sum ada_tensor_ties --per tensor --ties 0.2 "${learn[@]}"
sum ada_tensor_clamp --per tensor --clamp "${learn[@]}"

# Layers solved again, features as they are and selected; and gradients towards what the fine-tunes say.
stage collect "${tuned[@]}" "${on[@]}" --importance -o stats.h5
stage match stats.h5 --method identity --unmerge pinv -o identity.bin
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
