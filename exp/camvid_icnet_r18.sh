#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/camvid/icnet_r18.yaml "$@"
