/** Signs that a run is collapsing, watched from step to step. */
import { mean } from '../mean.ts'
import { normalizeAnswer } from '../rewards/normalize.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import type { Config } from './config.ts'
import type { StepRecord } from './step-record.ts'

export type AlarmName =
  | 'format'
  | 'exactMatch'
  | 'entropyLow'
  | 'entropyHigh'
  | 'zeroVariance'
  | 'repetition'
  | 'length'

export type AlarmSettings = Pick<
  Config,
  | 'alarmWindow'
  | 'alarmFall'
  | 'alarmEntropyMin'
  | 'alarmEntropyMax'
  | 'alarmZeroVariance'
  | 'alarmRepetition'
  | 'alarmLengthGrowth'
>

/** What alarms look at in a step; null where a step has no such figure. */
interface Figures {
  format: number
  exactMatch: number | null
  entropy: number | null
  zeroVariance: number
  repetition: number | null
  length: number
}

/** What a checkpoint keeps. */
export interface AlarmState {
  recent: Figures[]
  best: { format: number; exactMatch: number }
  /** Mean length over the first window. */
  firstLength: number | null
  ringing: AlarmName[]
}

/** A figure whose best mean over a window is below this has nothing to fall from. */
const LEAST_BEST = 0.05

/**
 * Looks at means over the last `alarmWindow` steps, once there are as many. An alarm is told when it begins to ring, and
 * again only after it has been quiet.
 */
export class Alarms {
  readonly #settings: AlarmSettings
  #state: AlarmState

  constructor(settings: AlarmSettings, state?: AlarmState) {
    this.#settings = settings
    this.#state = structuredClone(state) ?? {
      recent: [],
      best: { format: 0, exactMatch: 0 },
      firstLength: null,
      ringing: [],
    }
  }

  get state(): AlarmState {
    return structuredClone(this.#state)
  }

  /** Takes a step's record in; gives what rings, and messages for what has begun to. */
  check(record: StepRecord): { ringing: AlarmName[]; begun: string[] } {
    const { recent } = this.#state
    recent.push(figuresOf(record))
    recent.splice(0, recent.length - this.#settings.alarmWindow)
    if (recent.length < this.#settings.alarmWindow) return { ringing: [], begun: [] }
    const found = this.#findings(averages(recent))
    const before = this.#state.ringing
    this.#state.ringing = [...found.keys()]
    const begun = [...found].filter(([name]) => !before.includes(name))
    return {
      ringing: this.#state.ringing,
      begun: begun.map(
        ([, message]) => `step ${record.step}: over the last ${recent.length} steps ${message}`,
      ),
    }
  }

  #findings(now: Figures): Map<AlarmName, string> {
    const found = new Map<AlarmName, string>()
    const { best } = this.#state
    const s = this.#settings
    this.#state.firstLength ??= now.length
    for (const name of ['format', 'exactMatch'] as const) {
      const value = now[name]
      if (value === null) continue
      best[name] = Math.max(best[name], value)
      if (s.alarmFall === null || best[name] < LEAST_BEST || value >= (1 - s.alarmFall) * best[name]) continue
      found.set(name, `${titles[name]} was ${figure(value)}, down from ${figure(best[name])} at best`)
    }
    const over = (name: AlarmName, what: string, value: number | null, bound: number | null) => {
      if (value === null || bound === null || value <= bound) return
      found.set(name, `${what} ${figure(value)}, over the bound of ${figure(bound)}`)
    }
    if (s.alarmEntropyMin !== null && now.entropy !== null && now.entropy < s.alarmEntropyMin) {
      found.set(
        'entropyLow',
        `the entropy was ${figure(now.entropy)}, under the bound of ${figure(s.alarmEntropyMin)}`,
      )
    }
    over('entropyHigh', 'the entropy was', now.entropy, s.alarmEntropyMax)
    over('zeroVariance', 'the share of groups with equal rewards was', now.zeroVariance, s.alarmZeroVariance)
    over('repetition', 'the share of one answer to all questions was', now.repetition, s.alarmRepetition)
    const growth = this.#state.firstLength === 0 ? null : now.length / this.#state.firstLength
    over('length', 'completions had, times their length at the start,', growth, s.alarmLengthGrowth)
    return found
  }
}

const titles = { format: 'the format score', exactMatch: 'exact match' }
const figure = (value: number) => String(Number(value.toPrecision(3)))

function figuresOf({ format, exactMatch, entropy, ...record }: StepRecord): Figures {
  return {
    format: format.mean,
    exactMatch: exactMatch.mean,
    // Where nothing was learnt, as while a critic warms up, nothing was measured.
    entropy: record.ratio.max === 0 ? null : entropy,
    zeroVariance: record.zeroVarianceGroups / Math.max(record.sampling.groups, 1),
    repetition: record.answers.repetition,
    length: record.length.mean,
  }
}

function averages(recent: readonly Figures[]): Figures {
  const known = (name: keyof Figures) => recent.flatMap((figures) => figures[name] ?? [])
  const average = (name: keyof Figures) => (known(name).length === 0 ? null : mean(known(name)))
  return {
    format: mean(known('format')),
    exactMatch: average('exactMatch'),
    entropy: average('entropy'),
    zeroVariance: mean(known('zeroVariance')),
    repetition: average('repetition'),
    length: mean(known('length')),
  }
}

/**
 * Share of trajectories with an answer, and of those the share that gives the answer most often given over all questions;
 * null where fewer than two questions are answered.
 */
export function describeAnswers(trajectories: readonly Trajectory[]): {
  given: number
  repetition: number | null
} {
  const counts = new Map<string, number>()
  const questions = new Set<number>()
  let given = 0
  for (const { prediction, group } of trajectories) {
    const answer = normalizeAnswer(prediction ?? '')
    if (answer === '') continue
    given += 1
    questions.add(group)
    counts.set(answer, (counts.get(answer) ?? 0) + 1)
  }
  return {
    given: trajectories.length === 0 ? 0 : given / trajectories.length,
    repetition: questions.size < 2 ? null : Math.max(...counts.values()) / given,
  }
}
