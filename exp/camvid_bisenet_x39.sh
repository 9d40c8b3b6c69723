#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/camvid/bisenet_x39.yaml "$@"
