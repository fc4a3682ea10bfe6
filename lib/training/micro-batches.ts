/**
 * Cuts a list of sequences into runs whose tokens add up to at most `budget`, in order. A sequence above the budget
 * stands alone: the budget bounds memory as far as whole sequences can.
 *
 * @param lengths tokens of each sequence
 * @returns index ranges [start, end)
 */
export function microBatches(lengths: readonly number[], budget: number): { start: number; end: number }[] {
  const batches: { start: number; end: number }[] = []
  let start = 0
  let tokens = 0
  for (const [index, length] of lengths.entries()) {
    if (index > start && tokens + length > budget) {
      batches.push({ start, end: index })
      start = index
      tokens = 0
    }
    tokens += length
  }
  if (lengths.length > start) batches.push({ start, end: lengths.length })
  return batches
}
