"""Files, checkpoints and weights."""

from __future__ import annotations

from guards.guard import Guard

CHECKPOINT = "tests/engine/test_checkpoint.py::"
SAVING_TESTS = "tests/engine/test_saving.py::"
WEIGHTS = "tests/weights/test_files.py::"
JOURNAL_TESTS = "tests/test_journal.py::"

TRAIN = "tests/engine/test_train.py::"

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
    Guard(
        "files: what killed runs left half written goes",
        "fastseg/atomic.py",
        "                    found.unlink(missing_ok=True)\n",
        "                    pass\n",
        (JOURNAL_TESTS + "test_a_run_that_is_killed_goes_on_and_ends_equal",),
    ),
]

CHECKPOINTS = [
    Guard(
        "checkpoints: another branch is set aside",
        "fastseg/engine/train.py",
        "for path in set_aside(folder, state.iteration)]",
        "for path in ()]",
        (TRAIN + "test_a_run_that_goes_on_from_before_its_newest_checkpoint_sets_that_aside",),
    ),
    Guard(
        "checkpoints: SHA-256",
        "fastseg/engine/checkpoint.py",
        "    if file_sha256(path) in expected:\n",
        "    if path.stat().st_size == size:\n",
        (CHECKPOINT + "test_every_flipped_bit_is_seen",),
    ),
    Guard(
        "checkpoints: what a save replaces is whole",
        "fastseg/engine/checkpoint.py",
        "    if path.exists() and _damage(path) is None:",
        "    if path.exists():",
        (CHECKPOINT + "test_damage_is_not_taken_for_what_is_replaced",),
    ),
    Guard(
        "checkpoints: a step saved again names what it replaces",
        "fastseg/engine/checkpoint.py",
        '        manifest["replaces"] = file_sha256(path)\n',
        "        pass\n",
        (CHECKPOINT + "test_kill_9_while_saving_a_step_again_leaves_that_step[replace:2]",),
    ),
    Guard(
        "checkpoints: read back before an older one goes",
        "fastseg/engine/checkpoint.py",
        '    failpoint("checkpoint written")\n    problem = _damage(path)\n',
        '    failpoint("checkpoint written")\n    problem = None\n',
        (CHECKPOINT + "test_the_old_one_is_deleted_only_after_the_new_one_reads_back",),
    ),
    Guard(
        "checkpoints: two are kept",
        "fastseg/engine/checkpoint.py",
        "KEEP = 2\n",
        "KEEP = 1\n",
        (CHECKPOINT + "test_two_are_kept",),
    ),
    Guard(
        "checkpoints: damaged ones are not among the two",
        "fastseg/engine/checkpoint.py",
        "        intact += _damage(older.pop()) is None\n",
        "        intact += older.pop().exists()\n",
        (CHECKPOINT + "test_a_damaged_one_is_not_among_the_two_that_are_kept",),
    ),
    Guard(
        "checkpoints: an older one where the newest is damaged",
        "fastseg/engine/checkpoint.py",
        "reversed(_all(folder)):",
        "_all(folder)[-1:]:",
        (CHECKPOINT + "test_a_truncated_file_falls_back",),
    ),
    Guard(
        "checkpoints: nothing but damage is no new run",
        "fastseg/engine/checkpoint.py",
        "    if problems:\n",
        "    if False:\n",
        (CHECKPOINT + "test_damage_everywhere_is_an_error_that_lists_it",),
    ),
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
        "weights: tensors that the network lacks are refused",
        "fastseg/weights/files.py",
        "    if missing or extra or different:\n",
        "    if missing or different:\n",
        ("tests/weights/test_zoo.py::test_arguments_that_do_not_fit_the_weights_are_refused",),
    ),
    Guard(
        "weights: published ones are intact",
        "fastseg/weights/zoo.py",
        "    if expected_sha256 and info.sha256 != expected_sha256:\n",
        "    if False:\n",
        ("tests/weights/test_zoo.py::test_a_damaged_published_file_is_refused",),
    ),
]

SAVING = [
    Guard(
        "saving: steps before a bad image",
        "fastseg/engine/train.py",
        "                if alone and state.iteration and saver.save(state.iteration, table_now()):",
        "                if False:",
        ("tests/engine/test_train_signals.py::test_what_cannot_be_loaded_costs_no_step",),
    ),
    Guard(
        "saving: a full disk costs no run its reports",
        "fastseg/engine/record.py",
        "        except OSError as error:\n            self._lost(str(path), error)\n",
        "        except ZeroDivisionError as error:\n            self._lost(str(path), error)\n",
        ("tests/engine/test_record.py::test_a_full_disk_costs_the_report_and_not_the_run",),
    ),
    Guard(
        "saving: a run outlives two failures",
        "fastseg/engine/saving.py",
        "FAILURES_ALLOWED = 3 ",
        "FAILURES_ALLOWED = 1 ",
        (SAVING_TESTS + "test_a_run_goes_on_without_two_checkpoints",),
    ),
    Guard(
        "saving: failures count in a row",
        "fastseg/engine/saving.py",
        "            self.failures = 0\n",
        "",
        (SAVING_TESTS + "test_a_run_goes_on_without_two_checkpoints",),
    ),
    Guard(
        "saving: the third failure ends the run",
        "fastseg/engine/saving.py",
        "        if last or left == 0:\n",
        "        if last:\n",
        (SAVING_TESTS + "test_a_disk_that_stays_full_ends_the_run_and_what_was_saved_stays[three in a row]",),
    ),
    Guard(
        "saving: the last checkpoint is needed",
        "fastseg/engine/saving.py",
        "        if last or left == 0:\n",
        "        if left == 0:\n",
        (SAVING_TESTS + "test_a_disk_that_stays_full_ends_the_run_and_what_was_saved_stays[the last]",),
    ),
    Guard(
        "saving: all processes hear of a failure",
        "fastseg/engine/saving.py",
        "        problem = self.procs.from_main(problem)\n",
        "        self.procs.from_main(problem)\n",
        (SAVING_TESTS + "test_all_processes_end_when_the_first_cannot_save",),
    ),
    Guard(
        "saving: room is looked for before the first step",
        "fastseg/engine/train.py",
        "            check_room(run_dir, model, config.optim.name, average=average is not None)\n",
        "",
        (SAVING_TESTS + "test_too_little_room_is_known_before_the_first_step",),
    ),
]
