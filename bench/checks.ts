/** Whether contenders did the same work: a figure counts only where this holds. */
import type { Contender } from './contenders.ts'
import type { Result } from './job.ts'

export interface Check {
  text: string
  holds: boolean
}

/** Greedy tokens may differ where two are nearly as likely: in nats, under the f32 weights. */
const regretBound = { f32: 1e-2, bf16: 0.5, autocast: 0.5, q4_1: 1 }
/** Relative differences from our f32. */
const lossBound = { f32: 1e-3, bf16: 0.05, autocast: 0.05, q4_1: 0.05 }

export function checkRegret(regret: number | undefined, { dtype }: Contender): Check {
  if (regret === undefined || Number.isNaN(regret)) return { text: 'shows no tokens', holds: true }
  const text = `greedy tokens at most ${regret.toPrecision(2)} nats below the likeliest`
  return { text, holds: regret <= regretBound[dtype] }
}

export function checkGradient(result: Result, reference: Result, { dtype }: Contender): Check {
  const { gradNorm, loss } = result
  if (gradNorm === undefined || loss === undefined) return { text: 'shows no gradient', holds: false }
  const off = Math.abs(gradNorm / reference.gradNorm! - 1)
  const lossOff = Math.abs(loss - reference.loss!)
  const text = `gradient norm ${gradNorm.toPrecision(5)} (off by ${(100 * off).toPrecision(2)} %), loss off by ${lossOff.toPrecision(2)}`
  return { text, holds: off <= lossBound[dtype] && lossOff <= lossBound[dtype] }
}
