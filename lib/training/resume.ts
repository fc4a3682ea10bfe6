import path from 'node:path'
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import { Policy } from '../policy/policy.ts'
import { findCheckpoint, readCheckpoint } from './checkpoint.ts'
import { type Config, type SettingName, settingNames, type TrainerName } from './config.ts'
import { differences, type PartialConfig } from './config-parse.ts'
import { hasEffect } from './config-sense.ts'
import { describeMachine, machineDifferences } from './machine.ts'
import { readQuestions, sameQuestions, type TrainerState } from './trainer-state.ts'

/** What may be said again on resuming; anything that differs from the checkpoint and would change the result is refused. */
export interface ResumeOptions extends PartialConfig {
  threads?: number
  signal?: AbortSignal
  onWarning?: (message: string) => void
}

/** A checkpoint that has been checked, with its policy loaded. */
export interface LoadedCheckpoint {
  directory: string
  state: TrainerState
  settings: PartialConfig
  policy: Policy
}

/**
 * Opens a checkpoint, or the newest one of a run's folder.
 *
 * @throws SsrlError `ERR_CHECKPOINT` when it is damaged, another trainer's, or of other settings
 */
export async function loadCheckpoint(
  given: string,
  trainer: TrainerName,
  { threads, signal, onWarning, ...wanted }: ResumeOptions,
): Promise<LoadedCheckpoint> {
  const directory = await findCheckpoint(given)
  const state = await readCheckpoint<TrainerState>(directory)
  if (state.trainer !== trainer) {
    throw new SsrlError(
      'ERR_CHECKPOINT',
      `Expected a checkpoint of ${trainer} in ${directory}, but it is one of ${state.trainer}`,
    )
  }
  refuseDifferences(directory, differences(state.config, wanted))
  const policy = await Policy.load(path.join(directory, 'policy'), {
    dtype: state.dtype,
    threads: threads ?? (process.env.SSRL_THREADS ? undefined : state.threads),
    signal,
  })
  const other = machineDifferences(state.machine, describeMachine())
  if (policy.threads !== state.threads) {
    other.push(`threads (checkpoint: ${state.threads}, here: ${policy.threads})`)
  }
  const { device = 'cpu' } = state
  if (policy.device !== device) other.push(`device (checkpoint: ${device}, here: ${policy.device})`)
  if (other.length > 0) {
    onWarning?.(
      `The run goes on, but not bit for bit as it would have where it was saved: ${other.join(', ')}`,
    )
  }
  return { directory, state, settings: settingsOf(state, trainer, directory, wanted), policy }
}

export function refuseDifferences(directory: string, different: readonly string[]): void {
  if (different.length === 0) return
  throw new SsrlError(
    'ERR_CHECKPOINT',
    `The checkpoint ${directory} belongs to another configuration: ${different.join('; ')}. Resume it as it was, or start a new run from its policy`,
  )
}

/** The questions that a checkpoint holds; those that are given now must be the same. */
export async function storedQuestions(
  directory: string,
  name: 'train' | 'evaluation',
  given: readonly Question[] | undefined,
): Promise<Question[] | undefined> {
  const stored = await readQuestions(directory, `${name}.jsonl`)
  if (given !== undefined && !sameQuestions(stored, given)) {
    refuseDifferences(directory, [
      `the questions of ${name} are others (checkpoint: ${stored.length}, now: ${given.length})`,
    ])
  }
  return stored.length === 0 ? undefined : stored
}

function settingsOf(
  state: TrainerState,
  trainer: TrainerName,
  directory: string,
  wanted: PartialConfig,
): PartialConfig {
  // What has no effect beside the others is the default that nobody asked for, and asking for it would be refused.
  const names = settingNames(trainer).filter((name) => hasEffect(name, state.config))
  const stored = Object.fromEntries(names.map((name) => [name, state.config[name]])) as PartialConfig
  const given = Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined))
  return { ...stored, outputDirectory: runFolderOf(directory, state.config), ...given }
}

/** The run's folder may have moved since: the checkpoint's own place says where it is now. */
function runFolderOf(
  directory: string,
  { outputDirectory }: Pick<Config, Extract<SettingName, 'outputDirectory'>>,
): string | null {
  const parent = path.dirname(path.resolve(directory))
  return outputDirectory !== null && path.basename(parent) === 'checkpoints'
    ? path.dirname(parent)
    : outputDirectory
}
