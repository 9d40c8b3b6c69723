"""Predictions of folders."""

from __future__ import annotations

from guards.guard import Guard

JOURNAL_TESTS = "tests/test_journal.py::"
FOLDER_TESTS = "tests/test_folders.py::"

JOURNALS = [
    Guard(
        "journal: no link is followed",
        "fastseg/journal.py",
        "        check_target(self._path, overwrite=True)\n",
        "",
        ("tests/test_journal.py::test_a_journal_that_is_a_link_or_anothers_is_left_alone",),
    ),
    Guard(
        "journal: a line after one that was cut off",
        "fastseg/journal.py",
        '            self._write(b"\\n")  # the last line may have been cut off\n',
        "            pass\n",
        ("tests/test_journal.py::test_a_line_after_one_that_was_cut_off_counts",),
    ),
    Guard(
        "folders: half written files of others",
        "fastseg/atomic.py",
        " and found.name[:-16] in names",
        "",
        ("tests/test_journal.py::test_half_written_files_of_others_stay",),
    ),
    Guard(
        "journal: the image is the one that was done",
        "fastseg/journal.py",
        'line is None or line["image"] != _identity(file)',
        "line is None",
        (JOURNAL_TESTS + "test_what_is_not_as_it_was_left_is_made_again[an image has changed]",),
    ),
    Guard(
        "journal: results are as they were left",
        "fastseg/journal.py",
        'line["results"] == {os.fspath(target.name): digest(target) for target in targets}',
        "True",
        (JOURNAL_TESTS + "test_what_is_not_as_it_was_left_is_made_again[a result is cut]",),
    ),
    Guard(
        "journal: others' files are not replaced",
        "fastseg/journal.py",
        "        return os.fspath(file) in self._begun\n",
        "        return True\n",
        (JOURNAL_TESTS + "test_files_of_others_are_not_replaced",),
    ),
    Guard(
        "journal: what was begun is written down",
        "fastseg/folders.py",
        "        journal.begin(job.file)\n",
        "",
        (JOURNAL_TESTS + "test_a_run_that_is_killed_goes_on_and_ends_equal",),
    ),
    Guard(
        "journal: changed settings are refused",
        "fastseg/journal.py",
        '            self._refuse_changes(earlier[0]["settings"], settings)\n',
        "",
        (JOURNAL_TESTS + "test_results_that_were_made_otherwise_are_not_mixed",),
    ),
    Guard(
        "journal: a file of others is left alone",
        "fastseg/journal.py",
        "            if not BEGIN.startswith(begin):\n",
        "            if False:\n",
        (JOURNAL_TESTS + "test_a_journal_that_is_a_link_or_anothers_is_left_alone",),
    ),
    Guard(
        "journal: one run writes to a folder",
        "fastseg/journal.py",
        "        if try_lock(self._file) is False:\n",
        "        if False:\n",
        (JOURNAL_TESTS + "test_two_runs_do_not_write_to_one_folder",),
    ),
    Guard(
        "journal: a line that was cut off does not count",
        "fastseg/journal.py",
        "            except ValueError:\n",
        "            except KeyError:\n",
        (JOURNAL_TESTS + "test_a_line_that_was_cut_off_does_not_count",),
    ),
]

FOLDERS = [
    Guard(
        "folders: nothing is written outside",
        "fastseg/folders.py",
        "            _check_inside(target, out_dir)\n",
        "",
        (FOLDER_TESTS + "test_a_link_in_the_output_folder_cannot_lead_out_of_it",),
    ),
    Guard(
        "folders: what exists is known before the network runs",
        "fastseg/folders.py",
        "            check_target(target, overwrite=job.replaces)\n",
        "",
        (FOLDER_TESTS + "test_existing_results_are_kept_without_running_the_network",),
    ),
    Guard(
        "folders: no file is replaced unasked",
        "fastseg/output.py",
        "        check_target(path, overwrite=overwrite)\n",
        "",
        ("tests/test_output.py::test_an_existing_file_is_kept_unless_overwrite",),
    ),
    Guard(
        "folders: only regular files are replaced",
        "fastseg/output.py",
        "    if not stat.S_ISREG(status.st_mode):\n",
        "    if False:\n",
        ("tests/test_output.py::test_only_regular_files_are_replaced",),
    ),
    Guard(
        "folders: results are no images of the next run",
        "fastseg/folders.py",
        "    refuse_rereading(inputs, [stem for _, stem in found], kinds, out_dir)\n",
        "",
        (FOLDER_TESTS + "test_a_pattern_that_would_match_its_results_is_refused",),
    ),
    Guard(
        "folders: results below the images are not read",
        "fastseg/folders.py",
        "find_inputs(inputs, skip=out_dir)",
        "find_inputs(inputs)",
        (FOLDER_TESTS + "test_an_output_folder_below_the_input_is_not_read",),
    ),
    Guard(
        "folders: no two results have one name",
        "fastseg/inputs.py",
        "        if not raised:\n",
        "        if True:\n",
        (FOLDER_TESTS + "test_names_that_meet_keep_their_suffix",),
    ),
    Guard(
        "folders: one bad file does not end the run",
        "fastseg/folders.py",
        "            except FastsegError as error:\n",
        "            except ZeroDivisionError as error:\n",
        (FOLDER_TESTS + "test_bad_files_are_reported_and_the_rest_goes_on",),
    ),
    Guard(
        "folders: what killed runs left half written goes",
        "fastseg/folders.py",
        "    remove_abandoned(target for job in jobs for target in job.targets.values())",
        "   ",
        (JOURNAL_TESTS + "test_a_run_that_is_killed_goes_on_and_ends_equal",),
    ),
    Guard(
        "folders: a failures.json of others stays",
        "fastseg/folders.py",
        '        if not isinstance(earlier, dict) or earlier.keys() != {"failed"}:\n',
        "        if False:\n",
        (FOLDER_TESTS + "test_a_failures_json_of_someone_else_is_never_touched",),
    ),
    Guard(
        "prediction: NaN is an error and no class",
        "fastseg/inference.py",
        "    if torch.isfinite(values.sum()) or torch.isfinite(values).all():\n",
        "    if True:\n",
        ("tests/test_predict.py::test_weights_that_give_nan_are_an_error_and_not_class_zero",),
    ),
    Guard(
        "export: a file is written only where it agrees",
        "fastseg/engine/export_check.py",
        "    if not size.logit_difference <= limit:  # NaN is no agreement either\n",
        "    if False:\n",
        ("tests/engine/test_export.py::test_other_logits_are_a_failure_though_labels_agree",),
    ),
]
