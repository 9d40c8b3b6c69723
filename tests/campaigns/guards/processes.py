"""Processes, signals and what a run goes on from."""

from __future__ import annotations

from guards.guard import Guard

TRAIN = "tests/engine/test_train.py::"
SIGNALS = "tests/engine/test_train_signals.py::"
DISTRIBUTED = "tests/engine/test_distributed.py::"
HEARTBEAT = "tests/engine/test_heartbeat.py::"
RESUME_TESTS = "tests/engine/test_resume.py::"
ALLOW = "tests/engine/test_resume_allow.py::"
STEP = "tests/engine/test_step.py::"

PROCESSES = [
    Guard(
        "processes: a launcher that died early is missed",
        "fastseg/engine/distributed.py",
        '    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":\n',
        "    if False:\n",
        (DISTRIBUTED + "test_a_launcher_that_died_before_its_worker_looked_is_missed[1]",),
    ),
    Guard(
        "processes: all found the same files",
        "fastseg/engine/data_check.py",
        "    _require_the_same(procs, splits)\n",
        "",
        ("tests/engine/test_train.py::test_processes_that_find_other_files_are_refused",),
    ),
    Guard(
        "processes: a single one ends with its launcher",
        "fastseg/engine/distributed.py",
        '    if "TORCHELASTIC_RUN_ID" in os.environ or world_size > 1:\n',
        "    if world_size > 1:\n",
        ("tests/engine/test_distributed.py::test_workers_end_with_their_launcher",),
    ),
    Guard(
        "signals: none is lost before the first step",
        "fastseg/engine/train.py",
        "any(procs.gather(bool(stop)))",
        "False",
        ("tests/engine/test_train_signals.py::test_a_signal_before_the_first_step_takes_none",),
    ),
    Guard(
        "processes: a signal is a wish to stop",
        "fastseg/engine/distributed.py",
        "signal.signal(number, self._set)",
        "signal.signal(number, lambda *_: None)",
        (DISTRIBUTED + "test_a_signal_is_a_flag",),
    ),
    Guard(
        "processes: a second signal acts at once",
        "fastseg/engine/distributed.py",
        "        elif time.monotonic() - self._since > self.ECHO_SECONDS:\n",
        "        elif False:\n",
        (DISTRIBUTED + "test_a_second_signal_acts_at_once",),
    ),
    Guard(
        "processes: all stop after the same step",
        "fastseg/engine/step.py",
        "bool(packed[-1] > 0)",
        "stop",
        (STEP + "test_a_stop_on_one_process_reaches_both",),
    ),
    Guard(
        "processes: a signal stops an evaluation",
        "fastseg/engine/train.py",
        "evaluate(predictor, val_data, should_stop=should_stop)",
        "evaluate(predictor, val_data)",
        (SIGNALS + "test_a_signal_saves_and_the_run_goes_on_as_if_nothing_was[evaluation]",),
    ),
    Guard(
        "processes: all stop in the same evaluation",
        "fastseg/engine/evaluate.py",
        "    if stops:\n",
        "    if stopped:\n",
        (SIGNALS + "test_a_signal_to_one_process_in_the_final_evaluation_stops_both",),
    ),
    Guard(
        "processes: a signal reaches no loading process",
        "fastseg/data/loading.py",
        "            signal.signal(getattr(signal, name), signal.SIG_IGN)\n",
        "            pass\n",
        (SIGNALS + "test_a_signal_to_the_loading_processes_too_costs_no_step",),
    ),
    Guard(
        "processes: workers end with their launcher",
        "fastseg/parent.py",
        "    _C.prctl(pr_set_pdeathsig, number)\n",
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
    Guard(
        "processes: train.timeout is how long they wait",
        "fastseg/engine/train.py",
        "processes(config.train.device, timeout_seconds=config.train.timeout)",
        "processes(config.train.device)",
        (HEARTBEAT + "test_the_others_name_a_process_that_stands_still",),
    ),
    Guard(
        "processes: a job started again goes on",
        "fastseg/engine/train.py",
        '"auto" if is_restarted(run_dir) else resume',
        "resume",
        (ALLOW + "test_a_job_that_is_started_again_goes_on_by_itself",),
    ),
    Guard(
        "processes: a job started again goes on with its own run only",
        "fastseg/engine/resume.py",
        "        return (run_dir / JOB).read_text() == _job()\n",
        "        return True\n",
        (ALLOW + "test_another_job_does_not_go_on_with_a_run_because_it_was_refused_before",),
    ),
    Guard(
        "processes: one writer to a run folder",
        "fastseg/engine/resume.py",
        "        while try_lock(file) is False:\n",
        "        while False:\n",
        (TRAIN + "test_two_runs_do_not_share_a_folder",),
    ),
]

RESUMING = [
    Guard(
        "resume: the stream's place counts accumulated batches",
        "fastseg/engine/feed.py",
        "start=first * accumulate",
        "start=first",
        ("tests/engine/test_train_signals.py::test_a_run_that_accumulates_goes_on_at_its_place",),
    ),
    Guard(
        "resume: an earlier run is not overwritten",
        "fastseg/engine/resume.py",
        '        if any(folder.glob("step_*.pt")):\n',
        "        if False:\n",
        (TRAIN + "test_an_earlier_run_is_not_overwritten",),
    ),
    Guard(
        "resume: changed settings are refused",
        "fastseg/engine/resume.py",
        "    if refused:\n",
        "    if False:\n",
        (TRAIN + "test_a_changed_configuration_is_refused_by_key",),
    ),
    Guard(
        "resume: another number of processes is a change",
        "fastseg/engine/resume.py",
        "        values[WORLD_SIZE] = (table[WORLD_SIZE], procs.world_size)\n",
        "        pass\n",
        (TRAIN + "test_another_number_of_processes_is_refused",),
    ),
    Guard(
        "resume: a permission for nothing is refused",
        "fastseg/engine/resume.py",
        "        if name != WORLD_SIZE and not any(_is_within(key, name) for key in _keys(wanted)):\n",
        "        if False:\n",
        (ALLOW + "test_a_permission_for_nothing_is_a_mistake",),
    ),
    Guard(
        "resume: permitted settings are those of now",
        "fastseg/engine/resume.py",
        "        group.update(own)\n",
        "        pass\n",
        (ALLOW + "test_several_changes_are_named_at_once_and_a_section_allows_them",),
    ),
    Guard(
        "resume: a part that is missing is named",
        "fastseg/engine/resume.py",
        "    if missing:\n",
        "    if False:\n",
        (RESUME_TESTS + "test_a_checkpoint_without_a_part_is_refused[ema_updates]",),
    ),
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
        "resume: the best score",
        "fastseg/engine/train.py",
        'Progress(**table["progress"])',
        'Progress(**{**table["progress"], "best": -1.0})',
        (RESUME_TESTS + "test_resumed_at_any_step[15]",),
    ),
    Guard(
        "resume: which step was evaluated",
        "fastseg/engine/train.py",
        'Progress(**table["progress"])',
        'Progress(**{**table["progress"], "evaluated": -1})',
        (RESUME_TESTS + "test_resumed_at_any_step[8]",),
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
