import type { Config } from './config.ts'

export type ScheduleSettings = Pick<
  Config,
  'learningRate' | 'maxSteps' | 'schedule' | 'scheduleFloor' | 'scheduleHold' | 'warmupSteps' | 'warmupRatio'
>

/** Steps of warm-up, from either setting. */
export function warmupLength({ warmupSteps, warmupRatio, maxSteps }: ScheduleSettings): number {
  return warmupSteps > 0 ? warmupSteps : Math.ceil(warmupRatio * maxSteps)
}

/**
 * Learning rate of a step, the first being 1. Warm-up rises linearly and reaches the full rate at its last step, so
 * that no step is wasted on a rate of 0; `linear` and `cosine` fall from the hold (or the end of warm-up) to
 * `scheduleFloor`, which the last step has.
 */
export function learningRateAt(step: number, settings: ScheduleSettings): number {
  const { learningRate, maxSteps, schedule, scheduleFloor, scheduleHold } = settings
  const warmup = warmupLength(settings)
  if (step <= warmup) return learningRate * (step / warmup)
  if (schedule === 'constant') return learningRate
  const start = Math.max(warmup, Math.floor(scheduleHold * maxSteps))
  if (step <= start || maxSteps <= start) return learningRate
  const progress = Math.min((step - start) / (maxSteps - start), 1)
  const fall = schedule === 'linear' ? 1 - progress : (1 + Math.cos(Math.PI * progress)) / 2
  return learningRate * (scheduleFloor + (1 - scheduleFloor) * fall)
}
