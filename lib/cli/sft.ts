import { Command } from 'commander'
import type { SFTStepRecord } from '../training/sft-trainer.ts'
import { addPolicyOptions, note, type PolicyOptions } from './common.ts'
import { addConfigOptions, givenSettings } from './config-flags.ts'
import { defaultOutput, figure, requireFlag, runTraining } from './training-run.ts'

interface SftFlags extends PolicyOptions {
  data?: string
  eval?: string
  resume?: string
  json?: boolean
}

/** `ssrl sft`: supervised fine-tuning on examples. */
export function sftCommand(): Command {
  const command = new Command('sft').description(
    'Fine-tune a policy on examples: "prompt" and "completion", "messages", "question" and "completion", or "text" per line.',
  )
  addPolicyOptions(command, { required: false })
    .option('--data <file>', 'examples (JSONL or parquet)')
    .option('--eval <file>', 'held-out examples')
    .option('--resume <folder>', 'go on with a run: its folder, or one of its checkpoints')
    .option('--json', 'print step records as JSON lines')
  addConfigOptions(command, 'sft')
  return command.action(async (flags: SftFlags) => {
    const trainer = await (flags.resume === undefined
      ? begin(command, flags)
      : resume(command, flags, flags.resume))
    await runTraining(trainer, { command: 'sft', describe, json: flags.json ?? false })
  })
}

async function readExamples(path: string) {
  const { loadExamples } = await import('../data/examples.ts')
  return loadExamples(path, {
    onReport: ({ rows, kept, empty }) => {
      note(
        `${path}: ${kept} of ${rows} rows are examples to use${empty.length > 0 ? `, ${empty.length} are empty` : ''}`,
      )
    },
  })
}

async function begin(command: Command, flags: SftFlags) {
  const { Policy } = await import('../policy/policy.ts')
  const { SFTTrainer } = await import('../training/sft-trainer.ts')
  const { parseConfig } = await import('../training/config-parse.ts')
  const settings = { outputDirectory: defaultOutput('sft'), ...(await givenSettings(command, 'sft')) }
  parseConfig(settings, 'sft')
  const source = requireFlag(flags.policy, '--policy')
  const train = await readExamples(requireFlag(flags.data, '--data'))
  const evaluation = flags.eval === undefined ? undefined : await readExamples(flags.eval)
  const { device, dtype, threads } = flags
  const policy = await Policy.load(source, { device, dtype, threads })
  return new SFTTrainer({ ...settings, policy, train, evaluation, onWarning: (message) => note(message) })
}

async function resume(command: Command, flags: SftFlags, folder: string) {
  const { SFTTrainer } = await import('../training/sft-trainer.ts')
  const trainer = await SFTTrainer.resume(folder, {
    ...(await givenSettings(command, 'sft')),
    train: flags.data === undefined ? undefined : await readExamples(flags.data),
    evaluation: flags.eval === undefined ? undefined : await readExamples(flags.eval),
    threads: flags.threads,
    onWarning: (message) => note(message),
  })
  note(`going on after step ${trainer.step}`)
  return trainer
}

function describe({ loss, evaluation }: SFTStepRecord): string {
  return `loss ${figure(loss)}${evaluation ? ` · held-out loss ${figure(evaluation.loss)}` : ''}`
}
