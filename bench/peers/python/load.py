"""The time that transformers takes to load a GGUF file, ready to generate."""

import os
import time

import transformers

import common


def main():
    job = common.read_job()
    folder, name = os.path.split(job["model"])
    dtype = common.DTYPES[job["dtype"]]
    start = time.perf_counter()
    transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype)
    common.write_result([time.perf_counter() - start])


if __name__ == "__main__":
    main()
