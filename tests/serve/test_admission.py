"""Turns and limits of clients: one that floods does not keep others waiting, and Retry-After is true."""

import asyncio
import statistics
import time

import pytest
from fake_model import FakeModel
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.admission import CLIENT, Admission, ClientLimits, TurnQueue
from serve.errors import ApiError
from serve.gateway import Gateway
from serve.settings import GatewaySettings


async def work(queue, client, cost, seconds, done):
    CLIENT.set(client)
    begin = time.perf_counter()
    async with queue.turn(cost):
        await asyncio.sleep(seconds)
    done.append((client, time.perf_counter() - begin))


def test_a_flood_of_one_client_keeps_no_other_waiting():
    async def run(flood):
        queue, done = TurnQueue(16), []
        tasks = [asyncio.create_task(work(queue, "flood", 16, 0.02, done)) for _ in range(flood)]
        await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.create_task(work(queue, "other", 10, 0.02, done))
        for task in tasks:
            task.cancel()
        return statistics.quantiles([s for client, s in done if client == "other"], n=20)[-1]

    alone, flooded = asyncio.run(run(0)), asyncio.run(run(200))
    assert flooded < 3 * alone


def test_clients_that_ask_for_little_go_before_those_that_asked_for_much():
    async def run():
        queue, done = TurnQueue(4), []
        big = [asyncio.create_task(work(queue, "big", 4, 0.005, done)) for _ in range(5)]
        await asyncio.sleep(0)
        small = [asyncio.create_task(work(queue, "small", 1, 0.005, done)) for _ in range(4)]
        await asyncio.gather(*big, *small)
        return [client for client, _ in done]

    order = asyncio.run(run())
    assert order[:5] == ["big", "small", "small", "small", "small"]


def test_recordings_are_measured_in_turn_to_the_end_and_none_is_refused_half_way():
    """A client that leaves does not stop the thread that measures, so its turn lasts as long."""
    gateway = Gateway(FakeModel(), GatewaySettings(readers_at_once=1, max_wait_s=0.001))
    now, most = [], []

    def measure(seconds):
        now.append(seconds)
        most.append(len(now))
        time.sleep(seconds)
        now.pop()
        return seconds

    async def ask(client):
        CLIENT.set(client)
        return await gateway._compute(measure, 0.05)

    async def run():
        tasks = [asyncio.create_task(ask(client)) for client in "aabb"]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    left, *answered = asyncio.run(run())
    assert isinstance(left, asyncio.CancelledError)
    assert answered == [0.05] * 3
    assert most == [1] * 4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.integers(0, 3), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_all_work_is_done_once_within_the_capacity_and_nothing_is_left(jobs):
    async def run():
        queue, now, largest = TurnQueue(5), [], []

        async def job(client, cost, turns):
            CLIENT.set(client)
            async with queue.turn(cost):
                now.append(cost)
                largest.append((sum(now), len(now)))
                try:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                finally:
                    now.remove(cost)

        tasks = [(asyncio.create_task(job(*job_[:3])), job_[3]) for job_ in jobs]
        await asyncio.sleep(0)
        for task, is_cancelled in tasks:
            if is_cancelled:
                task.cancel()
        done = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert not [e for e in done if isinstance(e, Exception)]
        assert all(total <= 5 or count == 1 for total, count in largest)
        assert queue.in_progress == 0
        assert not queue._waiting
        assert not queue._running
        assert not queue._used

    asyncio.run(run())


def test_work_that_would_wait_too_long_is_refused_and_the_time_to_come_back_is_true():
    async def run():
        queue, done = TurnQueue(1, max_wait_s=0.5), []
        for _ in range(5):  # the pace: ten a second
            await asyncio.create_task(work(queue, "a", 1, 0.1, done))
        tasks = []
        refused = None
        for _ in range(20):
            try:
                queue.check("a")
            except ApiError as error:
                refused = error
                break
            tasks.append(asyncio.create_task(work(queue, "a", 1, 0.1, done)))
            await asyncio.sleep(0)
        assert refused is not None
        assert refused.code == "too_many"
        assert 5 <= len(tasks) <= 9
        queue.check("b")  # another client has its own turns
        await asyncio.sleep(refused.retry_after_s)
        queue.check("a")
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_client_has_a_number_of_requests_at_once():
    limits = ClientLimits(2, 1e6)
    with limits.request("a", 0), limits.request("a", 0):
        with pytest.raises(ApiError, match="at most 2 requests at once") as refused, limits.request("a", 3.2):
            pass
        assert refused.value.retry_after_s == 3  # half of 3.2 s with two at once, and half of it to spare
        with limits.request("b", 0):
            pass
    with limits.request("a", 0):
        pass


