/** llama.cpp itself: its own `llama-batched-bench`, built for this machine. It takes counts and makes up the tokens. */
import type { Sizes } from '../cases.ts'
import type { Job, Result } from '../job.ts'
import { runWatched } from '../quickstart.ts'
import { llamaBenchPath, llamaVersion } from './places.ts'

/** Prompt tokens, new tokens, sequences; and whether all share one prompt. */
interface Run {
  prompt: number
  generated: number
  sequences: number
  shared: boolean
  /** which of its two times counts */
  counts: ('prompt' | 'generation')[]
}

/** What stands for a variant; empty where the program has nothing like it. */
export function llamaBench(sizes: Sizes): Run[] {
  const both = ['prompt', 'generation'] as const
  if (sizes.kind === 'prefill') {
    return [{ prompt: sizes.promptTokens, generated: 1, sequences: 1, shared: false, counts: ['prompt'] }]
  }
  if (sizes.kind !== 'generate' || sizes.newTokens.length > 1) return []
  const { prompts, promptTokens: prompt, n } = sizes
  const generated = sizes.newTokens[0]!
  if (n === 1) return [{ prompt, generated, sequences: prompts, shared: false, counts: [...both] }]
  // Groups it does not know: the prompts of the groups alone, and then all rows behind one prompt.
  return [
    { prompt, generated: 1, sequences: prompts, shared: false, counts: ['prompt'] },
    { prompt, generated, sequences: prompts * n, shared: true, counts: ['generation'] },
  ]
}

export async function batchedBench(job: Job, runs: readonly Run[]): Promise<Result> {
  if (runs.length === 0) throw new Error('llama-batched-bench has no such case')
  const values: number[] = []
  let peak = 0
  for (let i = 0; i < job.warmUps + job.repeats; i++) {
    let seconds = 0
    for (const run of runs) {
      const measured = await once(job, run)
      peak = Math.max(peak, measured.peak)
      if (run.counts.includes('prompt')) seconds += measured.prompt
      if (run.counts.includes('generation')) seconds += measured.generation
    }
    if (i >= job.warmUps) values.push(seconds)
  }
  const note =
    runs.length > 1 ? 'groups put together from two runs: prompts alone, rows behind one prompt' : ''
  return { values, peak, version: await llamaVersion(), note }
}

async function once(job: Job, { prompt, generated, sequences, shared }: Run) {
  const context = shared ? prompt + sequences * generated : sequences * (prompt + generated)
  const args = [
    ...['-m', job.model, '-t', String(job.threads), '-tb', String(job.threads), '-ngl', '0'],
    ...['-c', String(context + 64), '-b', '2048', '-ub', '512'],
    ...['-npp', String(prompt), '-ntg', String(generated), '-npl', String(sequences)],
    // A cache of one piece, or a shared prompt is counted once for every sequence and the run left out.
    ...(shared ? ['-pps', '-kvu'] : []),
    ...['--output-format', 'jsonl'],
  ]
  const { stdout, peak } = await runWatched(llamaBenchPath, args)
  const line = stdout.split('\n').find((text) => text.startsWith('{'))
  if (line === undefined) throw new Error(`Expected a line of JSON from llama-batched-bench:\n${stdout}`)
  const { t_pp, t_tg } = JSON.parse(line) as { t_pp: number; t_tg: number }
  return { prompt: t_pp, generation: t_tg, peak }
}
