#!/usr/bin/env bash
# Makes the coursework report that this project started from again, on your posts and your weights of CLIP.
#
#   scripts/reproduce_report.sh DATA OUT [OPTIONS of mmsent extract]
#   scripts/reproduce_report.sh mvsa-single reproduced
#   scripts/reproduce_report.sh mvsa-single reproduced --weights clip-l14-336.safetensors --device cuda
#
# DATA is a folder in the guid layout: train.txt, test_without_label.txt, data/GUID.jpg and data/GUID.txt. OUT gets
#
#   scores.txt, scores.json       validation scores of the six heads and of their vote; the heads `image` and `text`,
#                                 which see one half each, are the ablations
#   predictions.txt, .csv         the vote's label of every test post, in the order of the list; with probabilities
#   report/report.html            every figure, also in report/figures/; 1 to 16 are the coursework report's
#   cache/, runs/                 features and heads
#
# The encoder is ViT-L-14-336-quickgelu with OpenAI's weights: a download, or the file that --weights names. Another one:
# --encoder, or MMSENT_ENCODER. Stop the script anywhere and run it again: features are encoded once. Figures 12 to 14
# need UMAP besides: pip install 'mmsent[umap]'. Two CPU cores encode about one image per second, and there are five per
# training post (the image and four augmented views), so 4,000 posts take hours without a GPU.
set -euo pipefail

if [ $# -lt 2 ] || [ ! -d "$1" ]; then
    echo "usage: $0 DATA OUT [OPTIONS of mmsent extract]; DATA is a folder with train.txt and data/" >&2
    exit 2
fi
data=$1 out=$2
shift 2
mkdir -p "$out"
stored=(--data "$data" --cache "$out/cache")
trained=("${stored[@]}" --runs "$out/runs")

# Section 5: texts in several encodings, found out once for the whole data set. Errors in the data end the script here.
mmsent check --data "$data" --no-tokens

# Section 1: both towers are frozen, so each image and text is encoded once. Section 2: four augmented views per image.
mmsent extract "${stored[@]}" --views 4 "$@"

# Sections 1 to 3: the fusions concat, weighted, attention and attention_alt, and the ablations image and text. One
# eighth of the training posts validates, drawn by label alone: --no-group, so copies of a post may lie on both sides.
mmsent fit "${trained[@]}" --recipe paper --fusion all --val-size 0.125 --no-group

# Section 3: accuracy, weighted precision, recall and F1. With intervals and tests, which the coursework report lacks.
mmsent evaluate "${trained[@]}" --wide | tee "$out/scores.txt"
mmsent evaluate "${trained[@]}" --json > "$out/scores.json"

# Section 5: the majority of concat, weighted and attention; neutral where all three differ.
mmsent vote "${trained[@]}" --tie neutral --out "$out/predictions.txt"

# Section 4: all figures. Grad-CAM is of the cross-entropy, as there.
mmsent report "${trained[@]}" --cam-of loss --head concat --out "$out/report"
