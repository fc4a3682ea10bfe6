/** Who answers which search of a trajectory: the provider (`real`), or the policy itself. */
import { SsrlError } from '../errors.ts'
import { Random } from '../random.ts'
import { derivedSeed } from '../random-seed.ts'

/** One search, as a schedule sees it. */
export interface ScheduledSearch {
  /** 0 for the first search of a trajectory. */
  turn: number
  /** The run's step, from 1, and its number of steps; 0 of 0 outside of training. */
  step: number
  steps: number
  /** Mean entropy of the distributions that the query's tokens were drawn from, in nats. */
  entropy: number
  /** That of the query before; null for the first. */
  previousEntropy: number | null
  /** Depends on run, step, question, sample and turn. */
  seed: number
}

export type Schedule = (search: ScheduledSearch) => 'real' | 'self'

export type ScheduleName = 'self' | 'real' | 'first' | 'entropy' | 'curriculum' | 'multi-turn'

export const scheduleNames = ['self', 'real', 'first', 'entropy', 'curriculum', 'multi-turn'] as const

export interface ScheduleOptions {
  /** `first`: searches of a trajectory that the provider answers. */
  realSearches?: number
  /** `curriculum`: share of real answers at the first step and at the last; between them it changes evenly. */
  realShareStart?: number
  realShareEnd?: number
}

/**
 * The schedules: `self` (SSRL, arXiv 2508.10874), `real`, `first` K searches real and then self (sim-to-real, ibid.),
 * `entropy`: the first search is real, a later one if its query's entropy is above that of the query before (ibid.),
 * `curriculum`: each search is real with a probability that changes over the run, `multi-turn`: real, as Search-R1 has it
 * (arXiv 2503.09516), where the loop also answers actions that are none.
 *
 * @throws SsrlError `ERR_INVALID_CONFIG`
 */
export function createSchedule(name: ScheduleName, options: ScheduleOptions = {}): Schedule {
  const { realSearches = 1, realShareStart = 0, realShareEnd = 1 } = options
  switch (name) {
    case 'self':
      return () => 'self'
    case 'real':
    case 'multi-turn':
      return () => 'real'
    case 'first':
      return ({ turn }) => (turn < realSearches ? 'real' : 'self')
    case 'entropy':
      return ({ entropy, previousEntropy }) =>
        previousEntropy === null || entropy > previousEntropy ? 'real' : 'self'
    case 'curriculum':
      return ({ step, steps, seed }) => {
        const share = realShareStart + runShare(step, steps) * (realShareEnd - realShareStart)
        return new Random(derivedSeed(seed, curriculumDraw)).chance(share) ? 'real' : 'self'
      }
    default:
      throw new SsrlError(
        'ERR_INVALID_CONFIG',
        `Expected one of ${scheduleNames.join(', ')} for the schedule of searches but received ${JSON.stringify(name)}`,
      )
  }
}

/** Keeps this draw apart from what a provider draws from the same seed. */
const curriculumDraw = 1

/** How far a run is at step `step` of `steps`: 0 at its first step, 1 at its last, and outside of training. */
export function runShare(step: number, steps: number): number {
  return steps <= 1 ? 1 : Math.min(1, Math.max(0, (step - 1) / (steps - 1)))
}
