"""Jobs over a Ray cluster: one worker a device, the longest videos first, rows in one file.

Ray schedules, starts and watches the workers. What is ours is what a death means: a lost node's
videos go to others, however often; a video whose worker dies twice on nodes that live is given up.
Rows stream back one by one, so that a death costs the answers under way, not those given.
"""

from __future__ import annotations

import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retake_edge.errors import ConfigError, RetakeError
from retake_edge.evaluate.asking import ask_group, failed
from retake_edge.evaluate.jobs import Group, questions
from retake_edge.evaluate.opening import LoadedOpener, Opener
from retake_edge.evaluate.planned import longest_first
from retake_edge.evaluate.rows import Row, RowFile
from retake_edge.progress import ProgressCallback, no_progress

MOST_TRIES = 2
_LOOK_EVERY_S = 2.0  # for nodes that came, while nothing else happens
_START_S = 120.0
_CONNECT_S = 10.0


class Worker:
    """The program on a device: it loads the model once, opens videos, and asks."""

    def __init__(self, opener: Opener) -> None:
        self._opener = LoadedOpener(opener)

    def ready(self) -> bool:
        """Answer, as a worker does whose node is alive."""
        return True

    def answer(self, group: Group) -> Iterator[Row]:
        """Yield the rows of a group."""
        yield from ask_group(group, self._opener.open)


@dataclass
class _Place:
    """A device of a node, its worker, and what it works on; `address`: the node's."""

    node: str
    address: str
    gpus: int
    actor: Any
    group: Group | None = None
    stream: Any = None


def run_on_cluster(
    groups: Sequence[Group],
    rows: RowFile,
    opener: Opener,
    *,
    address: str = "local",
    progress: ProgressCallback = no_progress,
    on_note: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer all jobs of the groups on the cluster at `address` ('local': this machine alone).

    `progress` is called with ("planning", videos, all) and ("asking", rows, all); `on_note` with
    a sentence about each video that begins and each worker or node that is lost.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster. RetakeError: the model or the
        settings cannot work on a node.
    """
    if not groups:
        return
    ray = _connected(address)
    run = _Run(ray, rows, opener, progress, on_note)
    try:
        run.all(longest_first(groups, opener, progress))
    finally:
        run.close()
        if address == "local":
            ray.shutdown()


def _connected(address: str) -> Any:
    _use_token()
    try:
        import ray
    except ImportError:
        raise ConfigError("Ray is not installed; install retake-edge[ray].") from None
    if not ray.is_initialized():
        _check_answers(address)
        try:
            ray.init(
                address=None if address == "local" else address,
                log_to_driver=False,
                configure_logging=False,
                include_dashboard=False if address == "local" else None,
            )
        except (ConnectionError, ValueError) as error:
            raise ConfigError(f"There is no Ray cluster at {address} ({error}).") from None
    return ray


def _use_token() -> None:
    """Show this machine's token of Ray, if there is one, to whatever cluster; its `start` does."""
    if (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _check_answers(address: str) -> None:
    """Refuse host:port where nobody listens, for which Ray would wait minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"There is no Ray cluster at {address} ({error}); start one with `ray start --head`."
        ) from None


class _Run:
    """One run over a cluster."""

    def __init__(
        self,
        ray: Any,
        rows: RowFile,
        opener: Opener,
        progress: ProgressCallback,
        on_note: Callable[[str], None],
    ) -> None:
        self._ray, self._rows, self._opener = ray, rows, opener
        self._progress, self._note = progress, on_note
        self._places: list[_Place] = []
        self._dead: set[str] = set()
        self._tries: Counter[tuple[object, ...]] = Counter()
        self._waiting: deque[Group] = deque()

    def all(self, groups: Sequence[Group]) -> None:
        """Work until every job has its row."""
        self._waiting.extend(groups)
        total = len(self._rows.rows) + sum(len(group.jobs) for group in groups)
        while self._waiting or any(place.group for place in self._places):
            self._look_for_nodes()
            self._hand_out()
            busy = {place.stream: place for place in self._places if place.group}
            if not busy:
                raise ConfigError("No node of the Ray cluster is left; start one and run again.")
            ready, _ = self._ray.wait(list(busy), num_returns=1, timeout=_LOOK_EVERY_S)
            for stream in ready:
                self._take(busy[stream])
            self._progress("asking", len(self._rows.rows), total)

    def close(self) -> None:
        """End the workers."""
        for place in self._places:
            self._ray.kill(place.actor)

    def _look_for_nodes(self) -> None:
        known = {place.node for place in self._places} | self._dead
        for node in self._ray.nodes():
            if node["Alive"] and node["NodeID"] not in known:
                n_gpus = int(node["Resources"].get("GPU", 0))
                for gpus in [1] * n_gpus or [0]:
                    actor = self._started(node["NodeID"], gpus)
                    place = _Place(node["NodeID"], node["NodeManagerAddress"], gpus, actor)
                    self._places.append(place)

    def _started(self, node: str, gpus: int) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        kind = self._ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(Worker)
        return kind.options(scheduling_strategy=where).remote(self._opener)

    def _hand_out(self) -> None:
        for place in self._places:
            if place.group is None and self._waiting:
                group = place.group = self._waiting.popleft()
                what = f"{group.jobs[0].video}, {questions(group)}"
                self._note(f"{what}, on {place.address}; {len(self._waiting)} videos wait")
                method = place.actor.answer.options(num_returns="streaming")
                place.stream = method.remote(place.group)

    def _take(self, place: _Place) -> None:
        """Take a worker's next row; see to its end or death."""
        group = place.group
        assert group is not None
        try:
            row = self._ray.get(next(place.stream))
        except StopIteration:
            place.group = None
            return
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RetakeError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError:
            self._died(place, group)
            return
        if row["key"] not in self._rows.done:
            self._rows.append(row)

    def _died(self, place: _Place, group: Group) -> None:
        """Replace a dead worker if its node lives, and give its video to the next free one."""
        self._places.remove(place)
        video = group.jobs[0].video
        actor = self._replacement(place)
        if actor is None:
            self._dead.add(place.node)
            self._note(f"node {place.address} is lost; {video} goes to another one")
        else:
            self._places.append(replace(place, actor=actor, group=None, stream=None))
            self._tries[_reading(group)] += 1
            self._note(f"the worker on {place.address} died over {video}")
        left = replace(group, jobs=tuple(j for j in group.jobs if j.key not in self._rows.done))
        if left.jobs and self._tries[_reading(group)] < MOST_TRIES:
            self._waiting.appendleft(left)
            return
        for job in left.jobs:
            reason = f"The worker died {MOST_TRIES} times over {video}; it is given up."
            self._rows.append(failed(job, reason))

    def _replacement(self, place: _Place) -> Any:
        """A new worker on the same node; None if the node is gone."""
        actor = self._started(place.node, place.gpus)
        try:
            self._ray.get(actor.ready.remote(), timeout=_START_S)
        except self._ray.exceptions.RayError:
            return None
        return actor


def _reading(group: Group) -> tuple[object, ...]:
    return group.file, group.start_s, group.end_s, group.variant
