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
  const shared = sequences.map((sequence, i) => (i === 0 ? 0 : sharedRows(sequences[i - 1]!, sequence)))
  const batches: { start: number; end: number }[] = []
  for (let start = 0; start < sequences.length; ) {
    const end = endOfRun(sequences, { start, shared, budget })
    batches.push({ start, end })
    start = end
  }
  return batches
}

/**
 * What the two sequences at a cut share is computed twice. So a run that is at least half full ends where the least is
 * shared, as late as possible: between two groups rather than inside of one.
 */
function endOfRun(
  sequences: readonly Cuttable[],
  { start, shared, budget }: { start: number; shared: readonly number[]; budget: number },
): number {
  let tokens = sequences[start]!.tokens.length
  let cheapest: number | null = null
  for (let end = start + 1; end < sequences.length; end++) {
    if (2 * tokens >= budget && (cheapest === null || shared[end]! <= shared[cheapest]!)) cheapest = end
    tokens += sequences[end]!.tokens.length - shared[end]!
    if (tokens > budget) return cheapest ?? end
  }
  return sequences.length
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
