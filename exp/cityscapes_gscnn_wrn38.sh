#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/cityscapes/gscnn_wrn38.yaml "$@"
