"""Sampling with transformers, and the time to the first token. End tokens are ignored; nothing is truncated."""

import torch

import common


def main():
    job = common.read_job()
    model = common.load_model(job).eval()
    # A model that knows no end token goes on to the last step.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    prompts = torch.tensor(job["prompts"], device=common.DEVICE)
    if job["kind"] == "prefill":
        common.write_result(common.timed(lambda: prefill(model, prompts), job))
        return
    steps = max(job["newTokens"])
    samples = job["n"]
    # The prompts and a few steps warm everything up; the whole would double the longest cases.
    for _ in range(job["warmUps"]):
        sample(model, prompts, min(4, steps), samples)
    values = common.timed(lambda: sample(model, prompts, steps, samples), {**job, "warmUps": 0})
    fields = {}
    if job["greedyTokens"] > 0:
        fields["greedy"] = greedy(model, prompts[:4], job["greedyTokens"])
    if len(set(job["newTokens"])) > 1:
        fields["note"] = "all rows run to the longest: generate() has no length for each row"
    common.write_result(values, **fields)


@torch.inference_mode()
def prefill(model, prompts):
    logits = model(input_ids=prompts, use_cache=True, logits_to_keep=1).logits
    return torch.multinomial(torch.softmax(logits[:, -1].float(), -1), 1)


@torch.inference_mode()
def sample(model, prompts, steps, samples):
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    mask = torch.ones_like(prompts)
    tokens = model.generate(
        prompts, attention_mask=mask, max_new_tokens=steps, num_return_sequences=samples, **options
    )
    assert tokens.shape == (len(prompts) * samples, prompts.shape[1] + steps)


@torch.inference_mode()
def greedy(model, prompts, steps):
    mask = torch.ones_like(prompts)
    tokens = model.generate(prompts, attention_mask=mask, max_new_tokens=steps, do_sample=False)
    return tokens[:, prompts.shape[1] :].tolist()


if __name__ == "__main__":
    main()
