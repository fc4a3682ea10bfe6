import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { Question } from '../data/questions.ts'
import { readJsonl } from '../logging/jsonl.ts'
import type { DeviceName } from '../policy/device.ts'
import type { PromptTemplate } from '../rollout/prompts.ts'
import type { AlarmState } from './alarms.ts'
import type { Config, TrainerName } from './config.ts'
import type { MachineMark } from './machine.ts'

/** What a checkpoint says beside weights and optimizer state. */
export interface TrainerState {
  trainer: TrainerName
  /** Optimizer steps done (steps of the trainer: `numIterations` passes count as one). */
  step: number
  /** Place in the walk over the training data. All seeds follow from the configuration's and the step. */
  cursor: number
  config: Config
  dtype: 'f32' | 'bf16'
  /** Compute threads: sums of gradients may round differently with another number. */
  threads: number
  /** absent: 'cpu' */
  device?: DeviceName
  promptTemplate: PromptTemplate | null
  /** Names of the reward's parts. */
  rewards: string[]
  /** Name of the provider that answers searches; null: the policy. Of SSRL. */
  search?: string | null
  best: { step: number; score: number } | null
  /** What the collapse alarms have seen: of SSRL. */
  alarms?: AlarmState
  /** A step that has been learnt but not yet evaluated and written. */
  open: unknown
  machine: MachineMark
}

/** Writes questions as they are kept inside a checkpoint. */
export function questionWriter(questions: readonly Question[]) {
  const lines = questions.map(({ id, question, goldenAnswers }) =>
    JSON.stringify({ id, question, golden_answers: goldenAnswers }),
  )
  return (target: string) => writeFile(target, lines.map((line) => `${line}\n`).join(''))
}

interface StoredQuestion {
  id: string
  question: string
  golden_answers: string[]
}

export async function readQuestions(directory: string, name: string): Promise<Question[]> {
  const rows = await readJsonl<StoredQuestion>(path.join(directory, name))
  return rows.map((row) => ({
    id: row.id,
    question: row.question,
    goldenAnswers: row.golden_answers,
    fields: { ...row },
  }))
}

/** True when two sets hold the same questions and answers in the same order. */
export function sameQuestions(a: readonly Question[], b: readonly Question[]): boolean {
  const key = ({ id, question, goldenAnswers }: Question) => JSON.stringify([id, question, goldenAnswers])
  return a.length === b.length && a.every((item, index) => key(item) === key(b[index]!))
}
