import { mean } from '../../mean.ts'
import type { Advantage } from './estimator.ts'

/** With n - 1 below, as in PyTorch; 0 for fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0
  const center = mean(values)
  return Math.sqrt(values.reduce((sum, value) => sum + (value - center) ** 2, 0) / (values.length - 1))
}

/**
 * (x - mean) / (std + ε) over all tokens of the step that are learnt from: a trajectory counts with each of its tokens, as
 * in OpenRLHF and verl. Where all are equal, 0.
 *
 * @param masks `[T - 1]` each; not 0 where a token counts
 */
export function whitened(
  values: readonly Advantage[],
  masks: readonly Uint8Array[],
  epsilon: number,
): Advantage[] {
  const counted: number[] = []
  for (const [index, value] of values.entries()) {
    if (value === null) continue
    for (const [t, isCounted] of masks[index]!.entries()) {
      if (isCounted) counted.push(typeof value === 'number' ? value : value[t]!)
    }
  }
  const center = mean(counted)
  const scale = standardDeviation(counted) + epsilon
  const constant = counted.every((value) => value === counted[0])
  const whiten = (value: number) => (constant ? 0 : (value - center) / scale)
  return values.map((value, index) => {
    if (value === null) return null
    if (typeof value === 'number') return whiten(value)
    return value.map((one, t) => (masks[index]![t] === 0 ? 0 : whiten(one)))
  })
}
