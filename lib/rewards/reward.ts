/** What a reward is, and how one is called: within a time limit, its answer checked. */
import { SsrlError } from '../errors.ts'
import type { Trajectory } from '../rollout/trajectory.ts'

export interface RewardContext {
  /** Fires when the run is aborted or the reward's time is up: long work should stop. */
  signal: AbortSignal
  /** Training step, where there is one. */
  step?: number
}

/**
 * Scores a batch: one value per trajectory, in order. null means "no score": the trajectory leaves its group's
 * statistics and the loss. Synchronous or asynchronous.
 */
export type RewardFunction = (
  trajectories: readonly Trajectory[],
  context: RewardContext,
) => readonly (number | null)[] | Promise<readonly (number | null)[]>

export interface RunRewardOptions {
  /** Milliseconds after which an asynchronous reward is given up; default 60,000. */
  timeout?: number
  /** Name for messages. */
  name?: string
  signal?: AbortSignal
  step?: number
}

export const DEFAULT_REWARD_TIMEOUT = 60_000

/**
 * Calls a reward function and checks what it returns. Throws `ERR_REWARD` when it throws, or returns something else
 * than one finite number or null per trajectory; `ERR_TIMEOUT` when its promise does not settle in time (a synchronous
 * function cannot be interrupted: it shares the thread); the reason of `signal` when that fires.
 */
export async function runReward(
  reward: RewardFunction,
  trajectories: readonly Trajectory[],
  options: RunRewardOptions = {},
): Promise<(number | null)[]> {
  const { timeout = DEFAULT_REWARD_TIMEOUT, signal, step } = options
  const name = options.name ?? (reward.name || 'reward function')
  if (typeof reward !== 'function') {
    throw new SsrlError('ERR_INVALID_ARG', `Expected a function for the reward but received ${typeof reward}`)
  }
  if (!(timeout > 0)) {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      `Expected a time-out in milliseconds above 0 but received ${timeout}`,
    )
  }
  signal?.throwIfAborted()
  const controller = new AbortController()
  const call = callReward(reward, trajectories, { signal: controller.signal, step }, name)
  const values = await withLimit(call, controller, { timeout, signal, name })
  return checkValues(values, trajectories.length, name)
}

async function callReward(
  reward: RewardFunction,
  trajectories: readonly Trajectory[],
  context: RewardContext,
  name: string,
): Promise<unknown> {
  try {
    return await reward(trajectories, context)
  } catch (cause) {
    if (cause instanceof SsrlError && (cause.code === 'ERR_REWARD' || cause.code === 'ERR_TIMEOUT'))
      throw cause
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new SsrlError('ERR_REWARD', `The reward "${name}" threw: ${message}`, { cause })
  }
}

interface Limit {
  timeout: number
  signal: AbortSignal | undefined
  name: string
}

async function withLimit<T>(call: Promise<T>, controller: AbortController, limit: Limit): Promise<T> {
  const { timeout, signal, name } = limit
  let timer: NodeJS.Timeout | undefined
  let onAbort: (() => void) | undefined
  const stopped = new Promise<never>((_, reject) => {
    const stop = (reason: unknown) => {
      reject(reason)
      controller.abort(reason)
    }
    if (timeout <= MAX_TIMER) {
      timer = setTimeout(
        () => stop(new SsrlError('ERR_TIMEOUT', `The reward "${name}" gave no answer within ${timeout} ms`)),
        timeout,
      )
    }
    onAbort = () => stop(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([call, stopped])
  } finally {
    clearTimeout(timer)
    if (onAbort) signal?.removeEventListener('abort', onAbort)
  }
}

// A longer delay would make setTimeout fire at once; no limit is closer to what was asked for.
const MAX_TIMER = 2 ** 31 - 1

function checkValues(values: unknown, count: number, name: string): (number | null)[] {
  if (!Array.isArray(values) && !(ArrayBuffer.isView(values) && !(values instanceof DataView))) {
    throw new SsrlError(
      'ERR_REWARD',
      `Expected the reward "${name}" to return an array but received ${values === null ? 'null' : typeof values}`,
    )
  }
  const list = Array.from(values as ArrayLike<unknown>)
  if (list.length !== count) {
    throw new SsrlError(
      'ERR_REWARD',
      `Expected the reward "${name}" to return ${count} values, one per trajectory, but received ${list.length}`,
    )
  }
  return list.map((value, index) => {
    if (value === null || (typeof value === 'number' && Number.isFinite(value))) return value
    throw new SsrlError(
      'ERR_REWARD',
      `Expected a finite number or null from the reward "${name}" for trajectory ${index} but received ${describe(value)}`,
    )
  })
}

function describe(value: unknown): string {
  return typeof value === 'number'
    ? String(value)
    : `${JSON.stringify(value) ?? String(value)} of type ${typeof value}`
}
