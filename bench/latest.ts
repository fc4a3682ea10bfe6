import type { Row } from './results.ts'

/** One variant on one CPU: the rows of the newest run that measured it. */
export interface Measured {
  cpu: string
  variant: string
  model: string
  rows: Row[]
}

/** CPUs, the one measured last first. */
export function cpusOf(rows: readonly Row[]): string[] {
  const last = new Map<string, string>()
  for (const { cpu, run } of rows) if (run > (last.get(cpu) ?? '')) last.set(cpu, run)
  return [...last].sort((a, b) => (a[1] < b[1] ? 1 : -1)).map(([cpu]) => cpu)
}

/**
 * The newest rows of each variant on a CPU, in the order of `ids`. Where both were measured, a real model stands before
 * random weights; a contender that a later run left out keeps its figure out too, since ratios hold within one run.
 */
export function latestOf(rows: readonly Row[], cpu: string, ids: readonly string[]): Measured[] {
  return ids.flatMap((variant) => {
    const all = rows.filter((row) => row.cpu === cpu && row.variant === variant)
    const real = all.filter(({ model }) => !model.startsWith('random'))
    const candidates = real.length > 0 ? real : all
    const run = candidates.reduce((newest, row) => (row.run > newest ? row.run : newest), '')
    const found = candidates.filter((row) => row.run === run)
    return found.length === 0 ? [] : [{ cpu, variant, model: found[0]!.model, rows: found }]
  })
}
