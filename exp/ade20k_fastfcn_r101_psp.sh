#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/ade20k/fastfcn_r101_psp.yaml "$@"
