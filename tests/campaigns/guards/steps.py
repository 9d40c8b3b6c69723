"""Steps: losses, statistics and numbers that are not finite; evaluation."""

from __future__ import annotations

from guards.guard import Guard

BAD_STEPS = "tests/engine/test_train_bad_steps.py::"
TRAIN = "tests/engine/test_train.py::"
STEP = "tests/engine/test_step.py::"
EVALUATE = "tests/engine/test_evaluate.py::"

STEPS = [
    Guard(
        "steps: bad ones count in a row",
        "fastseg/engine/train.py",
        "                bad_steps = 0\n",
        "                pass\n",
        ("tests/engine/test_train_bad_steps.py::test_a_good_step_between_bad_ones_counts_them_anew",),
    ),
    Guard(
        "steps: a bad loss is decided by all",
        "fastseg/engine/step.py",
        "all(torch.isfinite(total) for total in totals.values())",
        "all(torch.isfinite(term.total) for term in terms.values())",
        (BAD_STEPS + "test_a_bad_loss_on_one_process_skips_the_step_on_all",),
    ),
    Guard(
        "steps: running statistics of a bad step are put back",
        "fastseg/engine/step.py",
        "                buffer.copy_(before)\n",
        "                pass\n",
        (STEP + "test_a_nan_on_one_process_skips_the_step_on_both[1]",),
    ),
    Guard(
        "steps: finite gradients",
        "fastseg/engine/train.py",
        "                result.finite = all_finite(gradients)\n",
        "",
        (BAD_STEPS + "test_a_bad_gradient_skips_the_step",),
    ),
    Guard(
        "steps: finite weights",
        "fastseg/engine/train.py",
        "                if not all_finite(weights):\n",
        "                if False:\n",
        (BAD_STEPS + "test_weights_that_overflow_end_the_run_before_they_are_kept",),
    ),
    Guard(
        "steps: ten bad ones in a row end the run",
        "fastseg/engine/train.py",
        "                if bad_steps >= BAD_STEPS_ALLOWED:\n",
        "                if False:\n",
        (BAD_STEPS + "test_ten_bad_steps_in_a_row_stop_the_run",),
    ),
    Guard(
        "steps: no checkpoint while they are bad",
        "fastseg/engine/train.py",
        " and bad_steps == 0:\n",
        ":\n",
        (BAD_STEPS + "test_ten_bad_steps_in_a_row_stop_the_run",),
    ),
    Guard(
        "steps: pixels are counted over all processes",
        "fastseg/engine/step.py",
        "    packed = procs.sum(torch.stack([torch.stack(",
        "    packed = (torch.stack([torch.stack(",
        (STEP + "test_two_processes_equal_one[cross_entropy]",),
    ),
    Guard(
        "steps: OHEM's pixels are counted over all processes",
        "fastseg/engine/step.py",
        "    normalizers = dict(zip(names, packed[count : 2 * count], strict=True))\n",
        "    normalizers = dict(zip(names, values[count:], strict=True))\n",
        (STEP + "test_two_processes_equal_one[ohem]",),
    ),
    Guard(
        "steps: OHEM chooses in each image",
        "fastseg/losses/pixel.py",
        "            hardness = nll.detach().flatten(1)\n",
        "            hardness = nll.detach().flatten()[None]\n",
        ("tests/losses/test_pixel.py::test_ohem_keeps_at_least_min_kept_pixels_of_every_image_and_never_ignored_ones",),
    ),
    Guard(
        "steps: class weights are in the normaliser",
        "fastseg/losses/pixel.py",
        "        return _pixel_weights(labels, self.class_weights, torch.float64).sum()\n",
        "        return _pixel_weights(labels, None, torch.float64).sum()\n",
        ("tests/losses/test_pixel.py::test_cross_entropy_knows_its_normaliser_from_labels_alone",),
    ),
    Guard(
        "steps: the sum of gradients, not DDP's mean",
        "fastseg/engine/step.py",
        "loss * (procs.world_size * share)",
        "loss * share",
        (STEP + "test_two_processes_equal_one[cross_entropy]",),
    ),
    Guard(
        "steps: accumulated batches are one",
        "fastseg/engine/step.py",
        ", procs) if None not in known else None\n",
        ", procs) if False else None\n",
        (STEP + "test_accumulated_batches_equal_one_batch[2-plain]",),
    ),
    Guard(
        "steps: OHEM's accumulated batches are averaged",
        "fastseg/engine/step.py",
        "            share = 1.0 if whole_step is not None else 1 / len(batches)\n",
        "            share = 1.0\n",
        (STEP + "test_ohem_accumulates_the_mean_of_the_batches",),
    ),
    Guard(
        "steps: statistics of norms cover all processes",
        "fastseg/layers/norm.py",
        "        dist.all_gather(gathered, local)\n",
        "        gathered = [local] * len(gathered)\n",
        ("tests/layers/test_norm.py::test_two_processes_equal_one_with_the_joined_batch[2+2-0.1]",),
    ),
    Guard(
        "steps: gradients of norms cover all processes",
        "fastseg/layers/norm.py",
        "        dist.all_reduce(sums)\n",
        "",
        ("tests/layers/test_norm.py::test_two_processes_equal_one_with_the_joined_batch[2+2-0.1]",),
    ),
    Guard(
        "steps: norms refuse a single value",
        "fastseg/layers/norm.py",
        "        if count <= 1:\n",
        "        if False:\n",
        ("tests/layers/test_norm.py::test_a_single_value_over_all_processes_is_refused_on_each",),
    ),
    Guard(
        "steps: one image is refused before the first",
        "fastseg/engine/train.py",
        "        build.check_batch_norm(config, train_data.info.num_classes, ",
        "        (config, train_data.info.num_classes, ",
        (TRAIN + "test_one_image_on_one_process_is_refused_before_the_first_step",),
    ),
    Guard(
        "steps: each process has its share of a batch",
        "fastseg/engine/build.py",
        "    if config.train.total_batch % shares:\n",
        "    if False:\n",
        (TRAIN + "test_a_batch_that_cannot_be_split_is_refused",),
    ),
]

