import { SsrlError } from '../errors.ts'
import { TokenSource, type Trajectory } from '../rollout/trajectory.ts'
import type { RewardFunction } from './reward.ts'

/**
 * DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13) for n tokens written by the policy, with L `maxLength` and
 * L_c `buffer`: 0 up to L - L_c, (L - L_c - n) / L_c up to L, -1 beyond. Add it to another reward.
 *
 * @throws SsrlError `ERR_INVALID_CONFIG` unless 0 < buffer ≤ maxLength
 */
export function overlongPenalty({
  maxLength,
  buffer,
}: {
  maxLength: number
  buffer: number
}): RewardFunction {
  if (!(buffer > 0 && buffer <= maxLength)) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected a buffer above 0 and of at most maxLength (${maxLength}) but received ${buffer}`,
    )
  }
  const overlong: RewardFunction = (trajectories) =>
    trajectories.map((trajectory) => {
      const excess = writtenTokens(trajectory) - (maxLength - buffer)
      return excess <= 0 ? 0 : -Math.min(excess / buffer, 1)
    })
  return overlong
}

function writtenTokens({ source, promptLength }: Trajectory): number {
  return source.subarray(promptLength).filter((writer) => writer === TokenSource.policy).length
}
