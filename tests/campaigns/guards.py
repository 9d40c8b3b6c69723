"""What protects runs, files and numbers, and the tests that fail where it is missing."""

from __future__ import annotations

from typing import NamedTuple


class Guard(NamedTuple):
    """`code`, which stands once in `file`, is replaced by `instead`; then one of `tests` has to fail."""

    name: str
    file: str
    code: str
    instead: str
    tests: tuple[str, ...]


CHECKPOINT = "tests/engine/test_checkpoint.py::"
SAVING_TESTS = "tests/engine/test_saving.py::"
BAD_STEPS = "tests/engine/test_train_bad_steps.py::"
TRAIN = "tests/engine/test_train.py::"
SIGNALS = "tests/engine/test_train_signals.py::"
DISTRIBUTED = "tests/engine/test_distributed.py::"
HEARTBEAT = "tests/engine/test_heartbeat.py::"
RESUME_TESTS = "tests/engine/test_resume.py::"
ALLOW = "tests/engine/test_resume_allow.py::"
STEP = "tests/engine/test_step.py::"
EVALUATE = "tests/engine/test_evaluate.py::"
WEIGHTS = "tests/weights/test_files.py::"
LOADER_TESTS = "tests/data/test_loader.py::"
READER_TESTS = "tests/data/test_readers.py::"
JOURNAL_TESTS = "tests/test_journal.py::"
FOLDER_TESTS = "tests/test_folders.py::"