def test_requests_refused_at_once_are_let_in_when_they_were_told_to_come_back(monkeypatch):
    """Thirty-two requests come at once, and a machine answers one after the other."""
    now = [100.0]
    monkeypatch.setattr("serve.admission.time.monotonic", lambda: now[0])
    limits, each_s = ClientLimits(8, 1e6), 0.3
    with limits.request("a", 0):  # one alone tells how long a request takes
        now[0] += each_s
    running, told, refused_again = [], [], 0

    def ask():
        request = limits.request("a", 0)
        try:
            request.__enter__()
        except ApiError as error:
            return error.retry_after_s
        begin = max([now[0], *(end for end, _ in running)])
        running.append((begin + each_s, request))
        return None

    told = [now[0] + wait for wait in (ask() for _ in range(32)) if wait]
    assert len(told) == 24
    assert len(set(told)) > 6
    while told or running:
        now[0] = min([*told, *(end for end, _ in running)])
        for end, request in list(running):
            if end <= now[0]:
                request.__exit__(None, None, None)
                running.remove((end, request))
        for due in [due for due in told if due <= now[0]]:
            told.remove(due)
            refused_again += ask() is not None
    assert refused_again == 0


def test_a_client_that_never_waits_fills_no_memory_and_is_told_a_minute():
    limits = ClientLimits(1, 1e6)
    with limits.request("a", 0):
        waits = []
        for _ in range(500):
            with pytest.raises(ApiError) as refused, limits.request("a", 0):
                pass
            waits.append(refused.value.retry_after_s)
        assert waits == sorted(waits)
        assert waits[-1] == 60
        assert len(limits._places["a"]) < 50


def test_what_one_limit_refused_delays_no_request_that_another_refuses(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("serve.admission.time.monotonic", lambda: now[0])
    limits = ClientLimits(1, 600)
    with limits.request("a", 0):
        limits.spend("a", 590)
        with pytest.raises(ApiError) as refused:
            limits.spend("a", 500)
        assert refused.value.retry_after_s == 50
        waits = []
        for now[0] in (100.0, 105.0, 110.0, 115.0):
            with pytest.raises(ApiError) as refused, limits.request("a", 0):
                pass
            waits.append(refused.value.retry_after_s)
        assert waits == [2, 2, 2, 2]  # a request takes a second, and half of it is to spare


def test_a_large_request_is_told_its_own_long_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("serve.admission.time.monotonic", lambda: now[0])
    limits = ClientLimits(16, 10)
    limits.spend("a", 32)
    with pytest.raises(ApiError) as refused:
        limits.spend("a", 1)
    now[0] += refused.value.retry_after_s
    assert refused.value.retry_after_s == 138
    limits.spend("a", 1)


def test_questions_refused_at_once_are_let_in_when_they_were_told_to_come_back(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("serve.admission.time.monotonic", lambda: now[0])
    limits = ClientLimits(9, 60)
    limits.spend("a", 60)
    told = []
    for _ in range(5):
        with pytest.raises(ApiError) as refused:
            limits.spend("a", 8)
        told.append(now[0] + refused.value.retry_after_s)
    assert told == [108, 116, 124, 132, 140]
    for now[0] in told:
        limits.spend("a", 8)


def test_a_client_has_a_rate_and_is_told_when_it_may_ask_again(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("serve.admission.time.monotonic", lambda: now[0])
    limits = ClientLimits(9, 60)  # one a second, sixty at once
    limits.spend("a", 60)
    with pytest.raises(ApiError) as refused:
        limits.spend("a", 10)
    assert refused.value.retry_after_s == 10
    now[0] += 9.9
    with pytest.raises(ApiError):
        limits.spend("a", 10)
    now[0] += 0.2
    limits.spend("a", 10)
    limits.spend("b", 100)  # more than a minute's: once, after nothing
    with pytest.raises(ApiError) as refused:
        limits.spend("b", 100)
    now[0] += refused.value.retry_after_s
    limits.spend("b", 100)


def test_one_client_cannot_take_all_requests():
    admission = Admission(GatewaySettings(max_requests=4, max_client_requests=2))
    with admission.request("a"), admission.request("a"):
        with pytest.raises(ApiError) as own, admission.request("a"):
            pass
        others = [admission.request("b"), admission.request("b")]
        for request in others:
            request.__enter__()
        with pytest.raises(ApiError) as all_, admission.request("c"):
            pass
        for request in reversed(others):
            request.__exit__(None, None, None)
    assert (own.value.code, all_.value.code) == ("too_many", "busy")
    assert admission.in_progress == 0