EVALUATION = [
    Guard(
        "evaluation: every pixel is counted",
        "fastseg/engine/evaluate.py",
        "    if (images, pixels) != (total, matrix.pixels):\n",
        "    if images != total:\n",
        ("tests/engine/test_evaluate.py::test_a_pixel_that_is_not_counted_is_no_score",),
    ),
    Guard(
        "evaluation: each image on one process",
        "fastseg/engine/evaluate.py",
        "    share = range(rank, total, world)\n",
        "    share = range(total)\n",
        (EVALUATE + "test_any_number_of_images_on_any_number_of_processes_scores_as_on_one[2]",),
    ),
    Guard(
        "evaluation: counts of all processes",
        "fastseg/engine/evaluate.py",
        "    matrix.all_reduce()\n",
        "",
        (EVALUATE + "test_any_number_of_images_on_any_number_of_processes_scores_as_on_one[2]",),
    ),
    Guard(
        "evaluation: a limit is one",
        "fastseg/engine/evaluate.py",
        "    return len(dataset) if limit is None else min(limit, len(dataset))\n",
        "    return len(dataset)\n",
        (EVALUATE + "test_a_limit_takes_the_first_images_and_reads_no_more",),
    ),
    Guard(
        "evaluation: classes are those of the model",
        "fastseg/engine/evaluate.py",
        "    check_classes(predictor, dataset.info)\n",
        "",
        (EVALUATE + "test_class_counts_that_differ_are_both_named_before_anything_is_read",),
    ),
    Guard(
        "evaluation: of one network on all processes",
        "fastseg/engine/train.py",
        "            procs.copy_from_main(eval_model.buffers())",
        "           ",
        (TRAIN + "test_all_processes_evaluate_the_same_network",),
    ),
]
