#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/cityscapes/icnet_r50_half.yaml "$@"
