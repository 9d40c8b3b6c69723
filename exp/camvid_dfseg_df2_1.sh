#!/usr/bin/env bash
bash "$(dirname "$0")/../tools/dist_train.sh" configs/camvid/dfseg_df2_1.yaml "$@"
