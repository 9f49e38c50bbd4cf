"""Threads, tasks and processes: each computes as if it were alone, to the same bits."""

import asyncio
import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from checks import assert_same_bits_for_two_threads
from scratchgen.kernels import cuda, gemm_chooser
from scratchgen.kernels.conv2d_chooser import convolution

import scratchgen as sg
from scratchgen.context import Setting, Switch, recording
from scratchgen.engine.backend import backend

SHAPE = (8, 8, 1)
MODELS = {"dae": ("dae", {"hidden": 30}, "adam"),
          "vae": ("vae", {"hidden": 20, "latent": 3}, "adam"),
          "conv vae": ("vae", {"arch": "conv", "channels": [3, 5], "latent": 2}, "sgd"),
          "gan": ("gan", {"latent": 5, "generator": [9, 11], "discriminator": [12, 7]}, "rmsprop")}
LARGER = {"dae": ("dae", {"hidden": 200}, "adam"),
          "tied dae": ("dae", {"hidden": 200, "tied": True}, "sgd"),
          "vae": ("vae", {"hidden": 150, "latent": 7}, "adamw"),
          "conv vae": ("vae", {"arch": "conv", "channels": [8, 16], "latent": 5}, "adam"),
          "gan": ("gan", {"latent": 20, "generator": [90, 110], "discriminator": [120, 70]},
                  "rmsprop"),
          "conv gan": ("gan", {"arch": "conv", "latent": 9, "channels": 8}, "adagrad")}
KINDS = {"dae": sg.models.DAE, "vae": sg.models.VAE, "gan": sg.models.GAN}


def train(form, backend, steps=6, batch=300, pause=lambda: None, forms=MODELS, shape=SHAPE):
    """The bytes of all weights after some steps; ``pause`` is called between the operations."""
    with sg.use_backend(backend):
        kind, options, optimiser = forms[form]
        model = KINDS[kind](KINDS[kind].Config(**options), shape, seed=len(form))
        streams = sg.Streams(3)
        optimisers = {name: sg.optim.make(optimiser, network, 1e-3)
                      for name, network in model.networks().items()}
        for i in range(steps):
            x = np.random.default_rng(i).random((batch, *shape)).astype(np.float32)
            pause()
            model.training_step(x, streams, optimisers)
            with sg.no_grad():                         # while others train
                pause()
                sg.square(sg.tensor(x)).sum()
        return b"".join(np.asarray(a).tobytes() for a in model.state_dict().values())


def parallel_results():
    """The weights of six models after training on images of 28 × 28 pixels, for each in turn."""
    for form in LARGER:
        weights = train(form, "numba", 3, 100, forms=LARGER, shape=(28, 28, 1))
        yield np.frombuffer(weights, np.uint8)


def test_training_makes_the_same_bits_with_one_and_with_two_threads():
    assert_same_bits_for_two_threads("test_threads")


@pytest.mark.parametrize("count", [2, 8])
def test_threads_train_to_the_bits_of_each_alone(count):
    """Different models on different backends, all at once: nobody's switches are another's."""
    jobs = [(form, backend) for form in MODELS for backend in ("numpy", "numba")][:count]
    jobs = [jobs[0], jobs[-1]] if count == 2 else jobs
    alone = [train(*job) for job in jobs]
    together = threading.Barrier(count, timeout=60)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        found = list(pool.map(lambda job: train(*job, pause=together.wait), jobs))
    for job, a, b in zip(jobs, found, alone, strict=True):
        assert a == b, job


def test_threads_train_on_a_gpu_and_the_cpu_at_once(gpu):
    jobs = [("dae", "cuda"), ("vae", "numba"), ("gan", "cuda"), ("dae", "numpy")]
    alone = [train_small(job) for job in jobs]
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        assert list(pool.map(train_small, jobs)) == alone


def train_small(job):
    """As ``train``, of a captured step on a GPU."""
    form, backend = job
    with sg.use_backend(backend):
        kind, options, optimiser = MODELS[form]
        model = KINDS[kind](KINDS[kind].Config(**options), SHAPE, seed=2)
        streams = sg.Streams(3)
        optimisers = {name: sg.optim.make(optimiser, network, 1e-3)
                      for name, network in model.networks().items()}
        step = sg.capture(lambda x: model.training_step(x, streams, optimisers),
                          lambda: model.recording_key(optimisers))
        for i in range(5):
            step(np.random.default_rng(i).random((4, *SHAPE)).astype(np.float32))
        from scratchgen.engine.memory import to_host
        return b"".join(to_host(a).tobytes() for a in model.state_dict().values())


