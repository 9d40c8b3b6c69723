#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/pascal_context/fastfcn_r101_deeplabv3.yaml "$@"
