"""What a workstation has for training: asked by `tocsin doctor --trainer`.

Rules: nothing here is required to import this module; what is missing is named with the line that installs it.
"""

import importlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from tocsin.errors import TocsinError
from tocsin.records import Finding

LITTLE_MEMORY_GIB = 2.0
LITTLE_DISK_GIB = 2.0
EXTRAS = {  # extra → the modules that it brings, what for
    "trainer": (("keras", "tensorflow", "sklearn", "matplotlib", "rich"), "training and conversion"),
    "demo": (("amqtt",), "the demo's broker"),
    "explain": (("shap",), "`tocsin explain --method shap`"),
    "tune": (("optuna",), "`tocsin tune`"),
    "trackers": (("tensorboard", "mlflow", "wandb"), "`--track`"),
}


def examine() -> Iterator[Finding]:
    """Looks at one thing after the other; loads Keras and its backend, and converts a tiny model."""
    yield from _extras()
    yield from _room()
    if importlib.util.find_spec("keras") is None:
        return
    yield from _backend()
    if all(importlib.util.find_spec(name) for name in ("tensorflow", "sklearn")):
        yield _conversion()


def _extras() -> Iterator[Finding]:
    for extra, (modules, use) in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            state = "bad" if extra == "trainer" else "note"
            found = f"{use}: {', '.join(missing)} not installed"
            yield Finding(f"extra {extra}", found, state, f"pip install '.[{extra}]'")
        else:
            yield Finding(f"extra {extra}", f"{use}: complete")


def _room() -> Iterator[Finding]:
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30
    little = free < LITTLE_MEMORY_GIB
    mend = f"close other programs: training takes up to {LITTLE_MEMORY_GIB:g} GiB" if little else ""
    yield Finding("memory", f"{free:.1f} GiB free, {os.cpu_count()} cores", "note" if little else "ok", mend)
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    if disk < LITTLE_DISK_GIB:
        yield Finding("disk for training", f"{disk:.1f} GiB free", "note", f"free {LITTLE_DISK_GIB:g} GiB")


def _backend() -> Iterator[Finding]:
    """Keras, what it runs on, and its GPUs."""
    try:
        import keras  # noqa: PLC0415 - takes seconds, and may not be there

        from tocsin_trainer.hardware import gpus, uses_float16  # noqa: PLC0415

        name = keras.backend.backend()
        seen = gpus()
    except Exception as error:  # noqa: BLE001 - a broken driver or wheel fails in any way
        yield Finding("keras", f"does not load: {str(error)[:200]}", "bad", "pip install --upgrade '.[trainer]'")
        return
    yield Finding("keras", f"{keras.__version__} on {name} {_version(name)}")
    other = {"tensorflow": "jax", "jax": "tensorflow"}.get(name, "tensorflow")
    yield Finding("other backend", f"{other} {_version(other)}")
    if seen:
        together = "; they train together" if len(seen) > 1 and name == "tensorflow" else ""
        yield Finding("gpu", f"{', '.join(seen)}{together}")
    else:
        mend = "" if not Path("/dev/nvidia0").exists() else "pip install '.[trainer-gpu]'; KERAS_BACKEND=jax"
        yield Finding("gpu", "none seen: training runs on the CPU", "note" if mend else "ok", mend)
    yield Finding("mixed precision", "on, as there is a GPU" if uses_float16("auto") else "off, as there is no GPU")


def _version(module: str) -> str:
    for package in {"tensorflow": ("tensorflow", "tensorflow-cpu")}.get(module, (module,)):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def _conversion() -> Finding:
    """A tiny autoencoder through the converter's own process and the agent's runtime."""
    from tocsin.core.interpreter import TfliteModel  # noqa: PLC0415
    from tocsin_trainer.convert import Converter  # noqa: PLC0415
    from tocsin_trainer.fit import fit  # noqa: PLC0415

    windows = np.random.default_rng(0).normal(size=(64, 8, 2)).astype(np.float32)
    try:
        with Converter() as converter:
            fitted = fit("conv_ae", windows, windows, seed=0, epochs=1)
            converter.add(fitted, windows)
            model = TfliteModel(converter.convert(fitted, "int8").content)
    except TocsinError as error:
        mend = "pip install --force-reinstall '.[trainer]'"
        return Finding("conversion", str(error), "bad", mend)
    apart = float(np.abs(model.predict(windows) - np.asarray(fitted.model(windows))).max())
    return Finding("conversion", f"a tiny network became int8 and differs by {apart:.2g} at most")
