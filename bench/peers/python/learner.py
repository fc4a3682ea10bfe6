"""One policy-gradient step with PyTorch on the transformers model: forward, clipped loss, backward, clip, fused AdamW.

`bf16`: weights, gradients and moments in bf16. `autocast`: bf16 products over f32 weights, gradients and moments.
Logits are made for the completions only, as the loss needs no others.
"""

import torch
import torch.nn.functional as functional

import common


def main():
    job = common.read_job()
    model = common.load_model(job).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, weight_decay=0.0, fused=True)
    tokens = torch.tensor(job["sequences"], device=common.DEVICE)
    advantages = torch.tensor([1.0 if i % 2 == 0 else -1.0 for i in range(len(tokens))], device=common.DEVICE).unsqueeze(1)
    autocast = job["dtype"] == "autocast"

    def step():
        with torch.autocast(common.DEVICE, dtype=torch.bfloat16, enabled=autocast):
            loss = policy_loss(model, tokens, advantages, job["promptTokens"])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item(), norm.item()

    loss, norm = step()
    common.write_result(common.timed(step, job), loss=loss, gradNorm=norm)


def policy_loss(model, tokens, advantages, prompt_tokens):
    completion = tokens[:, prompt_tokens:]
    logits = model(input_ids=tokens, use_cache=False, logits_to_keep=completion.shape[1] + 1).logits[:, :-1]
    flat = logits.float().reshape(-1, logits.shape[-1])
    log_probs = -functional.cross_entropy(flat, completion.reshape(-1), reduction="none").view_as(completion)
    ratio = torch.exp(log_probs - log_probs.detach())
    clipped = torch.clamp(ratio, 0.8, 1.2)
    return -torch.min(ratio * advantages, clipped * advantages).mean()


if __name__ == "__main__":
    main()
