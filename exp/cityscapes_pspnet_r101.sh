#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/cityscapes/pspnet_r101.yaml "$@"
