/** What the training commands share: inputs, progress, and leaving in good order. */
import { SsrlError } from '../errors.ts'
import { Progress } from '../logging/progress.ts'
import type { Policy } from '../policy/policy.ts'
import { note, print } from './common.ts'
import { onInterrupt } from './interrupt.ts'

/** The part of a trainer that a command needs. */
export interface RunningTrainer<R extends { step: number }> {
  readonly config: { maxSteps: number; outputDirectory: string | null }
  readonly policy: Policy
  readonly step: number
  train(options: { signal?: AbortSignal }): AsyncGenerator<R, void, void>
  save(): Promise<string>
  dispose(): void
}

export interface RunOptions<R> {
  command: 'train' | 'sft'
  /** A line of figures for the progress display. */
  describe(record: R): string
  /** Records as JSON lines on stdout. */
  json: boolean
}

/** Trains to the end. Ctrl-C saves a checkpoint and says how to go on; a second one leaves at once. */
export async function runTraining<R extends { step: number }>(
  trainer: RunningTrainer<R>,
  { command, describe, json }: RunOptions<R>,
): Promise<void> {
  const interrupt = onInterrupt('stopping: a checkpoint is saved first; Ctrl-C again leaves at once')
  const { maxSteps, outputDirectory } = trainer.config
  const progress = new Progress({ total: maxSteps, done: trainer.step, label: 'step' })
  try {
    for await (const record of trainer.train({ signal: interrupt.signal })) {
      progress.update(record.step, describe(record))
      if (json) print(JSON.stringify(record))
    }
    progress.finish()
    note(`the policy is in ${outputDirectory}/policy; records are in ${outputDirectory}/steps.jsonl`)
  } catch (error) {
    progress.finish()
    if (interrupt.signal.aborted) {
      const saved = await trainer.save()
      note(`saved ${saved}\nto go on: ssrl ${command} --resume ${outputDirectory}`)
    }
    throw error
  } finally {
    interrupt.dispose()
    trainer.dispose()
    await trainer.policy.dispose()
  }
}

/** `runs/train-20260131-174500` */
export function defaultOutput(command: string): string {
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '-')
  return `runs/${command}-${stamp}`
}

/** @throws SsrlError `ERR_INVALID_ARG`, which ends the command with exit code 2 */
export function requireFlag<T>(value: T | undefined, flag: string): T {
  if (value !== undefined) return value
  throw new SsrlError('ERR_INVALID_ARG', `Expected ${flag} (or --resume with a run's folder)`)
}

export const figure = (value: number) => value.toFixed(3)
