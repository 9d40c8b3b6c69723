#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/camvid/fastfcn_r50_psp.yaml "$@"
