#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/cityscapes/swiftnet_r18_mapillary.yaml "$@"
