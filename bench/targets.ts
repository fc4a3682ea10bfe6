/** What this library wants to reach beside others, on one machine in one run. */
import type { Measured } from './latest.ts'
import type { Row } from './results.ts'

type Dtype = 'bf16' | 'f32'

interface Target {
  what: string
  variant: string
  own: `ssrl ${Dtype}` | 'ssrl'
  /** `speed` and `memory` are ratios to a peer; `share` is of the matmul limit; `figure` is the row's own. */
  kind: 'speed' | 'memory' | 'share' | 'figure'
  peer?: string
  bound: number
  /** where an Intel CPU with AMX has another one */
  amx?: number
}

const speed = (what: string, variant: string, peer: string, bound: number, own: Dtype = 'bf16'): Target => ({
  what,
  variant,
  own: `ssrl ${own}`,
  kind: 'speed',
  peer,
  bound,
})
const memory = (what: string, variant: string, peer: string, bound: number): Target => ({
  ...speed(what, variant, peer, bound),
  kind: 'memory',
})
const share = (what: string, variant: string, bound: number, amx: number): Target => ({
  ...{ what, variant, own: 'ssrl bf16', kind: 'share', bound, amx },
})
const figure = (what: string, variant: string, bound: number): Target => ({
  ...{ what, variant, own: 'ssrl bf16', kind: 'figure', bound },
})

const batch = 'generate 32 × (64 + 64)'
const step = 'learner, 4 × 256'
const large = 'learner, vocabulary of 151,936'
const grpo = 'GRPO step'

export const targets: Target[] = [
  speed(batch, 'generate/32', 'llama.cpp bf16', 8),
  speed(batch, 'generate/32', 'node-llama-cpp bf16', 12),
  speed(batch, 'generate/32', 'transformers bf16', 8),
  speed(batch, 'generate/32', 'node-llama-cpp q4_1', 8),
  speed('generate 8 × 8, shared prompt', 'generate/groups', 'transformers bf16', 12),
  speed('one sequence', 'generate-one', 'llama.cpp bf16', 3),
  speed('one sequence', 'generate-one', 'node-llama-cpp bf16', 5),
  speed(step, 'learner/4x256', 'PyTorch bf16', 3),
  speed(step, 'learner/4x256', 'PyTorch f32', 5),
  { ...speed(`${step}, f32`, 'learner/4x256', 'PyTorch f32', 3, 'f32'), amx: 1.5 },
  memory(step, 'learner/4x256', 'PyTorch bf16 autocast', 0.8),
  speed(large, 'learner/qwen-4x256', 'PyTorch bf16', 3),
  memory(large, 'learner/qwen-4x256', 'PyTorch bf16 autocast', 1 / 3),
  speed(grpo, 'grpo-step', 'TRL bf16', 7),
  speed(`${grpo}, f32`, 'grpo-step', 'TRL f32', 3, 'f32'),
  memory(grpo, 'grpo-step', 'TRL bf16', 1 / 4),
  share(batch, 'generate/32', 45, 30),
  share(step, 'learner/4x256', 65, 50),
  figure('load the GGUF', 'load', 1),
  figure("main thread's share of a training step", 'loop-lag/typescript', 2),
  figure('a 10 ms timer while training, latest', 'loop-lag', 50),
  figure('memory over 200 steps, growth', 'memory/200-steps', 1),
  { ...figure('a query to a million passages', 'search-index/query', 50), own: 'ssrl' },
  figure('quickstart', 'quickstart', 120),
]

export interface Outcome {
  what: string
  target: string
  /** empty where nothing was measured */
  measured: string
  met: boolean | null
}

/** @param measured of one CPU */
export function outcomeOf(target: Target, measured: readonly Measured[]): Outcome {
  const found = measured.find(({ variant }) => variant === target.variant)
  const isIntel = found !== undefined && /Intel/.test(found.cpu)
  const bound = isIntel ? (target.amx ?? target.bound) : target.bound
  const own = found?.rows.find(({ contender }) => contender === target.own)
  const peer = found?.rows.find(({ contender }) => contender === target.peer)
  const value = own ? measureOf(target, own, peer) : Number.NaN
  const atLeast = target.kind === 'speed' || target.kind === 'share'
  const unit = own?.unit ?? unitOf(target.variant)
  return {
    what: target.what,
    target: `${atLeast ? '≥' : '≤'} ${describe(target, bound, unit)}`,
    measured: Number.isNaN(value) ? '' : describe(target, value, unit, own, peer),
    met: Number.isNaN(value) ? null : atLeast ? value >= bound : value <= bound,
  }
}

function measureOf({ kind, peer: name }: Target, own: Row, peer: Row | undefined): number {
  if (kind === 'share') return own.limitShare
  if (kind === 'figure') return own.median
  if (name !== undefined && peer === undefined) return Number.NaN
  if (kind === 'memory') return own.peakMiB / peer!.peakMiB
  return own.unit === 'tok/s' ? own.median / peer!.median : peer!.median / own.median
}

const unitOf = (variant: string) =>
  ({ load: 's', quickstart: 's', 'loop-lag': 'ms', 'search-index/query': 'ms' })[variant] ??
  (variant.includes('/') ? '%' : '')

/** Three digits: a share of 0.333 is a third. */
const short = (value: number) => String(Number(value.toPrecision(3)))

function describe({ kind, peer }: Target, value: number, unit: string, own?: Row, theirs?: Row): string {
  if (kind === 'share') return `${short(value)} % of the matmul limit`
  if (kind === 'figure') return `${short(value)} ${unit}`
  if (kind === 'memory') {
    const pair = own && theirs ? ` (${Math.round(own.peakMiB)} of ${Math.round(theirs.peakMiB)} MiB)` : ''
    return `${short(value)} of ${own ? 'its' : `${peer}'s`} memory${pair}`
  }
  const pair = own && theirs ? ` (${short(own.median)} to ${short(theirs.median)} ${unit})` : ` ${peer}`
  return `${short(value)}×${pair}`
}
