import { Command, Option } from 'commander'
import { type Algorithm, algorithms } from '../training/algorithms.ts'
import type { StepRecord } from '../training/step-record.ts'
import type { TrainerState } from '../training/trainer-state.ts'
import { addPolicyOptions, note, type PolicyOptions } from './common.ts'
import { addConfigOptions, givenSettings } from './config-flags.ts'
import { defaultOutput, figure, requireFlag, runTraining } from './training-run.ts'

interface TrainFlags extends PolicyOptions {
  algorithm?: Algorithm
  train?: string
  eval?: string
  resume?: string
  json?: boolean
}

/** `ssrl train`: self-search RL on a question file. */
export function trainCommand(): Command {
  const command = new Command('train').description('Train a policy to search its own memory (SSRL).')
  addPolicyOptions(command, { required: false })
    .option('--train <file>', 'training questions (JSONL or parquet)')
    .option('--eval <file>', 'held-out questions')
    .addOption(
      new Option('--algorithm <name>', 'settings of a published algorithm; those that are given win').choices(
        Object.keys(algorithms),
      ),
    )
    .option('--resume <folder>', 'go on with a run: its folder, or one of its checkpoints')
    .option('--json', 'print step records as JSON lines')
  addConfigOptions(command, 'ssrl')
  return command.action(async (flags: TrainFlags) => {
    const trainer = await (flags.resume === undefined
      ? begin(command, flags)
      : resume(command, flags, flags.resume))
    await runTraining(trainer, { command: 'train', describe, json: flags.json ?? false })
  })
}

async function begin(command: Command, flags: TrainFlags) {
  const { Policy } = await import('../policy/policy.ts')
  const { SSRLTrainer } = await import('../training/ssrl-trainer.ts')
  const { parseConfig } = await import('../training/config-parse.ts')
  const { readQuestionFile } = await import('./questions.ts')
  const settings = {
    outputDirectory: defaultOutput('train'),
    ...algorithms[flags.algorithm ?? 'ssrl'],
    ...(await givenSettings(command, 'ssrl')),
  }
  // Wrong settings are told before a model is loaded.
  const { answerReward } = parseConfig(settings, 'ssrl')
  const answers = answerReward === 'majorityVote' ? 'optional' : 'required'
  const source = requireFlag(flags.policy, '--policy')
  const train = await readQuestionFile(requireFlag(flags.train, '--train'), answers)
  const evaluation = flags.eval === undefined ? undefined : await readQuestionFile(flags.eval)
  const { device, dtype, threads } = flags
  const policy = await Policy.load(source, { device, dtype, threads })
  return new SSRLTrainer({ ...settings, policy, train, evaluation, onWarning: (message) => note(message) })
}

async function resume(command: Command, flags: TrainFlags, folder: string) {
  const { SSRLTrainer } = await import('../training/ssrl-trainer.ts')
  const { readQuestionFile } = await import('./questions.ts')
  const trainer = await SSRLTrainer.resume(folder, {
    ...algorithms[flags.algorithm ?? 'ssrl'],
    ...(await givenSettings(command, 'ssrl')),
    train:
      flags.train === undefined ? undefined : await readQuestionFile(flags.train, await answersOf(folder)),
    evaluation: flags.eval === undefined ? undefined : await readQuestionFile(flags.eval),
    threads: flags.threads,
    onWarning: (message) => note(message),
  })
  note(`going on after step ${trainer.step}`)
  return trainer
}

/** Which questions a run took from its file: with majority votes also those without answers. */
async function answersOf(folder: string): Promise<'optional' | 'required'> {
  const { findCheckpoint, readCheckpoint } = await import('../training/checkpoint.ts')
  const { config } = await readCheckpoint<TrainerState>(await findCheckpoint(folder))
  return config.answerReward === 'majorityVote' ? 'optional' : 'required'
}

function describe(record: StepRecord): string {
  const { reward, format, exactMatch, labels, evaluation } = record
  const parts = [
    `reward ${figure(reward.mean)}`,
    `format ${figure(format.mean)}`,
    ...(exactMatch.mean === null ? [] : [`EM ${figure(exactMatch.mean)}`]),
    ...(labels ? [`consensus ${figure(labels.consensus)}`] : []),
  ]
  if (evaluation) parts.push(`held-out EM ${figure(evaluation.em)}`)
  return parts.join(' · ')
}
