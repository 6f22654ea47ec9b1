"""Recordings of several rate groups → one dataset on the grid that they are joined on.

```
main.csv       1 Hz ─ load ─► rows ─────────────────────────────┐
vibration.csv  4 kHz ─ load ─► rows ─ frames ─ features, fitted ─┴ join, as the device does ─► Dataset
```
Rules: each group is read, checked and graded by itself; features get their floors from the rows that models are trained
on, and as only joining shows which these are, groups with features are joined twice; what joins them is
`tocsin.core.join`, the agent's own code.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tocsin.core.bundle import GoldenJoin
from tocsin.core.groups import HOLD, Align, Group, RateGroups
from tocsin.core.join import Joiner, check_golden, joined
from tocsin.core.preprocess import Stack, Step
from tocsin.errors import BundleError, ConfigError, DataError
from tocsin.recordings import MAIN, check_overlap, paired
from tocsin.records import Bools, Channel, Floats, Rows, SampleBlock
from tocsin_trainer import dataset as ds
from tocsin_trainer.damage import MAX_GAP_ROWS
from tocsin_trainer.features import feature_step
from tocsin_trainer.input_settings import FeatureName
from tocsin_trainer.options import GroupOptions, InputOptions, TrainOptions
from tocsin_trainer.results import Choice
from tocsin_trainer.stretch import RowStore, StoredRows, Stretch, joined_labels

SLOWEST_HZ = 0.1  # of a grid, where a faster group is there: slower rows tell of a fault too late
GRID_HZ = 1.0  # of a grid that vibration sets
VIBRATION: tuple[FeatureName, ...] = ("moments", "band_energies")
COURSE: tuple[FeatureName, ...] = ("level_unrest",)
FEATURES_FROM, MEAN_FROM = 8, 1.5  # rows a row of the grid
FRAME_S = 0.1  # of vibration, at the least: several turns of most shafts
MAX_FRAME = 1 << 16  # rows
FRAMES = 128  # from which floors are fitted
GOLDEN_VALUES = 1 << 18  # 2 MiB: a bundle goes over thin wires
MAX_AGE_ROWS = 5  # of the grid, or of a group that is slower


def load(options: TrainOptions) -> ds.Dataset:
    """The recordings of normal running, on one grid.

    Raises:
        DataError: names file, line and column, or the group, and what to do.
        ConfigError: settings of a group that do not fit.
    """
    if not options.groups:
        _no_groups(options)
        return ds.load(options.data, options.table, repair=options.repair)
    files = paired(options.data, options.groups)
    names = list(files[0])
    for name in (*options.group_options, *([] if options.join is None else [options.join])):
        if name not in names:
            raise ConfigError(f"groups: {name!r} is not given: there are {', '.join(names)}; add --group {name}=FILE")
    sources = {
        name: ds.load(
            tuple(each[name] for each in files),
            options.table if name == MAIN else _settings(options, name).table,
            repair=options.repair,
        )
        for name in names
    }
    groups, choices = choose_groups(sources, options, {name: source.stretches for name, source in sources.items()})
    made = _joined(sources, groups, files)
    if any(group.features for group in groups.groups):
        groups, choices = choose_groups(sources, options, dict(_train_parts(sources, groups, made, options)))
        made = _joined(sources, groups, files)
    return replace(made, choices=(*_told(sources), *choices))


def load_test(options: TrainOptions, data: ds.Dataset) -> ds.Dataset | None:
    """The labelled recordings, on the grid of the others; None where there are none.

    Raises:
        DataError: names file, line and column, or the group that is missing.
    """
    if not options.test:
        if options.test_groups:
            raise DataError("--test-group needs the main group's file as well: --test FILE")
        return None
    if data.groups is None:
        if options.test_groups:
            raise DataError("--test-group: the recordings of normal running have one group: leave it out")
        return ds.load(options.test, options.table, data.channels, data.sample_rate_hz, repair=True)
    files = paired(options.test, options.test_groups)
    for group in data.groups.groups:
        if group.name not in files[0]:
            raise DataError(f"--test: group {group.name!r} is missing: add --test-group {group.name}=FILE")
    sources = {
        group.name: ds.load(
            tuple(each[group.name] for each in files),
            options.table if group.name == MAIN else _settings(options, group.name).table,
            group.channels,
            group.sample_rate_hz,
            repair=True,
        )
        for group in data.groups.groups
    }
    return _joined(sources, data.groups, files)


def golden_join(data: ds.Dataset) -> tuple[GoldenJoin | None, tuple[Choice, ...]]:
    """The first samples of each group, so many that two rows can be joined, and why there are none where groups are."""
    if data.groups is None:
        return None, ()
    first = data.stretches[0]
    second = min(1, len(first) - 1)
    until = float(first.read(second, second + 1).time_s[0])
    samples = []
    for group, source in zip(data.groups.groups, data.sources, strict=True):
        reach = group.max_age_s if not group.features else 1.2 * group.frame / group.sample_rate_hz
        since = float(first.read(0, 1).time_s[0]) - reach - 1 / data.sample_rate_hz
        times, values = [np.empty(0)], [np.empty((0, len(group.channels)))]
        for stretch in source.stretches:
            if stretch.file == first.file and stretch.read(0, 1).time_s[0] <= until:
                for block in stretch.blocks():
                    chosen = (block.time_s >= since) & (block.time_s <= until)
                    times.append(block.time_s[chosen])
                    values.append(block.values[chosen])
                    if block.time_s[-1] > until:
                        break
        samples.append(SampleBlock(np.concatenate(times), np.concatenate(values)))
    many = sum(part.values.size + len(part) for part in samples)
    if many > GOLDEN_VALUES:
        return None, (_not_checked(f"two rows take {many:,} numbers, and a bundle holds {GOLDEN_VALUES:,}"),)
    try:
        check_golden(data.groups, tuple(samples))
    except ValueError as error:
        return None, (_not_checked(str(error)),)
    rows = joined(data.groups, tuple(samples))
    if not len(rows):
        return None, (_not_checked("the first samples of the groups make no row"),)
    return GoldenJoin(tuple(samples), rows), ()


def _not_checked(why: str) -> Choice:
    return Choice("golden rows of groups", "none: a device cannot check that it joins them as here", why)


def choose_groups(
    sources: Mapping[str, ds.Dataset], options: TrainOptions, train: Mapping[str, tuple[Stretch, ...]]
) -> tuple[RateGroups, tuple[Choice, ...]]:
    """How the groups come together, with floors fitted, and why so.

    Args:
        sources: recordings of each group.
        options: what the user asked for.
        train: of each group, the rows that floors are fitted on.

    Raises:
        ConfigError: features that do not fit, or alignment of a channel that is not there.
        DataError: two groups have a channel of the same name.
    """
    names = list(sources)
    rates = {name: source.sample_rate_hz for name, source in sources.items()}
    base, why = options.join, "given"
    if base is None:
        fast = [name for name in names if rates[name] >= SLOWEST_HZ]
        base = min(fast or names, key=lambda name: (rates[name], names.index(name)))
        why = "the slowest group" if len(fast) == len(names) else f"the slowest of {SLOWEST_HZ:g} Hz or more"
    every = max(1, round(rates[base] / GRID_HZ)) if rates[base] >= ds.VIBRATION_HZ else 1
    grid_hz = rates[base] / every
    choices = [Choice("grid", f"{grid_hz:.4g} Hz, by group {base}", why)]
    made = []
    for name in names:
        sets_grid = every == 1 and name == base
        group, choice = _group(name, sources[name], grid_hz, sets_grid, _settings(options, name), train[name])
        made.append(group)
        choices.append(choice)
    _check_names(made)
    groups = RateGroups(tuple(made), names.index(base), every)
    _check_device(groups)
    return groups, tuple(choices)


def _settings(options: TrainOptions, name: str) -> GroupOptions:
    return options.group_options.get(name, GroupOptions())


def _no_groups(options: TrainOptions) -> None:
    """Settings of groups and no group: somebody forgot a flag."""
    if options.test_groups or options.group_options or options.join:
        raise ConfigError("groups: settings of rate groups, and no group is given: add --group NAME=FILE")


def _group(
    name: str,
    source: ds.Dataset,
    grid_hz: float,
    sets_grid: bool,
    asked: GroupOptions,
    train: tuple[Stretch, ...],
) -> tuple[Group, Choice]:
    rate, channels = source.sample_rate_hz, source.channels
    ratio = rate / grid_hz
    age_s = asked.max_age_s or MAX_AGE_ROWS / min(rate, grid_hz)
    gap_s = min(MAX_GAP_ROWS / rate, age_s)
    strange = [channel for channel in asked.align if channel not in [c.name for c in channels]]
    if strange:
        raise ConfigError(
            f"groups.{name}.align: {strange[0]!r} is none of its channels {', '.join(c.name for c in channels)}"
        )
    shown: tuple[FeatureName, ...] = asked.features or ("signal",)
    why = "given" if asked.features else f"{ratio:.3g} of its rows a row of the grid"
    if not asked.features and not sets_grid and ratio >= FEATURES_FROM:
        shown = VIBRATION if rate >= ds.VIBRATION_HZ else COURSE
    if sets_grid and shown != ("signal",):
        raise ConfigError(f"groups.{name}.features: the group sets the grid, and is shown as it is: leave them out")
    if shown == ("signal",):
        usual: Align = "mean" if ratio >= MEAN_FROM else "hold"
        align: tuple[Align, ...] = tuple(asked.align.get(c.name, usual) for c in channels)
        kinds = ", ".join(sorted(set(align)))
        return Group(name, channels, rate, gap_s, age_s, align), Choice(f"group {name}", f"as it is, {kinds}", why)
    least = max(ratio, FRAME_S * rate if rate >= ds.VIBRATION_HZ else 1)
    frame = min(MAX_FRAME, 2 ** int(np.ceil(np.log2(max(least, 2)))))
    frame = frame if asked.frame_s is None else max(2, round(asked.frame_s * rate))
    steps = _features(name, shown, rate, train, frame)
    group = Group(name, channels, rate, gap_s, age_s, (HOLD,) * len(channels), frame, steps)
    told = f"{', '.join(shown)} of {frame} rows ({frame / rate:.3g} s): {group.each} numbers a channel"
    return group, Choice(f"group {name}", told, why)


def _features(
    name: str, shown: tuple[FeatureName, ...], rate_hz: float, train: tuple[Stretch, ...], frame: int
) -> tuple[Step, ...]:
    """Steps with floors from these rows."""
    parts = tuple(part for part in train if len(part) >= frame)
    if not parts:
        raise DataError(
            f"group {name}: no unbroken stretch of {frame} rows to fit its features on: record for longer, or choose a "
            "shorter frame_s"
        )
    most = ds.most_windows(frame, parts[0].read(0, 1).values.shape[1], FRAMES)
    frames = ds.some_windows(parts, frame, frame, min(most, FRAMES), 0)
    try:
        steps = [feature_step(each, frames, rate_hz, InputOptions()) for each in shown]
        step = steps[0] if len(steps) == 1 else Stack(tuple((step,) for step in steps))
        step.rows(frame)
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"groups.{name}.features: {error}; a longer frame_s") from error
    return (step,)


def _train_parts(
    sources: Mapping[str, ds.Dataset], groups: RateGroups, made: ds.Dataset, options: TrainOptions
) -> Iterator[tuple[str, tuple[Stretch, ...]]]:
    """Of each group the rows that the joined rows of the training part are made of."""
    length, hop, _ = ds.choose_window(made, options.window, options.hop)
    spans = [
        (stretch.file, *(float(stretch.read(row, row + 1).time_s[0]) for row in (0, len(stretch) - 1)))
        for stretch in ds.split(made, length, hop).train
    ]
    for group in groups.groups:
        reach_s = group.frame / group.sample_rate_hz if group.features else 0.0
        parts = []
        for stretch in sources[group.name].stretches:
            for file, first_s, last_s in spans:
                if file == stretch.file:
                    parts.append(stretch.part(_place(stretch, first_s - reach_s), _place(stretch, last_s)))
        yield group.name, tuple(part for part in parts if len(part))


def _place(stretch: Stretch, time_s: float) -> int:
    """How many of its rows come up to a time, by a few reads."""
    return bisect_right(range(len(stretch)), time_s, key=lambda row: float(stretch.read(row, row + 1).time_s[0]))


def _check_names(groups: list[Group]) -> None:
    seen: dict[str, str] = {}
    for group in groups:
        for column in dict.fromkeys((*group.channels, *group.columns)):
            if seen.get(column.name) == group.name:
                raise DataError(
                    f"group {group.name}: a channel is called {column.name!r}, and a feature of another is as well: "
                    "rename it, or leave it out with --columns or groups: NAME: columns"
                )
            if column.name in seen:
                raise DataError(
                    f"channel {column.name!r} is in group {seen[column.name]} and in group {group.name}: rename it, or "
                    "leave it out of one with --columns or groups: NAME: columns"
                )
            seen[column.name] = group.name


def _check_device(groups: RateGroups) -> None:
    """What the device would refuse is said before hours of training."""
    try:
        RateGroups.from_json(groups.to_json())
    except BundleError as error:
        what = str(error).removeprefix("manifest.json is damaged: ")
        raise ConfigError(
            f"groups: no device takes that: {what}: choose a shorter frame_s, fewer features or a shorter max_age_s, "
            "or leave channels out (groups: NAME: columns)"
        ) from error


def _told(sources: Mapping[str, ds.Dataset]) -> Iterator[Choice]:
    for name, source in sources.items():
        for choice in source.choices:
            yield replace(choice, what=f"{choice.what} of {name}")


def _joined(sources: Mapping[str, ds.Dataset], groups: RateGroups, files: tuple[dict[str, Path], ...]) -> ds.Dataset:
    """All recordings on the grid, each joined by itself."""
    columns: tuple[Channel, ...] = groups.columns
    store = RowStore(len(columns))
    stretches: list[Stretch] = []
    warnings = [warning for source in sources.values() for warning in source.warnings]
    for index, recording in enumerate(files):
        own = [tuple(s for s in sources[group.name].stretches if s.file == index) for group in groups.groups]
        check_overlap(tuple(_spans(groups, own, recording)))
        joiner = Joiner(groups, wait=False)
        made: list[Stretch] = []
        for n, rows in _in_order(own):
            joined_rows = joiner.end(n) if rows is None else joiner.join(n, [rows], float(rows.time_s[-1]))
            _keep(joined_rows, store, made, index)
        _keep(joiner.finish(), store, made, index)
        if not made:
            raise DataError(
                f"{', '.join(str(path) for path in recording.values())}: no row in which every group has a value young "
                "enough: are the clocks the same?"
            )
        labels = (_labels(stretches) for stretches in own if all(s.label is not None for s in stretches))
        label = joined_labels(labels, [stretch.rows.time_s for stretch in made], 1 / groups.sample_rate_hz)
        stretches += made if label is None else [replace(s, label=part) for s, part in zip(made, label, strict=True)]
        for group, silent in zip(groups.groups, joiner.silent.tolist(), strict=True):
            if silent:
                warnings.append(
                    f"{recording[group.name].name}: {silent} rows of the grid left out: nothing younger than "
                    f"{group.max_age_s:g} s"
                )
    base = sources[groups.groups[groups.base].name]
    return ds.Dataset(
        columns,
        groups.sample_rate_hz,
        base.max_gap_s,
        tuple(stretches),
        (),
        tuple(warnings),
        groups,
        tuple(sources[group.name] for group in groups.groups),
    )


def _spans(
    groups: RateGroups, own: list[tuple[Stretch, ...]], files: Mapping[str, Path]
) -> Iterator[tuple[Path, float, float]]:
    """Of each group its file, and times of its first and last row."""
    for group, stretches in zip(groups.groups, own, strict=True):
        if not stretches:
            raise DataError(f"{files[group.name]}: no row in which every channel has a value")
        last = stretches[-1].read(len(stretches[-1]) - 1, len(stretches[-1]))
        yield files[group.name], float(stretches[0].read(0, 1).time_s[0]), float(last.time_s[0])


def _in_order(own: list[tuple[Stretch, ...]]) -> Iterator[tuple[int, Rows | None]]:
    """Rows of all groups, the one furthest behind in time first; None after a group's last."""
    readers = [(rows for stretch in stretches for rows in stretch.blocks()) for stretches in own]
    waiting = [next(reader, None) for reader in readers]
    reached = [-np.inf if rows is None else float(rows.time_s[0]) for rows in waiting]
    while any(rows is not None for rows in waiting):
        n = min((n for n, rows in enumerate(waiting) if rows is not None), key=lambda n: reached[n])
        rows = waiting[n]
        assert rows is not None
        waiting[n], reached[n] = next(readers[n], None), float(rows.time_s[-1])
        yield n, rows
        if waiting[n] is None:
            yield n, None


def _keep(parts: list[Rows], store: RowStore, made: list[Stretch], file: int) -> None:
    """Stores joined rows; goes on with the last stretch where there is no gap."""
    for rows in parts:
        start = len(store)
        if not rows.after_gap:
            rows_before = made.pop().rows
            assert isinstance(rows_before, StoredRows)
            start = rows_before.start
        store.append(rows)
        made.append(Stretch(StoredRows(store, start, len(store)), None, file))


def _labels(stretches: tuple[Stretch, ...]) -> tuple[Floats, Bools]:
    """(n,) times and labels of one group's rows."""
    labels = [stretch.label for stretch in stretches if stretch.label is not None]
    return np.concatenate([stretch.rows.time_s for stretch in stretches]), np.concatenate(labels)
