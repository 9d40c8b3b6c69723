#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/cityscapes/fast_scnn_mapillary.yaml "$@"
