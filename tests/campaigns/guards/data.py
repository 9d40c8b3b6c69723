"""Data: streams of batches, and files that are read."""

from __future__ import annotations

from guards.guard import Guard

LOADER_TESTS = "tests/data/test_loader.py::"
READER_TESTS = "tests/data/test_readers.py::"

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
        "data: files without a partner are known before the first step",
        "fastseg/data/listing.py",
        "        if alone:\n",
        "        if False:\n",
        ("tests/data/test_listing.py::test_a_file_without_its_partner_is_an_error",),
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
    Guard(
        "matlab: no more is unpacked than a map holds",
        "fastseg/data/matlab.py",
        "    if size > largest:  # before it takes memory\n",
        "    if False:\n",
        ("tests/test_hostile_files.py::test_hostile_files_cost_little[matlab]",),
    ),
    Guard(
        "signals: the stack of their handlers is kept",
        "fastseg/signal_stack.py",
        "    if exchange is None:\n",
        "    if True:\n",
        ("tests/test_exported.py::test_a_process_that_opened_files_survives_signals",),
    ),
]
