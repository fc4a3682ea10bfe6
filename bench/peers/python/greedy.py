"""Greedy decoding with transformers on the CPU in float32, eager attention.

Reads {"model": folder, "prompts": [[id]], "newTokens": n, "threads": n, "texts": [text]} from stdin, writes
{"tokens", "seconds", "ids", "version"} to stdout.
"""

import json
import sys
import time

import torch
import transformers

request = json.load(sys.stdin)
torch.set_num_threads(request["threads"])
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
model = transformers.AutoModelForCausalLM.from_pretrained(
    request["model"], dtype=torch.float32, attn_implementation="eager"
)
model.eval()
ids = []
if request["texts"]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["model"])
    ids = [tokenizer(text)["input_ids"] for text in request["texts"]]
count = request["newTokens"]
tokens, seconds = [], 0.0
for prompt in request["prompts"]:
    start = time.perf_counter()
    row, cache, step = [], None, torch.tensor([prompt])
    with torch.inference_mode():
        for _ in range(count):
            result = model(input_ids=step, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            step = result.logits[:, -1].argmax(-1, keepdim=True)
            row.append(int(step))
    seconds += time.perf_counter() - start
    tokens.append(row)
version = f"transformers {transformers.__version__}, torch {torch.__version__}"
json.dump({"tokens": tokens, "seconds": seconds, "ids": ids, "version": version}, sys.stdout)
