#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/road_scenes/fast_scnn.yaml "$@"
