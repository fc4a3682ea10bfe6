/** Several rewards as one. */
import { SsrlError } from '../errors.ts'
import type { FormatMode } from '../rollout/format.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import { type RewardContext, type RewardFunction, runReward } from './reward.ts'
import { exactMatch, formatReward } from './rules.ts'

export interface RewardPart {
  /** Appears in logs and messages; by default the function's name. */
  name?: string
  reward: RewardFunction
  /** Finite; default 1. */
  weight?: number
  /** Milliseconds for this part alone; default 60,000. */
  timeout?: number
}

export interface RewardBreakdown {
  /** `[trajectories]`: the weighted sums. */
  total: (number | null)[]
  /** The unweighted values of each part, by name. */
  parts: Record<string, (number | null)[]>
}

/** A reward function that can also tell its parts. */
export interface ComposedReward extends RewardFunction {
  readonly parts: readonly Required<RewardPart>[]
  breakdown(trajectories: readonly Trajectory[], context: RewardContext): Promise<RewardBreakdown>
}

/**
 * The weighted sum of several rewards, which run side by side. A part that gives null for a trajectory is left out of
 * its sum; if all do, the sum is null. Throws `ERR_INVALID_CONFIG` without parts, for a weight that is not finite and
 * for two parts of one name.
 */
export function compose(parts: readonly RewardPart[]): ComposedReward {
  const complete = checkParts(parts)
  const breakdown = async (
    trajectories: readonly Trajectory[],
    context: RewardContext,
  ): Promise<RewardBreakdown> => {
    const values = await Promise.all(
      complete.map(({ reward, name, timeout }) =>
        runReward(reward, trajectories, { name, timeout, signal: context.signal, step: context.step }),
      ),
    )
    return {
      total: trajectories.map((_, index) => weightedSum(complete, values, index)),
      parts: Object.fromEntries(complete.map(({ name }, part) => [name, values[part]!])),
    }
  }
  const composed: RewardFunction = async (trajectories, context) =>
    (await breakdown(trajectories, context)).total
  return Object.assign(composed, { parts: complete, breakdown })
}

export interface DefaultRewardOptions {
  /** λ_f, the share of the format score in [0, 1]; default 0.1. */
  formatWeight?: number
  format?: FormatMode
}

/** SSRL's reward: (1 − λ_f) · exact match + λ_f · format, 0.9 and 0.1 by default. */
export function defaultReward(options: DefaultRewardOptions = {}): ComposedReward {
  const { formatWeight = 0.1, format = 'strict' } = options
  if (!(formatWeight >= 0 && formatWeight <= 1)) {
    throw new SsrlError('ERR_INVALID_CONFIG', `Expected formatWeight in [0, 1] but received ${formatWeight}`)
  }
  return compose([
    { name: 'exactMatch', reward: exactMatch, weight: 1 - formatWeight },
    { name: 'format', reward: formatReward(format), weight: formatWeight },
  ])
}

function checkParts(parts: readonly RewardPart[]): Required<RewardPart>[] {
  if (!Array.isArray(parts) || parts.length === 0) {
    throw new SsrlError('ERR_INVALID_CONFIG', 'Expected a list of at least one reward to compose')
  }
  const complete = parts.map((part, index) => {
    if (typeof part?.reward !== 'function') {
      throw new SsrlError(
        'ERR_INVALID_CONFIG',
        `Expected a function for reward of part ${index} but received ${typeof part?.reward}`,
      )
    }
    const { weight = 1, timeout = 60_000, reward } = part
    const name = part.name ?? (reward.name || `reward${index}`)
    if (typeof weight !== 'number' || !Number.isFinite(weight)) {
      throw new SsrlError(
        'ERR_INVALID_CONFIG',
        `Expected a finite weight for the reward "${name}" but received ${weight}`,
      )
    }
    return { name, reward, weight, timeout }
  })
  const names = complete.map(({ name }) => name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected each reward to have a name of its own but "${twice}" occurs twice`,
    )
  }
  return complete
}

function weightedSum(
  parts: readonly Required<RewardPart>[],
  values: readonly (number | null)[][],
  index: number,
): number | null {
  let sum: number | null = null
  for (const [part, { weight }] of parts.entries()) {
    const value = values[part]![index]!
    if (value !== null) sum = (sum ?? 0) + weight * value
  }
  return sum
}
