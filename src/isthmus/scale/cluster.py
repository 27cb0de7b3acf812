"""The Ray cluster that a run is on: one that is there already, or one of this machine alone, started and ended here."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from isthmus.errors import OptionError
from isthmus.extras import needed
from isthmus.scale.actors import code

CORES = 4  # of a worker without a GPU: more threads on one pair mostly wait for each other
_PATIENCE = 10.0  # seconds for an answer at a cluster's address
_LOOK = 120.0  # seconds for all machines to tell what is installed there
# Ray asks its maker's server for nothing, and tells on the screen of this process what is of no use there.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_OWN = {"RAY_worker_niceness": "0"}  # of a cluster that is started here: its workers are the run, no guests


@dataclass(frozen=True)
class Kind:
    """A kind of worker, one process each.

    Attributes:
        count: how many there is room for.
        cores: of each, for its threads and the opening of pictures.
        gpu: whether it has a GPU of its own.
    """

    count: int
    cores: int
    gpu: bool

    @property
    def needs(self) -> dict[str, float]:
        """What Ray keeps for one of them."""
        return {"num_cpus": self.cores, "num_gpus": 1 if self.gpu else 0}


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The `ray` module, connected to a cluster.

    A cluster that is started here ends here; from one that was there already, only this process's work goes.

    Args:
        address: `HOST:PORT` of a cluster's head, or "auto" for the one on this machine. None for the cluster that this
            process is connected to already, else that of the variable RAY_ADDRESS, else one of this machine alone
            ("local" says so outright).

    Raises:
        OptionError: no cluster is there, or Ray is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray = needed("ray")
    needed("ray.data")
    if ray.is_initialized():
        _same(ray, address)
        yield ray
        return
    _connect(ray, address or os.environ.get("RAY_ADDRESS") or "local")
    try:
        yield ray
    finally:
        ray.shutdown()


def _same(ray: Any, address: str | None) -> None:
    """Raise OptionError where the cluster that this process is connected to is not the one that is asked for."""
    here = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", here):
        raise OptionError(
            f"This process is connected to the Ray cluster at {here} already: leave the address out, or call "
            "ray.shutdown() first."
        )


def _connect(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        options["include_dashboard"] = False
        for name, value in _OWN.items():
            os.environ.setdefault(name, value)
    else:
        _answers(address)
    try:
        with _unheard(), _same_end():
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise OptionError(_no_cluster(address, str(error))) from error
    with suppress(ImportError, AttributeError):  # what Ray tells of each death; it is tried again, and we say so
        worker = needed("ray._private.worker")
        if callable(worker.print_to_stdstream):
            worker.print_to_stdstream = _unsaid


@contextmanager
def _same_end() -> Iterator[None]:
    """SIGTERM does what it did before: Ray's own handler ends the process with a dump of its stack."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _unheard() -> Iterator[None]:
    """Without what Ray's own code, which is no Python, writes to the screen as it starts."""
    try:
        screen = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nothing)


def _unsaid(*_: object, **__: object) -> None:
    """In place of Ray's notes on the screen."""


def _answers(address: str) -> None:
    """Raise OptionError where nothing answers at an address: Ray itself would try for minutes, then end the process."""
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise OptionError(
            "Ray's client addresses (ray://) cannot run this: give HOST:PORT of the cluster's head, "
            "from a machine of the cluster."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise OptionError(f"{address!r} is no address of a Ray cluster: give auto, or HOST:PORT such as 10.0.0.5:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise OptionError(_no_cluster(address, str(error))) from error


def _no_cluster(address: str, said: str) -> str:
    if address == "local":
        return f"A Ray cluster cannot be started on this machine ({_short(said)}): see ray start --head."
    where = "on this machine" if address == "auto" else f"at {address}"
    return f"No Ray cluster {where} lets this process join ({_short(said)}): start one with ray start --head."


def _short(said: str) -> str:
    """The first sentence of an error."""
    line = " ".join(said.split())
    return line.partition(". ")[0].rstrip(".")[:200]


def kinds(nodes: Sequence[Mapping[str, Any]], *, cores: int = CORES) -> list[Kind]:
    """The workers that a cluster has room for: one on each GPU, and on machines without, one on every few cores.

    Args:
        nodes: of `ray.nodes()`.
        cores: of a worker without a GPU; fewer where a machine has fewer.

    Raises:
        OptionError: the cluster has no room for any.
    """
    found = [node.get("Resources", {}) for node in nodes if node.get("Alive")]
    cards = [(int(one["GPU"]), int(one.get("CPU", 0))) for one in found if one.get("GPU", 0) >= 1]
    plain = [int(one.get("CPU", 0)) for one in found if one.get("GPU", 0) < 1 and one.get("CPU", 0) >= 1]
    rooms = []
    if cards:
        # The cores beside a GPU are all for its worker: they open the pictures.
        own = min(count // gpus for gpus, count in cards)
        rooms.append(Kind(sum(gpus for gpus, _ in cards), own, True))
    if plain:
        own = max(1, min(cores, *plain))
        rooms.append(Kind(sum(count // own for count in plain), own, False))
    if not rooms:
        raise OptionError("The Ray cluster has neither CPUs nor GPUs to work with: start it with ray start --num-cpus.")
    return rooms


def check(ray: Any, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise OptionError, naming a machine, where Isthmus is not installed as it is here."""
    strategy = needed("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    asked, own = {}, code()
    for node in nodes:
        if node.get("Alive"):
            there = strategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_teller()).remote()
            asked[task] = node.get("NodeManagerHostname") or node.get("NodeManagerAddress")
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK)
    for task in late:
        ray.cancel(task, force=True)
    for task in done:
        try:
            told = ray.get(task)
        except ray.exceptions.RayError:
            continue  # the machine has gone: what is there at the start need not be there at the end
        if told != own:
            what = f"is {told[0]}" if told[0] else "cannot be imported"
            raise OptionError(
                f"Isthmus {what}{' of other code' * (told[0] == own[0])} on {asked[task]} of the Ray cluster, and is "
                f"{own[0]} here: install the same on every machine, or set PYTHONPATH before ray start."
            )


def _teller() -> Any:
    """A function that goes by value: one of a module would not arrive where the module is not."""

    def tell() -> tuple[str, str]:
        try:
            from isthmus.scale.actors import code

            return code()
        except ImportError:
            return "", ""

    return tell
