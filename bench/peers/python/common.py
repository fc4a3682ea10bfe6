"""What every benchmark process shares: the job from stdin, the model, the clock, and the result as the last line."""

import json
import os
import sys
import time

import torch
import transformers

# bench/gpu.ts says "cuda".
DEVICE = os.environ.get("SSRL_BENCH_DEVICE", "cpu")
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "autocast": torch.float32}


def read_job():
    # Should memory run out, this process is the one to end.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    torch.manual_seed(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return job


def load_model(job):
    # On a GPU PyTorch's own fused attention, which is what transformers takes there.
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=DTYPES[job["dtype"]])
    return model.to(DEVICE)


def wait():
    if DEVICE != "cpu":
        torch.cuda.synchronize()


def timed(run, job):
    """Seconds of each repetition, after the warm-ups."""
    for _ in range(job["warmUps"]):
        run()
    seconds = []
    for _ in range(job["repeats"]):
        wait()
        start = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_memory():
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def write_result(values, **fields):
    version = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(json.dumps({"version": version, **fields, "values": values, "peak": peak_memory()}), flush=True)