FILES = [
    Guard(
        "files: written beside and renamed",
        "fastseg/atomic.py",
        "        os.replace(temporary, path)\n",
        "        path.write_bytes(data)\n        temporary.unlink()\n",
        (CHECKPOINT + "test_kill_9_while_saving_leaves_the_one_before",),
    ),
    Guard(
        "files: fsync before the rename",
        "fastseg/atomic.py",
        "            os.fsync(file.fileno())\n",
        "",
        (CHECKPOINT + "test_kill_9_while_saving_leaves_the_one_before",),
    ),
    Guard(
        "files: fsync of the folder after the rename",
        "fastseg/atomic.py",
        "        _sync_folder(path.parent)\n",
        "",
        (CHECKPOINT + "test_kill_9_while_saving_leaves_the_one_before[fsync:4-3]",),
    ),
    Guard(
        "files: a full disk is an error of the caller's",
        "fastseg/atomic.py",
        "    except (OSError, ValueError) as problem:",
        "    except ValueError as problem:",
        (CHECKPOINT + "test_a_full_disk_is_named_and_costs_nothing",),
    ),
    Guard(
        "files: nothing half written stays after an error",
        "fastseg/atomic.py",
        "            temporary.unlink()\n",
        "            pass\n",
        (CHECKPOINT + "test_a_full_disk_is_named_and_costs_nothing",),
    ),
]
CHECKPOINTS = [
    Guard(
        "checkpoints: one chosen by its path is verified",
        "fastseg/engine/checkpoint.py",
        '        raise CheckpointError(f"{path}: {problem}',
        '        str(f"{path}: {problem}',
        (CHECKPOINT + "test_a_zero_tail_falls_back",),
    ),
    Guard(
        "checkpoints: of a newer format",
        "fastseg/weights/files.py",
        "    if number > FORMAT_VERSION:\n",
        "    if False:\n",
        ("tests/weights/test_golden.py::test_a_newer_format_asks_for_a_newer_fastseg",),
    ),
    Guard(
        "checkpoints: no code in them",
        "fastseg/weights/files.py",
        "weights_only=True",
        "weights_only=False",
        (WEIGHTS + "test_a_pickle_that_runs_code_is_refused_without_running_it[torch]",),
    ),
    Guard(
        "checkpoints: no more than they can hold",
        "fastseg/weights/files.py",
        "    _refuse_bomb(path)\n",
        "",
        ("tests/weights/test_golden.py::test_a_bomb_is_refused_before_it_is_unpacked",),
    ),
    Guard(
        "weights: another number of classes is said",
        "fastseg/weights/files.py",
        "        if ours[:1] == (model.num_classes,) and theirs[1:] == ours[1:]:\n",
        "        if False:\n",
        (WEIGHTS + "test_another_number_of_classes_is_said_in_those_words",),
    ),
    Guard(
        "weights: prefixes of wrappers go",
        "fastseg/weights/files.py",
        "    while name.startswith(_PREFIXES):\n",
        "    while False:\n",
        (WEIGHTS + "test_loading_is_exact_and_wrappers_prefixes_are_stripped",),
    ),
    Guard(
        "weights: tensors that do not fit are refused",
        "fastseg/weights/files.py",
        "    if missing or extra or different:\n",
        "    if False:\n",
        (WEIGHTS + "test_missing_extra_and_misshapen_tensors_are_counted_and_shown_and_nothing_is_loaded",),
    ),
    Guard(
        "weights: published ones are intact",
        "fastseg/weights/zoo.py",
        "    if expected_sha256 and info.sha256 != expected_sha256:\n",
        "    if False:\n",
        ("tests/weights/test_zoo.py::test_a_damaged_published_file_is_refused",),
    ),
]
SAVING = []
PROCESSES = [
    Guard(
        "processes: all stop after the same step",
        "fastseg/engine/step.py",
        "bool(packed[-1] > 0)",
        "stop",
        (STEP + "test_a_stop_on_one_process_reaches_both",),
    ),
    Guard(
        "processes: a signal reaches no loading process",
        "fastseg/data/loading.py",
        "        signal.signal(number, signal.SIG_IGN)\n",
        "        pass\n",
        (SIGNALS + "test_a_signal_to_the_loading_processes_too_costs_no_step",),
    ),
    Guard(
        "processes: workers end with their launcher",
        "fastseg/parent.py",
        "    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, number)\n",
        "",
        (DISTRIBUTED + "test_workers_end_with_their_launcher",),
    ),
    Guard(
        "processes: who died is named",
        "fastseg/engine/heartbeat.py",
        "            found = [each for each in others if each.state]\n",
        "",
        (HEARTBEAT + "test_the_others_name_a_process_that_died",),
    ),
    Guard(
        "processes: only errors of others are taken for such",
        "fastseg/engine/heartbeat.py",
        'isinstance(error, dist.DistError) or any(name in text for name in ("gloo", "nccl", "by peer"))',
        "bool(text)",
        (HEARTBEAT + "test_only_errors_of_other_processes_are_taken_for_such",),
    ),
    Guard(
        "processes: errors of others are known",
        "fastseg/engine/heartbeat.py",
        ' or any(name in text for name in ("gloo", "nccl", "by peer"))',
        "",
        (HEARTBEAT + "test_only_errors_of_other_processes_are_taken_for_such",),
    ),
]
STEPS = [
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
RESUMING = [
    Guard(
        "resume: weights",
        "fastseg/engine/train.py",
        '            load_state(model, table["model"], str(checkpoint))\n',
        "",
        (RESUME_TESTS + "test_resumed_at_any_step[19]",),
    ),
    Guard(
        "resume: optimiser",
        "fastseg/engine/train.py",
        "            restore_optimizer(optimizer, table, config)\n",
        "",
        (RESUME_TESTS + "test_resumed_at_any_step[18]",),
    ),
    Guard(
        "resume: average",
        "fastseg/engine/train.py",
        "                average.state = {name: value.to(procs.device).clone() for name, value in stored.items()}\n",
        "",
        (RESUME_TESTS + "test_resumed_at_any_step[19]",),
    ),
    Guard(
        "resume: updates of the average",
        "fastseg/engine/train.py",
        '                average.updates = table["ema_updates"]\n',
        "",
        (RESUME_TESTS + "test_resumed_at_any_step[19]",),
    ),
    Guard(
        "resume: random streams",
        "fastseg/engine/train.py",
        "            restore_random_state(table, procs, own_seed)\n",
        "            pass\n",
        (RESUME_TESTS + "test_resumed_at_any_step[19]",),
    ),
    Guard(
        "resume: streams of other processes begin anew",
        "fastseg/engine/resume.py",
        '        torch.manual_seed(seed + 7919 * table["progress"]["iteration"])\n',
        "        torch.manual_seed(seed)\n",
        (ALLOW + "test_streams_of_other_processes_begin_anew_and_differ_by_step",),
    ),
    Guard(
        "resume: the stream goes on where it was",
        "fastseg/engine/feed.py",
        "start=first * accumulate",
        "start=0",
        (RESUME_TESTS + "test_resumed_at_any_step[19]",),
    ),
    Guard(
        "resume: rows after the checkpoint go",
        "fastseg/engine/record.py",
        " and int(row[0]) <= iteration]",
        "]",
        (RESUME_TESTS + "test_resumed_at_any_step[19]",),
    ),
]
LOADING = [
    Guard(
        "loader: augmentation by epoch",
        "fastseg/data/loader.py",
        "= (self.seed, epoch, index)\n",
        "= (self.seed, 0, index)\n",
        (LOADER_TESTS + "test_a_sample_is_named_by_its_key_and_differs_between_epochs",),
    ),
    Guard(
        "loader: another order in every epoch",
        "fastseg/data/loader.py",
        "_generator(self.seed, epoch).permutation",
        "_generator(self.seed, 0).permutation",
        (LOADER_TESTS + "test_epochs_and_seeds_shuffle_differently",),
    ),
    Guard(
        "loader: processes share one stream",
        "fastseg/data/loader.py",
        "(batch * self.world_size + self.rank) * self.batch_size",
        "batch * self.world_size * self.batch_size",
        (LOADER_TESTS + "test_processes_share_one_stream_without_overlap",),
    ),
    Guard(
        "loader: a stream starts at any step",
        "fastseg/data/loader.py",
        "range(self.start, self.stop)",
        "range(self.stop - self.start)",
        (LOADER_TESTS + "test_starting_later_gives_the_rest_of_the_stream",),
    ),
    Guard(
        "loader: no global random state",
        "fastseg/data/loader.py",
        "        generator=torch.Generator().manual_seed(seed),\n",
        "",
        (LOADER_TESTS + "test_no_global_random_state_is_touched",),
    ),
    Guard(
        "loader: no class too many",
        "fastseg/data/loader.py",
        "        if int((label + np.uint8(1)).max()) > num_classes:\n",
        "        if False:\n",
        (LOADER_TESTS + "test_a_label_that_is_no_class_never_leaves_the_loader",),
    ),
    Guard(
        "data: a few samples are read before the first step",
        "fastseg/engine/train.py",
        '        check_samples(config, procs, {"data.train_split": train_images, "data.val_split": val_data})\n',
        "",
        ("tests/engine/test_train_doctor.py::test_a_bad_label_stops_the_run_before_it_begins",),
    ),
    Guard(
        "data: missing files are known before the first step",
        "fastseg/data/listing.py",
        "    if missing:\n",
        "    if False:\n",
        ("tests/data/test_camvid.py::test_a_listed_image_without_label_is_missing",),
    ),
    Guard(
        "data: image and label are of one size",
        "fastseg/data/dataset.py",
        "        if label.shape != image.shape[:2]:\n",
        "        if False:\n",
        ("tests/data/test_dataset.py::test_a_label_of_another_size_names_both_files_and_sizes",),
    ),
    Guard(
        "data: a number that stands for nothing is refused",
        "fastseg/data/coding.py",
        "        wrong = label == INVALID\n",
        "        wrong = label != label\n",
        ("tests/data/test_coding.py::test_a_number_is_a_class_or_ignored_or_refused",),
    ),
    Guard(
        "data: a colour that stands for nothing is refused",
        "fastseg/data/coding.py",
        "        wrong = self._codes[place] != codes\n",
        "        wrong = codes != codes\n",
        ("tests/data/test_coding.py::test_another_colour_is_refused_with_its_file_and_count",),
    ),
    Guard(
        "data: members of archives are of a size that images have",
        "fastseg/data/files.py",
        "        if info.file_size > LARGEST_MEMBER:\n",
        "        if False:\n",
        ("tests/data/test_data_files.py::test_a_member_that_unpacks_to_too_much_is_refused",),
    ),
    Guard(
        "configuration: unknown keys",
        "fastseg/config/load.py",
        '        _check_keys(table, Config, "", where)\n',
        "",
        ("tests/test_config.py::test_a_mistake_in_a_file_names_file_key_and_remedy",),
    ),
    Guard(
        "configuration: impossible values",
        "fastseg/config/load.py",
        "    check_values(config, where)\n",
        "",
        ("tests/test_config.py::test_an_impossible_value_names_the_key_in_file_and_override",),
    ),
]
READERS = [
    Guard(
        "readers: pixels are limited by the header",
        "fastseg/data/readers.py",
        "    _check_pixels(image.size, name, max_pixels)\n",
        "",
        (READER_TESTS + "test_a_bomb_is_refused_by_its_header",),
    ),
    Guard(
        "readers: whatever a decoder raises is one error",
        "fastseg/data/readers.py",
        "    except Exception as error:\n",
        "    except ZeroDivisionError as error:\n",
        (READER_TESTS + "test_a_truncated_file_is_an_error_or_whole",),
    ),
    Guard(
        "readers: label values up to 255",
        "fastseg/data/readers.py",
        "    if values.size and (int(values.min()) < 0 or int(values.max()) > 255):\n",
        "    if False:\n",
        (READER_TESTS + "test_labels_above_255_are_refused_with_their_range",),
    ),
    Guard(
        "readers: a colour picture is no label",
        "fastseg/data/readers.py",
        '        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N"):\n',
        "        if False:\n",
        (READER_TESTS + "test_colour_masks_are_refused_naming_the_file",),
    ),
    Guard(
        "readers: no mask is a JPEG",
        "fastseg/data/readers.py",
        '        if image.format in ("JPEG", "MPO"):\n',
        "        if False:\n",
        ("tests/data/test_label_readers.py::test_jpeg_cannot_hold_a_mask",),
    ),
    Guard(
        "readers: images are turned as a person sees them",
        "fastseg/data/readers.py",
        "        return image.transpose(UPRIGHT[pending]) if pending in UPRIGHT else image\n",
        "        return image\n",
        (READER_TESTS + "test_exif_is_applied_when_asked_and_pixels_are_as_stored_otherwise",),
    ),
    Guard(
        "readers: labels are not turned",
        "fastseg/data/readers.py",
        "AS_STORED[tagged]) if tagged in UPRIGHT and pending not in UPRIGHT else image\n",
        "AS_STORED[tagged]) if False else image\n",
        (READER_TESTS + "test_labels_ignore_exif_also_in_tiff",),
    ),
    Guard(
        "matlab: pixels are limited by the header",
        "fastseg/data/matlab.py",
        "            if shape[0] * shape[1] > max_pixels:\n",
        "            if False:\n",
        ("tests/data/test_matlab.py::test_a_bomb_is_refused_before_it_is_unpacked",),
    ),
]
EVALUATION = []
JOURNALS = []
FOLDERS = []
GUARDS = [
    *FILES,
    *CHECKPOINTS,
    *SAVING,
    *PROCESSES,
    *STEPS,
    *RESUMING,
    *LOADING,
    *READERS,
    *EVALUATION,
    *JOURNALS,
    *FOLDERS,
]
