"""Threads that are shared fairly between clients."""

import heapq
import threading
import time
from collections import Counter

import pytest

from fair_queue import Client, FairQueue, Shares


@pytest.fixture
def queue():
    queue = FairQueue(2)
    yield queue
    queue.close()


def answers(clients: dict[Client, float], *, threads: int = 2, weights: dict[Client, float] | None = None):
    """How many jobs each client gets done in a minute if it always has one; clients: the seconds of a job.

    The minute is simulated. Two cameras of one name are one client.
    """
    shares, done = Shares(), Counter[Client]()
    for client in clients:
        shares.enter(client, 0)
    running: list[tuple[float, int, Client]] = []
    now_s, number = 0.0, 0
    while now_s < 60:
        while len(running) < threads:
            waiting = [client for client in clients if client not in {other for *_, other in running}]
            chosen = shares.next(waiting, now_s)
            heapq.heappush(running, (now_s + clients[chosen], number, chosen))
            number += 1
        now_s, _, finished = heapq.heappop(running)
        shares.charge(finished, clients[finished], now_s, weight=(weights or {}).get(finished, 1))
        done[finished] += 1
    return done


CAMERAS = {Client("127.0.0.1", f"camera {number}"): 0.04 for number in range(3)}
FLOODER = Client("127.0.0.1", "flooder")


def test_equal_clients_get_equal_answers():
    done = answers(CAMERAS)
    assert max(done.values()) - min(done.values()) <= 2


@pytest.mark.parametrize(
    ("cost_s", "weight"),
    [(0.04, 2), (0.04, 4), (0.15, 1), (0.15, 2), (1, 1), (5, 1)],
    ids=["faceless", "pushing", "expensive", "noise", "photo", "huge photo"],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_flooder_leaves_three_cameras_four_fifths_of_their_answers(cost_s, weight, threads):
    alone = sum(answers(CAMERAS, threads=threads).values())
    done = answers(CAMERAS | {FLOODER: cost_s}, threads=threads, weights={FLOODER: weight})
    assert done[FLOODER] > 0
    assert sum(done[camera] for camera in CAMERAS) >= 0.8 * alone


def test_many_cameras_of_one_address_get_at_most_four_shares():
    many = {Client("192.0.2.1", f"camera {number}"): 0.04 for number in range(16)}
    one = Client("192.0.2.2", "camera")
    done = answers(many | {one: 0.04}, threads=1)
    assert done[one] >= 0.18 * done.total()


def test_reconnecting_does_not_erase_what_was_used():
    shares = Shares()
    first, second, other = Client("a", "camera 1"), Client("a", "camera 2"), Client("b", "camera 3")
    for client, spent_s in ((first, 1), (other, 0.1)):
        shares.enter(client, 0)
        shares.charge(client, spent_s, 1)
    shares.leave(first, 1)
    shares.enter(second, 1)
    assert shares.next([second, other], 1) == other
    assert shares.next([second, Client("a", "camera 4")], 1) == Client("a", "camera 4")
    shares.charge(other, 1, 60)
    assert shares.next([second, other], 60) == second  # the first minute is forgotten


def test_clients_that_left_are_forgotten(monkeypatch):
    monkeypatch.setattr("fair_queue.REMEMBERED", 10)
    shares = Shares()
    for number in range(100):
        shares.charge(Client(f"address {number}", "photos"), 0.01, 100 * number)
    assert len(shares) <= 11


# The threads


def test_work_is_done_and_its_error_reaches_the_caller(queue):
    def fail() -> None:
        raise ValueError("broken")

    client = Client("a", "camera 1")
    assert queue.submit(client, lambda: 7).result(5) == 7
    with pytest.raises(ValueError, match="broken"):
        queue.submit(client, fail).result(5)
    assert queue.submit(client, lambda: 8).result(5) == 8


def test_client_has_one_job_at_a_time(queue):
    running, most = [], []

    def work() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    jobs = [queue.submit(Client("a", "photos"), work) for _ in range(5)]
    for job in jobs:
        job.result(5)
    assert max(most) == 1


def test_job_that_its_caller_gave_up_is_not_run(queue):
    release, ran = threading.Event(), []
    queue.submit(Client("a", "1"), release.wait)
    queue.submit(Client("a", "2"), release.wait)
    given_up = queue.submit(Client("a", "3"), lambda: ran.append(3))
    kept = queue.submit(Client("a", "3"), lambda: ran.append(4))
    given_up.cancel()
    release.set()
    kept.result(5)
    assert ran == [4]


def test_steps_of_long_work_run_in_the_threads_and_end_with_their_reader(queue):
    closed = []

    def work():
        try:
            for _ in range(5):
                yield threading.current_thread()
        finally:
            closed.append(True)

    threads = list(queue.steps(Client("a", "videos"), work()))
    assert len(threads) == 5
    assert threading.current_thread() not in threads
    abandoned = queue.steps(Client("a", "videos"), work())
    next(abandoned)
    abandoned.close()
    assert closed == [True, True]


def test_closed_queue_cancels_what_waits_and_waits_for_what_runs():
    queue, started = FairQueue(1), threading.Event()
    finished = []

    def work() -> None:
        started.set()
        while not queue._closed:
            time.sleep(0.01)
        time.sleep(0.1)
        finished.append(True)

    queue.submit(Client("a", "1"), work)
    waiting = queue.submit(Client("a", "2"), lambda: None)
    started.wait()
    queue.close()
    assert finished == [True]
    assert waiting.cancelled()
    with pytest.raises(RuntimeError):
        queue.submit(Client("a", "1"), lambda: None)


def test_photos_pause_after_each_other_while_a_camera_is_active(queue):
    ends = []

    def photo():
        time.sleep(0.1)
        ends.append(time.monotonic())

    queue.submit(Client("a", "camera"), lambda: None).result(5)
    for each in [queue.submit(Client(address, "photos"), photo, pause=3.0) for address in ("a", "b")]:
        each.result(5)
    assert ends[1] - ends[0] > 0.35  # a pause of 0.3 s and the second photo


def test_photos_do_not_pause_without_a_camera(queue):
    start_s = time.monotonic()
    for _ in range(3):
        queue.submit(Client("a", "photos"), lambda: time.sleep(0.05), pause=100.0).result(5)
    assert time.monotonic() - start_s < 5
