/** Scores completions that already exist, as FlashRAG scores them. */

import { nameOfDataset } from '../data/questions.ts'
import { describeType, readRows } from '../data/rows.ts'
import { SsrlError } from '../errors.ts'
import { coverExactMatchScore, exactMatchScore, f1Score } from '../rewards/answers.ts'
import { type FormatMode, formatScore } from '../rollout/format.ts'
import { parseCompletion } from '../rollout/grammar.ts'
import { EvaluationWriter } from './output.ts'
import { DEFAULT_RESAMPLES } from './statistics.ts'
import { type ScoredSample, type Scores, type Summary, summarize } from './summary.ts'

export interface ScoreOptions {
  /** JSONL or parquet files, one benchmark each, named by their base names. */
  data: readonly string[]
  /** Folder for `predictions.jsonl` and `summary.json`; without it nothing is written. */
  output?: string
  format?: FormatMode
  /** Seed of the bootstrap intervals; default 0. */
  seed?: number
  resamples?: number
  signal?: AbortSignal
}

export interface CompletionScore extends Scores {
  prediction: string
}

/** The scoring rule in words, for reports. */
export function describeScoring(format: FormatMode): string {
  return (
    'prediction: stripped content of the last <answer>…</answer> of the completion, empty if there is none. ' +
    'Normalisation: lower case, ASCII punctuation removed, the words a, an, the removed, white space collapsed (as Python does). ' +
    'em: equals a golden answer; cover_em: contains a golden answer (FlashRAG: acc); f1: token overlap, best over the golden answers, ' +
    '0 when exactly one side is yes, no or noanswer; all three as FlashRAG computes them, missing answers included. ' +
    `format: the ${format} format score. Intervals: 95 % percentile bootstrap over questions.`
  )
}

/** Scores one completion against its golden answers. */
export function scoreCompletion(
  completion: string,
  goldenAnswers: readonly string[],
  format: FormatMode = 'strict',
): CompletionScore {
  const parsed = parseCompletion(completion)
  const prediction = parsed.answer ?? ''
  return {
    prediction,
    em: exactMatchScore(prediction, goldenAnswers),
    f1: f1Score(prediction, goldenAnswers),
    cover_em: coverExactMatchScore(prediction, goldenAnswers),
    format: formatScore(parsed, format),
  }
}

/**
 * Scores every row of the files: the text in `response` (or `completion`) against `golden_answers` (a list of texts, one
 * text, or with `choices` the indices of the right ones). Rows of one file with the same `id` and question are samples
 * of one question. Throws `ERR_DATASET` with file and line for a row that does not have them, and then writes nothing;
 * `ERR_INVALID_ARG` when two files have the same base name.
 */
export async function scoreFiles(options: ScoreOptions): Promise<Summary> {
  const { data, output, format = 'strict', seed = 0, resamples = DEFAULT_RESAMPLES, signal } = options
  const names = benchmarkNames(data)
  await using writer = output === undefined ? null : await EvaluationWriter.open(output)
  const samples: ScoredSample[] = []
  for (const [index, path] of data.entries()) {
    const benchmark = names[index]!
    const before = samples.length
    for await (const { line, fields } of readRows(path, signal)) {
      const where = `${path}:${line}`
      const goldenAnswers = readGoldenAnswers(fields, where)
      const score = scoreCompletion(readCompletion(fields, where), goldenAnswers, format)
      samples.push({ ...score, benchmark, goldenAnswers, questionKey: questionKey(fields, line) })
      await writer?.prediction({ ...fields, ...(data.length > 1 ? { benchmark } : {}), ...score })
    }
    if (samples.length === before)
      throw new SsrlError('ERR_DATASET', `Expected rows to score in ${path} but it has none`)
  }
  const settings = { data: [...data], format, seed, resamples }
  const summary = summarize(samples, { settings, scoring: describeScoring(format), seed, resamples })
  await writer?.finish(summary)
  return summary
}

function benchmarkNames(data: readonly string[]): string[] {
  if (data.length === 0) throw new SsrlError('ERR_INVALID_ARG', 'Expected at least one file to score')
  const names = data.map(nameOfDataset)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice === undefined) return names
  throw new SsrlError(
    'ERR_INVALID_ARG',
    `Expected files with different base names but two are named ${twice}`,
  )
}

function readCompletion(fields: Record<string, unknown>, where: string): string {
  const name = ['response', 'completion'].find((key) => Object.hasOwn(fields, key))
  const value = name === undefined ? undefined : fields[name]
  if (typeof value === 'string') return value
  throw new SsrlError(
    'ERR_DATASET',
    `${where}: expected the completion as text in response or completion but received ${describeType(value)}`,
  )
}

function readGoldenAnswers(fields: Record<string, unknown>, where: string): string[] {
  const value = fields.golden_answers
  const list = Array.isArray(value) ? value : [value]
  const choices = Array.isArray(fields.choices) ? fields.choices : []
  const answers = list.map((answer) => (Number.isInteger(answer) ? choices[answer as number] : answer))
  if (answers.every((answer) => typeof answer === 'string')) return answers
  throw new SsrlError(
    'ERR_DATASET',
    `${where}: expected golden_answers to be a text or a list of texts but received ${JSON.stringify(value) ?? 'nothing'}`,
  )
}

// Equal ids with different questions are no samples of one question, whatever the file calls them.
function questionKey(fields: Record<string, unknown>, line: number): string {
  const { id, question, golden_answers } = fields
  return id === undefined || id === null ? `line ${line}` : JSON.stringify([id, question, golden_answers])
}
