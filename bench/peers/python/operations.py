"""Single operations with PyTorch: milliseconds of a repetition; for `limit`, seconds of the fastest call."""

import statistics
import time

import torch
import torch.nn.functional as functional

import common


def seconds_of(run, repeats):
    run()
    seconds = []
    for _ in range(repeats):
        common.wait()
        start = time.perf_counter()
        run()
        common.wait()
        seconds.append(time.perf_counter() - start)
    return seconds


def product(inputs, outputs, rows, dtype, repeats):
    x = torch.randn(rows, inputs).to(dtype)
    weight = torch.randn(outputs, inputs).to(dtype)
    with torch.inference_mode():
        return seconds_of(lambda: functional.linear(x, weight), repeats)


def products_of(config):
    hidden, ffn, head = config["hiddenSize"], config["intermediateSize"], config["headDim"]
    heads, kv_heads = config["numHeads"], config["numKvHeads"]
    return [
        (hidden, (heads + 2 * kv_heads) * head),
        (heads * head, hidden),
        (hidden, 2 * ffn),
        (ffn, hidden),
        (hidden, config["vocabSize"]),
    ]


def matmul(job, dtype):
    times = [product(i, o, job["rows"], dtype, job["repeats"]) for i, o in products_of(job["config"])]
    return [1000 * sum(statistics.median(seconds) for seconds in times)]


def attention(job, dtype):
    config, length = job["config"], -(-job["rows"] // 4)
    q = torch.randn(4, config["numHeads"], length, config["headDim"]).to(dtype).requires_grad_()
    k = torch.randn(4, config["numKvHeads"], length, config["headDim"]).to(dtype).requires_grad_()
    v = torch.randn_like(k).requires_grad_()
    gradient = torch.randn_like(q)

    def run():
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        torch.autograd.grad(out, (q, k, v), gradient)

    return [1000 * seconds for seconds in seconds_of(run, job["repeats"])]


def policy_loss(job, dtype):
    config, rows = job["config"], job["rows"]
    hidden = torch.randn(rows, config["hiddenSize"]).to(dtype).requires_grad_()
    weight = torch.randn(config["vocabSize"], config["hiddenSize"]).mul(0.02).to(dtype).requires_grad_()
    targets = torch.arange(rows) * 7919 % config["vocabSize"]

    def run():
        logits = functional.linear(hidden, weight).float()
        log_probs = -functional.cross_entropy(logits, targets, reduction="none")
        ratio = torch.exp(log_probs - log_probs.detach())
        loss = -torch.min(ratio, torch.clamp(ratio, 0.8, 1.2)).mean()
        torch.autograd.grad(loss, (hidden, weight))

    return [1000 * seconds for seconds in seconds_of(run, job["repeats"])]


def sampling(job, dtype):
    logits = torch.randn(job["rows"], job["config"]["vocabSize"])

    def run():
        log_probs = torch.log_softmax(logits, -1)
        tokens = torch.multinomial(log_probs.exp(), 1)
        entropies = -(log_probs.exp() * log_probs).sum(-1)
        return log_probs.gather(-1, tokens), entropies

    with torch.inference_mode():
        return [1000 * seconds for seconds in seconds_of(run, job["repeats"])]


def main():
    job = common.read_job()
    torch.set_default_device(common.DEVICE)
    dtype = common.DTYPES[job["dtype"]]
    if job["kind"] == "limit":
        limit = [
            [min(product(i, o, rows, dtype, job["repeats"])) for i, o in job["products"]] for rows in job["rows"]
        ]
        common.write_result([], limit=limit)
        return
    runs = {"matmul": matmul, "attention": attention, "policy-loss": policy_loss, "sampling": sampling}
    common.write_result(runs[job["kind"]](job, dtype))


if __name__ == "__main__":
    main()
