export interface Summary {
  median: number
  p20: number
  p80: number
  samples: number
}

/** The q-quantile, 0 to 1, between neighbours by straight line. NaN for no values. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  if (sorted.length === 0) return Number.NaN
  const place = (sorted.length - 1) * q
  const below = sorted[Math.floor(place)]!
  const above = sorted[Math.ceil(place)]!
  return below + (above - below) * (place - Math.floor(place))
}

export function summarize(values: readonly number[]): Summary {
  return {
    median: quantile(values, 0.5),
    p20: quantile(values, 0.2),
    p80: quantile(values, 0.8),
    samples: values.length,
  }
}