SWITCHES = {
    "no_grad": (sg.no_grad, recording.get, True, False),
    "backend": (lambda: sg.use_backend("numpy"), backend, "numba", "numpy"),
    "gemm": (lambda: sg.use_gemm("naive"), gemm_chooser.use_gemm.switch.get,
             ("auto", None, None), ("naive", None, None)),
    "tf32": (lambda: gemm_chooser.allow_tf32(True), gemm_chooser.allow_tf32.switch.get,
             False, True),
    "convolution": (lambda: sg.use_convolution("patches"), convolution, "auto", "patches"),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_of_one_thread(name):
    make, read, default, chosen = SWITCHES[name]
    seen = []
    with make():
        thread = threading.Thread(target=lambda: seen.append(read()))
        thread.start()
        thread.join()
        assert read() == chosen

    def elsewhere():
        with make():
            inside.set()
            left.wait(60)
            seen.append(read())

    inside, left = threading.Event(), threading.Event()
    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert inside.wait(60) and read() == default
    left.set()
    thread.join()
    assert seen == [default, chosen] and read() == default


@pytest.mark.parametrize("name", SWITCHES)
def test_a_block_puts_back_what_was_before_it(name):
    """Nested, entered twice, left by an error, and shared by threads."""
    make, read, default, chosen = SWITCHES[name]
    with make() as outer:
        with outer, make():
            assert read() == chosen
        assert read() == chosen
        with pytest.raises(ZeroDivisionError), make():
            raise ZeroDivisionError
        assert read() == chosen
    assert read() == default
    once = make() if name == "no_grad" else None
    for _ in range(2 if once else 0):
        with once:
            with once:
                assert read() == chosen
            assert read() == chosen
        assert read() == default


def test_a_choice_without_a_block_stays():
    before = backend()
    try:
        kept = sg.use_backend("numpy")
        assert backend() == "numpy"
        with sg.use_backend("numba"):
            assert backend() == "numba"
        assert backend() == "numpy"
        with kept:                                     # and until the end of its block
            assert backend() == "numpy"
        assert backend() == before
    finally:
        sg.use_backend(before)


def test_blocks_that_are_not_closed_in_order():
    """As generators may: what is put back is right for those that are still open."""
    switch = Switch("test", 0)

    class choose(Setting):
        pass

    choose.switch = switch
    first, second = choose(1), None
    first.__enter__()
    second = choose(2)
    second.__enter__()
    first.__exit__()
    second.__exit__()
    assert switch.get() == 1 and switch._open.get() is None


def test_tasks_begin_with_the_switches_of_their_starter_and_keep_their_own():
    async def task(name):
        assert backend() == "numpy" and recording.get() is False
        with sg.use_backend(name), sg.enable_grad():
            await asyncio.sleep(0.01)
            assert backend() == name and recording.get() is True
        return await asyncio.to_thread(lambda: (backend(), recording.get()))

    async def main():
        with sg.use_backend("numpy"), sg.no_grad():
            return await asyncio.gather(task("numba"), task("numpy"))

    assert asyncio.run(main()) == [("numpy", False)] * 2
    assert backend() == "numba" and recording.get() is True


def test_a_stream_that_threads_share_gives_each_number_once():
    stream = sg.Stream(5, "shared")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: stream.uniform(4).tobytes(), range(400)))
    again = sg.Stream(5, "shared")
    assert sorted(found) == sorted(again.uniform(4).tobytes() for _ in range(400))


# --- processes -----------------------------------------------------------------------------------

def job(_=None):
    return train("vae", "numba", steps=3)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_train_after_kernels_have_run(method, tmp_path):
    """Also those that are forked, where the threads that kernels are spread over do not exist."""
    script = tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_threads
if __name__ == "__main__":
    alone = test_threads.job()
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        found = pool.map_async(test_threads.job, range(2)).get(timeout=100)
    assert found == [alone] * 2 and test_threads.job() == alone
    print("same bits")
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True,
                          timeout=150, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.stdout == "same bits\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_gpu_in_a_forked_process_is_refused_with_one_sentence(monkeypatch):
    class Used:
        @staticmethod
        def cache_info():
            return type("Info", (), {"currsize": 1})

    monkeypatch.setattr(cuda, "find_gpu", Used)         # a GPU has been found in this process
    cuda.after_fork()
    with pytest.raises(sg.UserError, match="was forked from one that had used the GPU.*'spawn'"):
        sg.use_backend("cuda")
    assert backend() == "numba"
