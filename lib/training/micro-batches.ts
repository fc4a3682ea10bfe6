/** What cutting a step into micro-batches looks at: T tokens, and T - 1 values of which that of token t + 1 is at t. */
export interface Cuttable {
  tokens: Int32Array
  lossMask: Uint8Array
}

/**
 * Cuts a list of sequences into runs whose rows add up to at most `budget` tokens, in order. Neighbours that begin
 * alike share the rows of their beginning in the learner, so that the prompt of a group counts once in each run. A
 * sequence above the budget stands alone: the budget bounds memory as far as whole sequences can.
 *
 * @returns index ranges [start, end)
 */
export function microBatches(
  sequences: readonly Cuttable[],
  budget: number,
): { start: number; end: number }[] {
  const batches: { start: number; end: number }[] = []
  let start = 0
  let tokens = 0
  for (const [index, sequence] of sequences.entries()) {
    const { length } = sequence.tokens
    const more = index > start ? length - sharedRows(sequences[index - 1]!, sequence) : length
    if (index > start && tokens + more > budget) {
      batches.push({ start, end: index })
      start = index
      tokens = length
    } else {
      tokens += more
    }
  }
  if (sequences.length > start) batches.push({ start, end: sequences.length })
  return batches
}

/** Rows before the first that is learnt from, with the same tokens up to the one that each predicts. */
function sharedRows(a: Cuttable, b: Cuttable): number {
  const most = Math.min(inactiveRows(a), inactiveRows(b))
  let shared = 0
  while (shared < most && a.tokens[shared] === b.tokens[shared]) shared += 1
  return a.tokens[shared] === b.tokens[shared] ? shared : Math.max(0, shared - 1)
}

function inactiveRows({ lossMask }: Cuttable): number {
  const first = lossMask.findIndex((value) => value !== 0)
  return first < 0 ? 0 : first
}
