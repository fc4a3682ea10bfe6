import type { Policy } from '../../lib/policy/policy.ts'
import type { GenerateWork, PrefillWork, RegretWork, Result } from '../job.ts'
import { type Repeats, timed } from './timed.ts'

type Partial = Omit<Result, 'peak' | 'version'>

export async function generate(policy: Policy, work: GenerateWork, repeats: Repeats): Promise<Partial> {
  const requests = work.prompts.map((tokens, i) => ({
    tokens: Int32Array.from(tokens),
    n: work.n,
    maxNewTokens: work.newTokens[i]!,
  }))
  const greedy = await greedyTokens(policy, work)
  const run = () => policy.generate(requests, { temperature: 1, ignoreEnd: true, seed: 1 })
  return { values: await timed(run, repeats), greedy }
}

/** Up to four prompts: enough to see that the same model is at work. */
async function greedyTokens(policy: Policy, { prompts, greedyTokens }: GenerateWork): Promise<number[][]> {
  if (greedyTokens === 0) return []
  const requests = prompts.slice(0, 4).map((tokens) => ({ tokens: Int32Array.from(tokens) }))
  const completions = await policy.generate(requests, {
    temperature: 0,
    maxNewTokens: greedyTokens,
    ignoreEnd: true,
  })
  return completions.map(({ tokens }) => [...tokens])
}

/** The time to the first token. */
export async function prefill(policy: Policy, work: PrefillWork, repeats: Repeats): Promise<Partial> {
  const requests = work.prompts.map((tokens) => ({ tokens: Int32Array.from(tokens) }))
  const run = () => policy.generate(requests, { temperature: 1, maxNewTokens: 1, ignoreEnd: true, seed: 1 })
  return { values: await timed(run, repeats) }
}

/** For each contender, how far its greedy tokens stay below the likeliest ones: the largest difference, in nats. */
export async function regret(policy: Policy, { prompts, greedy }: RegretWork): Promise<Partial> {
  const largest: number[] = []
  for (const rows of greedy) {
    let worst = rows.length === 0 ? Number.NaN : 0
    for (const [i, row] of rows.entries()) worst = Math.max(worst, await shortfall(policy, prompts[i]!, row))
    largest.push(worst)
  }
  return { values: [], regret: largest }
}

async function shortfall(policy: Policy, prompt: readonly number[], row: readonly number[]): Promise<number> {
  const { vocabSize } = policy.config
  const logits = await policy.logits(Int32Array.from([...prompt, ...row]))
  let worst = 0
  for (const [i, token] of row.entries()) {
    const start = (prompt.length - 1 + i) * vocabSize
    const values = logits.subarray(start, start + vocabSize)
    worst = Math.max(worst, values.reduce((a, b) => Math.max(a, b)) - values[token]!)
  }
  return worst
}
