"""Training: one loop, read from top to bottom."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fastseg.config import Config
from fastseg.data.cache import disk_cached
from fastseg.data.dataset import CachedDataset
from fastseg.data.loading import StoppedWaitingError, named_failures
from fastseg.engine import build, init_from, training_data
from fastseg.engine.checkpoint import load_checkpoint, set_aside
from fastseg.engine.data_check import check_samples
from fastseg.engine.distributed import Processes, StopFlag, processes
from fastseg.engine.dry_run import STEPS
from fastseg.engine.dry_run import dry_run as run_dry
from fastseg.engine.evaluate import EvaluationStoppedError, evaluate
from fastseg.engine.feed import feed
from fastseg.engine.optimizer import (
    WeightAverage,
    all_finite,
    learning_rate_factor,
    set_learning_rate,
)
from fastseg.engine.record import Record
from fastseg.engine.resume import (
    Progress,
    is_restarted,
    locked,
    prepare_run_dir,
    random_state,
    refuse_changes,
    resolve_resume,
    restore_optimizer,
    restore_random_state,
)
from fastseg.engine.saving import Saver, check_room
from fastseg.engine.step import backward
from fastseg.errors import FastsegError
from fastseg.failpoints import failpoint
from fastseg.layers.norm import convert_norm, resolve_norm_kind
from fastseg.metrics import Scores
from fastseg.predict import Predictor
from fastseg.weights.files import FORMAT_VERSION, info_to_dict, load_state, save_weights

BAD_STEPS_ALLOWED = 10


@dataclass(frozen=True)
class TrainResult:
    """`scores` of the final evaluation and the file of final `weights`; or the signal that `stopped` the run early.

    `stopped` is the signal's name, 'SIGTERM' for one, on every process; '' when the run is complete.
    """

    run_dir: Path
    iterations: int
    scores: Scores | None
    weights: Path | None
    stopped: str = ""


def train(
    config: Config, *, resume: str = "no", resume_allow: Collection[str] = (), dry_run: bool = False
) -> TrainResult:
    """Train as configured, and leave checkpoints, logs and weights in `config.run_dir`.

    `resume` is 'no', 'auto' (the run folder's newest intact checkpoint, if there is one) or a checkpoint's path; a
    resumed run is bitwise the uninterrupted one on CPU. A process that torchrun has started again (`--max-restarts`)
    goes on from the checkpoints of its own job. `resume_allow` names keys of the configuration, or 'world_size', that
    may differ from the interrupted run's; the run is then not the one it would have been. `dry_run` builds everything
    and runs two steps on random images without reading or writing any file. Runs alone or as a process of torchrun.
    Raises FastsegError for mistakes in the configuration, before the first step, and for weights, or ten steps in a
    row, that are not finite, DistributedError when another process died or has not answered for `train.timeout`
    seconds, and CheckpointError when three checkpoints in a row could not be written.
    """
    with (
        StopFlag() as stop,  # outermost: a launcher signals those that are still finding out who died
        processes(config.train.device, timeout_seconds=config.train.timeout) as procs,
        contextlib.ExitStack() as held,
    ):
        torch.manual_seed(config.train.seed)
        torch.use_deterministic_algorithms(config.train.deterministic)
        if dry_run:
            run_dry(config, procs)
            return TrainResult(Path(config.run_dir), STEPS, None, None)

        # data
        train_images, sources = training_data.build_training_data(config)
        val_data = build.build_split(config, config.data.val_split)
        check_samples(config, procs, {"data.train_split": train_images, "data.val_split": val_data})
        notes = training_data.notes(config, train_images, val_data)
        if config.data.cache == "memory":
            train_images, val_data = CachedDataset(train_images), CachedDataset(val_data)
        elif config.data.cache == "disk":
            train_images = disk_cached(train_images, config.data.cache_dir, announce=procs.is_main)
            val_data = disk_cached(val_data, config.data.cache_dir, announce=procs.is_main)
        train_data = training_data.repeated(train_images, sources)
        info = build.weights_info(config, train_data.info)
        batch_size = build.split_batch(config, procs)
        steps_per_epoch = len(train_data) / config.train.total_batch
        total = config.schedule.iterations or max(1, round(config.schedule.epochs * steps_per_epoch))
        eval_every = max(1, round(config.train.eval_every * steps_per_epoch))

        # model, norm, processes
        norm = resolve_norm_kind(config.train.norm, world_size=procs.world_size, device_type=procs.device.type)
        build.check_batch_norm(config, train_data.info.num_classes, build.images_per_norm(config, procs, norm))
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        model = build.build_model(config, train_data.info.num_classes).to(procs.device).to(memory_format=layout)
        model.weights_info = info  # a network may ask how its images were normalised
        eval_model = copy.deepcopy(model).eval()
        model = convert_norm(model, norm).train()  # type: ignore[assignment]
        optimizer = build.build_optimizer(config, model)
        scaler = torch.amp.GradScaler(procs.device.type, enabled=config.train.precision == "fp16")
        seg_loss = build.build_loss(config, model, train_data)

        # resume
        run_dir, state = Path(config.run_dir), Progress()
        folder, checkpoint = run_dir / "checkpoints", None
        if procs.is_main:
            held.enter_context(locked(run_dir, lambda: bool(stop), config.train.timeout / 2))
            checkpoint = resolve_resume("auto" if is_restarted(run_dir) else resume, folder)
        checkpoint = procs.from_main(checkpoint)  # one choice: another run may have been saving until now
        begun_with = init_from.begin(config, model, info.dataset, procs) if checkpoint is None else ""
        average = WeightAverage(model, config.train.ema_decay) if config.train.ema_decay else None
        if checkpoint is not None:
            table = load_checkpoint(checkpoint)
            changes = refuse_changes(table, config, procs, checkpoint, resume_allow)
            notes += [f"not the run that it was: {change}" for change in changes]
            load_state(model, table["model"], str(checkpoint))
            restore_optimizer(optimizer, table, config)
            if table["scaler"] or not scaler.is_enabled():
                scaler.load_state_dict(table["scaler"])
            if average is not None:
                stored = table["ema"] or table["model"]
                average.state = {name: value.to(procs.device).clone() for name, value in stored.items()}
                average.updates = table["ema_updates"]
            state = Progress(**table["progress"])
        if procs.is_main:
            prepare_run_dir(run_dir, config)
            check_room(run_dir, model, config.optim.name, average=average is not None)
            if checkpoint is not None:
                notes += [f"of another branch, set aside: {path}" for path in set_aside(folder, state.iteration)]
        # each process its own stream of dropout, each run its own streams
        own_seed = config.train.seed * 1_000_003 + procs.rank
        torch.manual_seed(own_seed)
        if checkpoint is not None:
            restore_random_state(table, procs, own_seed)
        procs.barrier()
        failpoint("run prepared")
        # a finished run is only evaluated again
        evaluated = state.evaluated if state.iteration < total else min(state.evaluated, total - 1)
        record = Record(run_dir, iteration=state.iteration, evaluated=evaluated, total=total, enabled=procs.is_main)
        parallel = _parallel(model, procs)
        record.say(
            f"model {config.model.name}: {sum(p.numel() for p in model.parameters()):,} parameters, "
            f"{train_data.info.num_classes} classes ({train_data.info.name}), norm {norm}, "
            f"{config.train.precision} on {procs.device}\n"
            f"total batch {config.train.total_batch} = {procs.world_size} processes x {batch_size} images x "
            f"{config.train.accumulate} accumulation steps; {len(train_data)} images"
            f"{training_data.described(sources)}, {steps_per_epoch:.1f} iterations per epoch\n"
            f"{total} iterations ({total / steps_per_epoch:.1f} epochs), evaluation every {eval_every} on "
            f"{len(val_data)} images of {config.data.val_split}; run folder {run_dir}"
            + (f"\nresumed from {checkpoint} at iteration {state.iteration}" if checkpoint else "")
            + "".join(f"\n{line}" for line in (begun_with, *notes) if line)
        )

        def table_now() -> dict[str, Any]:
            return {
                "format_version": FORMAT_VERSION,
                "info": info_to_dict(info),
                "config": asdict(config),
                "world_size": procs.world_size,
                "model": model.state_dict(),
                "ema": average.state if average else None,
                "ema_updates": average.updates if average else 0,
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "random": procs.gather(random_state(procs)),
                "progress": asdict(state),
            }

        saver = Saver(folder, procs, record.say)

        def should_stop() -> bool:
            failpoint("image evaluated")
            procs.beat(state.iteration)
            return bool(stop)

        def write_weights(name: str, tensors: dict[str, Tensor], scores: Scores) -> None:
            measured = f"{100 * scores.miou:.2f} mIoU on {val_data.info.name} {config.data.val_split}"
            save_weights(run_dir / f"{name}.safetensors", tensors, replace(info, metric_measured=measured))
            failpoint(f"{name} weights written")

        def score() -> Scores | None:
            """Scores of the weights as they are; None when any process was told to stop before the last image."""
            weights = average.state if average else model.state_dict()
            load_state(eval_model, weights, "the run's weights")
            procs.copy_from_main(eval_model.buffers())  # the statistics of plain norms differ between processes
            try:
                predictor = Predictor(eval_model, device=procs.device)
                scores = evaluate(predictor, val_data, should_stop=should_stop)
            except EvaluationStoppedError:
                return None
            state.evaluated = state.iteration
            record.evaluation(state.iteration, _score_columns(scores))
            failpoint("scores written")
            record.say(f"[{state.iteration}/{total}] {config.data.val_split} mIoU {100 * scores.miou:.2f}")
            if scores.miou > state.best and saver.attempt(
                f"[{state.iteration}] no best weights", lambda: write_weights("best", weights, scores)
            ):
                state.best = scores.miou
            return scores

        # the loop
        steps = feed(
            config, train_data, procs, stop, first=state.iteration, total=total, batch_size=batch_size,
            class_uniform=training_data.class_uniform(config, train_data, procs, record.say), layout=layout,
        )  # fmt: skip
        held.enter_context(named_failures())  # torch interrupts whatever runs when a loading process is killed
        # also when a step fails: loading processes are deaf to the signal by which Python would end them, and wait
        held.callback(steps.close)  # type: ignore[attr-defined]
        weights = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
        bad_steps, told_to_stop = 0, any(procs.gather(bool(stop)))  # a signal may have come while all this was built
        while state.iteration < total and not told_to_stop:
            due = state.iteration > 0 and state.iteration % eval_every == 0 and state.evaluated != state.iteration
            if due and score() is None:
                told_to_stop = True
                break
            lr = config.optim.lr * learning_rate_factor(config.schedule, state.iteration, total)
            set_learning_rate(optimizer, lr)
            try:
                batches, names = next(steps)
            except StoppedWaitingError:
                told_to_stop = True
                break
            except FastsegError:
                alone = procs.world_size == 1  # several would have to agree, and one has no batch
                if alone and state.iteration and saver.save(state.iteration, table_now()):
                    record.say(f"[{state.iteration}/{total}] saved; once it is mended, go on with --resume auto")
                raise
            failpoint("batch loaded")
            procs.beat(state.iteration)  # what is missing now, another process waits for
            optimizer.zero_grad(set_to_none=True)
            result = backward(
                parallel, seg_loss, batches, procs,
                scale=scaler.scale, autocast=build.autocast(config, procs.device), stop=bool(stop),
            )  # fmt: skip
            failpoint("gradients ready")
            if result.finite:
                scaler.unscale_(optimizer)
                # gradients are the same on every process, so all decide alike
                gradients = [p.grad for p in model.parameters() if p.grad is not None]
                result.finite = all_finite(gradients)
                if result.finite and config.train.clip_grad_norm:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_grad_norm)
                if result.finite or scaler.is_enabled():
                    scaler.step(optimizer)  # under fp16 an overflow skips the step
                    scaler.update()  # and lowers the scale
            if result.finite:
                if not all_finite(weights):
                    raise FastsegError(
                        f"the weights are not finite after step {state.iteration + 1} with lr {lr:.3g}; lower optim.lr "
                        f"(now {config.optim.lr}) or set train.clip_grad_norm=5. The last checkpoint in {folder} is "
                        "from before"
                    )
                if average is not None:
                    average.update(model)
                bad_steps = 0
            else:
                bad_steps += 1
                record.say(
                    f"[{state.iteration}/{total}] loss or gradient not finite, step skipped; lr {lr:.3g}; "
                    f"images of each process: {procs.gather(names)}"
                )
                if bad_steps >= BAD_STEPS_ALLOWED:
                    raise FastsegError(
                        f"{bad_steps} steps in a row were not finite; lower optim.lr (now {config.optim.lr}) or set "
                        f"train.clip_grad_norm=5. The last checkpoint in {folder} is from before"
                    )
            state.iteration += 1
            record.advance()
            failpoint("step done")
            if state.iteration % config.train.log_every == 0 or state.iteration == total:
                record.train(state.iteration, {**result.losses, "lr": lr})
            if result.stop and state.iteration < total:
                told_to_stop = True
                break
            if state.iteration % config.train.checkpoint_every == 0 and bad_steps == 0:
                saver.save(state.iteration, table_now())

        # the end
        scores = None if told_to_stop else score()
        failpoint("final evaluation done")
        saver.save(state.iteration, table_now(), last=True)
        failpoint("final checkpoint written")
        weights_file, stopped = None, ""
        if scores is None:
            stopped = next(str(name) for name in procs.gather(stop.name) if name)
            record.say(f"stopped by {stopped} at iteration {state.iteration}; go on with --resume auto")
        else:
            weights_file, known = run_dir / "last.safetensors", scores
            final = average.state if average else model.state_dict()
            saver.attempt("no last weights", lambda: write_weights("last", final, known), last=True)
            record.say(f"{scores.table()}\nweights: {weights_file}")
        record.close()
        procs.barrier()
        return TrainResult(run_dir, state.iteration, scores, weights_file, stopped)


def _parallel(model: torch.nn.Module, procs: Processes) -> torch.nn.Module:
    if procs.world_size == 1:
        return model
    device_ids = [procs.device.index] if procs.device.type == "cuda" else None
    # running statistics of plain norms follow the first process's; those of shared norms are equal anyway
    return DistributedDataParallel(model, device_ids=device_ids)


def _score_columns(scores: Scores) -> dict[str, float]:
    columns = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy, "mean_accuracy": scores.mean_accuracy}
    return columns | {f"iou/{name}": iou for name, iou in zip(scores.class_names, scores.iou, strict=True)}
