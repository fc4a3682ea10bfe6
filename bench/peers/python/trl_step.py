"""Whole GRPO steps of TRL's GRPOTrainer: sample, reward, score by the reference, train. No gradient checkpointing."""

import os
import tempfile
import time

import datasets
import torch
import transformers
import trl

import common


class Clock(transformers.TrainerCallback):
    def __init__(self):
        self.seconds = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self.start)


def vowels(completions, **kwargs):
    return [float(sum(letter in "aeiou" for letter in text)) for text in completions]


def main():
    job = common.read_job()
    datasets.disable_progress_bars()
    rows = len(job["prompts"]) * job["n"]
    device_rows = rows_at_once(job, rows)
    steps = job["warmUps"] + job["repeats"]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.GRPOTrainer(
            model=common.load_model(job),
            reward_funcs=vowels,
            args=configuration(job, folder, rows, device_rows, steps),
            train_dataset=datasets.Dataset.from_list([{"prompt": text} for text in job["texts"]] * steps),
            processing_class=tokenizer_of(job),
            callbacks=[clock],
        )
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()
    lengths = [log["completions/mean_length"] for log in trainer.state.log_history if "completions/mean_length" in log]
    assert all(length == job["newTokens"] for length in lengths), lengths
    seen = trainer.state.log_history[0]
    common.write_result(
        clock.seconds[job["warmUps"] :],
        loss=seen["loss"],
        gradNorm=seen["grad_norm"],
        version=f"TRL {trl.__version__}, torch {torch.__version__}, transformers {transformers.__version__}",
        note=f"{int(rows * lengths[0])} tokens sampled a step, {device_rows} rows at once in training",
    )


def rows_at_once(job, rows):
    """All of them, but for f32 on a machine of less than 30 GB: 32 rows of 284 tokens take 23 GB."""
    if common.DEVICE != "cpu":
        return rows
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return rows if job["dtype"] != "f32" or memory > 30e9 else max(1, rows // 2)


def configuration(job, folder, rows, device_rows, steps):
    return trl.GRPOConfig(
        output_dir=folder,
        use_cpu=common.DEVICE == "cpu",
        bf16=job["dtype"] == "bf16",
        per_device_train_batch_size=device_rows,
        gradient_accumulation_steps=rows // device_rows,
        generation_batch_size=rows,
        num_generations=job["n"],
        max_completion_length=job["newTokens"],
        beta=job["beta"],
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        # The end token is forbidden until the last: all completions have the same length.
        generation_kwargs={"min_new_tokens": job["newTokens"]},
        loss_type="grpo",
        learning_rate=1e-9,
        lr_scheduler_type="constant",
        max_steps=steps,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=1,
    )


def tokenizer_of(job):
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


if __name__ == "__main__":
    main()
