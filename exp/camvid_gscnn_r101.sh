#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/camvid/gscnn_r101.yaml "$@"
