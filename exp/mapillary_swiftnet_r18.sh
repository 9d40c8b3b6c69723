#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/mapillary/swiftnet_r18.yaml "$@"
