"""Training: one loop, read from top to bottom."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from fastseg.config import Config, config_differences, dump_config
from fastseg.data.dataset import CachedDataset
from fastseg.data.loader import StreamSampler, training_loader
from fastseg.engine import build
from fastseg.engine.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from fastseg.engine.distributed import Processes, StopFlag, processes
from fastseg.engine.evaluate import evaluate
from fastseg.engine.optimizer import (
    WeightAverage,
    all_finite,
    build_optimizer,
    learning_rate_factor,
    set_learning_rate,
)
from fastseg.engine.record import Record
from fastseg.engine.step import backward
from fastseg.environment import describe_environment
from fastseg.errors import ConfigError, FastsegError
from fastseg.layers.norm import convert_norm, resolve_norm_kind
from fastseg.metrics import Scores
from fastseg.ops import normalize_images
from fastseg.predict import Predictor
from fastseg.weights.files import FORMAT_VERSION, info_to_dict, load_state, save_weights, write_atomically

BAD_STEPS_ALLOWED = 10
# keys that may change on resume: they decide where and how fast a run goes on, not what it computes
FREE_KEYS = ("run_dir", "source", "data.root", "data.workers", "data.cache", "train.log_every", "train.checkpoint_every")


@dataclass(frozen=True)
class TrainResult:
    """`scores` are those of the last evaluation; `weights` is the final file; `stopped` names a signal, if any."""

    run_dir: Path
    iterations: int
    scores: Scores | None
    weights: Path | None
    stopped: str = ""


def train(config: Config, *, resume: str = "no", dry_run: bool = False) -> TrainResult:
    """Train as configured, and leave checkpoints, logs and weights in `config.run_dir`.

    `resume` is 'no', 'auto' (the run folder's newest intact checkpoint, if there is one) or a checkpoint's path; a
    resumed run is bitwise the uninterrupted one on CPU. `dry_run` builds everything and runs two steps on random
    images without reading or writing any file. Runs alone or as a process of torchrun. Raises FastsegError for
    mistakes in the configuration, before the first step.
    """
    with processes(config.train.device) as procs, StopFlag() as stop:
        torch.manual_seed(config.train.seed)
        torch.use_deterministic_algorithms(config.train.deterministic)
        if dry_run:
            return _dry_run(config, procs)

        # data
        train_data = build.build_split(config, config.data.train_split)
        val_data = build.build_split(config, config.data.val_split)
        if config.data.cache:
            train_data, val_data = CachedDataset(train_data), CachedDataset(val_data)
        info = build.weights_info(config, train_data.info)
        batch_size = build.split_batch(config, procs)
        steps_per_epoch = len(train_data) / config.train.total_batch
        total = config.schedule.iterations or max(1, round(config.schedule.epochs * steps_per_epoch))
        eval_every = max(1, round(config.train.eval_every * steps_per_epoch))

        # model, norm, processes
        norm = resolve_norm_kind(config.train.norm, world_size=procs.world_size, device_type=procs.device.type)
        images_per_norm = batch_size * (1 if norm == "bn" else procs.world_size)
        build.check_batch_norm(config, train_data.info.num_classes, images_per_norm)
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        model = build.build_model(config, train_data.info.num_classes).to(procs.device, memory_format=layout)
        eval_model = copy.deepcopy(model).eval()
        eval_model.weights_info = info
        model = convert_norm(model, norm).train()  # type: ignore[assignment]
        optimizer = build_optimizer(model, config.optim)
        average = WeightAverage(model, config.train.ema_decay) if config.train.ema_decay else None
        scaler = torch.amp.GradScaler(procs.device.type, enabled=config.train.precision == "fp16")
        seg_loss = build.build_loss(config, model, train_data)

        # resume
        run_dir, state = Path(config.run_dir), _Progress()
        folder = run_dir / "checkpoints"
        checkpoint = _resolve_resume(resume, folder, procs)
        if checkpoint is not None:
            table = load_checkpoint(checkpoint)
            _refuse_changes(table, config, procs, checkpoint)
            load_state(model, table["model"], str(checkpoint))
            optimizer.load_state_dict(table["optimizer"])
            scaler.load_state_dict(table["scaler"])
            if average is not None:
                average.state = {name: value.to(procs.device) for name, value in table["ema"].items()}
                average.updates = table["ema_updates"]
            state = _Progress(**table["progress"])
        elif procs.is_main:
            _prepare_run_dir(run_dir, config)
        # each process its own stream of dropout, each run its own streams
        torch.manual_seed(config.train.seed * 1_000_003 + procs.rank)
        if checkpoint is not None:
            _restore_random_state(table["random"][procs.rank], procs)
        procs.barrier()
        record = Record(run_dir, iteration=state.iteration, total=total, enabled=procs.is_main)
        parallel = _parallel(model, procs, norm)
        record.say(
            f"model {config.model.name}: {sum(p.numel() for p in model.parameters()):,} parameters, "
            f"{train_data.info.num_classes} classes ({train_data.info.name}), norm {norm}, "
            f"{config.train.precision} on {procs.device}\n"
            f"total batch {config.train.total_batch} = {procs.world_size} processes x {batch_size} images x "
            f"{config.train.accumulate} accumulation steps; {len(train_data)} images, "
            f"{steps_per_epoch:.1f} iterations per epoch\n"
            f"{total} iterations ({total / steps_per_epoch:.1f} epochs), evaluation every {eval_every} on "
            f"{len(val_data)} images of {config.data.val_split}; run folder {run_dir}"
            + (f"\nresumed from {checkpoint} at iteration {state.iteration}" if checkpoint else "")
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
                "random": procs.gather(_random_state(procs)),
                "progress": asdict(state),
            }

        def save() -> None:
            table = table_now()
            if procs.is_main:
                save_checkpoint(folder, state.iteration, table)

        def score() -> Scores:
            weights = average.state if average else model.state_dict()
            load_state(eval_model, weights, "the run's weights")
            scores = evaluate(Predictor(eval_model, device=procs.device), val_data)
            state.evaluated = state.iteration
            record.evaluation(state.iteration, _score_columns(scores))
            record.say(f"[{state.iteration}/{total}] {config.data.val_split} mIoU {100 * scores.miou:.2f}")
            if scores.miou > state.best:
                state.best = scores.miou
                if procs.is_main:
                    measured = f"{100 * scores.miou:.2f} mIoU on {config.data.name} {config.data.val_split}"
                    save_weights(run_dir / "best.safetensors", weights, replace(info, metric_measured=measured))
            return scores

        # the loop
        sampler = StreamSampler(
            len(train_data), batch_size=batch_size, rank=procs.rank, world_size=procs.world_size,
            seed=config.train.seed, start=state.iteration * config.train.accumulate,
            stop=total * config.train.accumulate,
        )  # fmt: skip
        loader = iter(
            training_loader(
                train_data, config.augment, input_scale=config.input.scale, seed=config.train.seed, sampler=sampler,
                workers=config.data.workers, pin_memory=procs.device.type == "cuda",
            )
        )  # fmt: skip
        neutral = replace(config.preprocessing, input_scale=1.0)  # augmentation has applied the scale already
        scores, bad_steps, stopped = None, 0, ""
        while state.iteration < total:
            if state.iteration and state.iteration % eval_every == 0 and state.evaluated != state.iteration:
                scores = score()
            lr = config.optim.lr * learning_rate_factor(config.schedule, state.iteration, total)
            set_learning_rate(optimizer, lr)
            batches, names = [], []
            for _ in range(config.train.accumulate):
                batch = next(loader)
                images = normalize_images(batch.images.to(procs.device, non_blocking=True), neutral)
                labels = batch.labels.to(procs.device, non_blocking=True).long()
                batches.append((images.contiguous(memory_format=layout), labels))
                names += batch.names
            optimizer.zero_grad(set_to_none=True)
            result = backward(
                parallel, seg_loss, batches, procs,
                scale=scaler.scale, autocast=_autocast(config, procs), stop=bool(stop),
            )  # fmt: skip
            scaler.unscale_(optimizer) if result.finite else None
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            # under fp16 an overflow is the scaler's business: it skips the step and lowers its scale
            if result.finite and (scaler.is_enabled() or all_finite(gradients)):
                if config.train.clip_grad_norm:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_grad_norm)
                scaler.step(optimizer)
                scaler.update()
                if average is not None:
                    average.update(model)
                bad_steps = 0
            else:
                bad_steps += 1
                record.say(f"[{state.iteration}/{total}] loss or gradient not finite, step skipped; lr {lr:.3g}; {names}")
                if bad_steps >= BAD_STEPS_ALLOWED:
                    raise FastsegError(
                        f"{bad_steps} steps in a row were not finite; lower optim.lr (now {config.optim.lr}) or set "
                        f"train.clip_grad_norm=5. The last checkpoint in {folder} is from before"
                    )
            state.iteration += 1
            record.advance()
            if state.iteration % config.train.log_every == 0 or state.iteration == total:
                record.train(state.iteration, {**result.losses, "lr": lr})
            if result.stop and state.iteration < total:
                save()
                stopped = stop.signal.name if stop.signal else "another process's signal"
                record.say(f"stopped by {stopped} at iteration {state.iteration}; go on with --resume auto")
                break
            if state.iteration % config.train.checkpoint_every == 0 and bad_steps == 0:
                save()

        # final save
        weights_file = None
        if not stopped:
            scores = score()
            save()
            weights_file = run_dir / "last.safetensors"
            if procs.is_main:
                measured = f"{100 * scores.miou:.2f} mIoU on {config.data.name} {config.data.val_split}"
                weights = average.state if average else model.state_dict()
                save_weights(weights_file, weights, replace(info, metric_measured=measured))
                record.say(f"{scores.table()}\nweights: {weights_file}")
        record.close()
        procs.barrier()
        return TrainResult(run_dir, state.iteration, scores, weights_file, stopped)


@dataclass
class _Progress:
    """Where a run is: steps done, the step last evaluated, and the best mIoU."""

    iteration: int = 0
    evaluated: int = -1
    best: float = -1.0


def _dry_run(config: Config, procs: Processes) -> TrainResult:
    """Two steps on random images at the configured crop or 128 pixels a side, whichever is smaller."""
    from fastseg.data import DATASETS

    if config.data.name not in DATASETS:
        DATASETS.get(config.data.name)
    arguments = DATASETS.arguments(config.data.name)
    for key in config.data.args:
        if key not in arguments:
            raise ConfigError(f"{config.source}: data.args.{key}: {config.data.name} takes {', '.join(arguments)}")
    num_classes = 5
    build.split_batch(config, procs)
    model = build.build_model(config, num_classes).to(procs.device).train()
    seg_loss = build.build_loss(config, model, None)
    optimizer = build_optimizer(model, config.optim)
    height, width = (min(side, 128) for side in config.augment.crop)
    for _ in range(2):
        images = torch.randn(2, 3, height, width, device=procs.device)
        labels = torch.randint(0, num_classes, (2, height, width), device=procs.device)
        optimizer.zero_grad(set_to_none=True)
        result = backward(model, seg_loss, [(images, labels)], procs, autocast=_autocast(config, procs))
        optimizer.step()
    print(f"{config.source}: dry run passed; loss {result.losses['loss']:.3f} on random images", flush=True)
    return TrainResult(Path(config.run_dir), 2, None, None)


def _parallel(model: torch.nn.Module, procs: Processes, norm: str) -> torch.nn.Module:
    if procs.world_size == 1:
        return model
    device_ids = [procs.device.index] if procs.device.type == "cuda" else None
    # shared norms hold equal statistics everywhere; plain ones follow the first process's
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=norm == "bn")


def _autocast(config: Config, procs: Processes) -> contextlib.AbstractContextManager[object]:
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision]
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(procs.device.type, dtype=dtype)


def _random_state(procs: Processes) -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if procs.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(procs.device)
    return state


def _restore_random_state(state: dict[str, Any], procs: Processes) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and procs.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], procs.device)


def _resolve_resume(resume: str, folder: Path, procs: Processes) -> Path | None:
    if resume == "no":
        if any(folder.glob("step_*.pt")):
            raise ConfigError(
                f"run_dir {folder.parent} holds checkpoints of an earlier run; go on with --resume auto, or choose "
                f"another run_dir=..."
            )
        return None
    if resume == "auto":
        return find_checkpoint(folder, say=print if procs.is_main else None)
    return Path(resume)


def _refuse_changes(table: dict[str, Any], config: Config, procs: Processes, checkpoint: Path) -> None:
    if table["world_size"] != procs.world_size:
        raise ConfigError(
            f"{checkpoint} was written by {table['world_size']} processes and there are {procs.world_size} now; resume "
            f"with as many, or start a new run_dir"
        )
    changed = [key for key in config_differences(table["config"], asdict(config)) if not key.startswith(FREE_KEYS)]
    if changed:
        raise ConfigError(f"{checkpoint} was written with other values of {', '.join(changed)}; set them back, or start a new run_dir")


def _prepare_run_dir(run_dir: Path, config: Config) -> None:
    """Write the resolved configuration and the environment; learn now, not hours later, that the folder is read-only."""
    write_atomically(run_dir / "config.yaml", dump_config(config).encode())
    details = {**describe_environment(), "command": sys.argv}
    write_atomically(run_dir / "environment.json", json.dumps(details, indent=1, default=str).encode())


def _score_columns(scores: Scores) -> dict[str, float]:
    columns = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy, "mean_accuracy": scores.mean_accuracy}
    return columns | {f"iou/{name}": iou for name, iou in zip(scores.class_names, scores.iou, strict=True)}
