import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import { inTurns } from '../in-turns.ts'
import type { Policy } from '../policy/policy.ts'
import type { GenerateRequest } from '../policy/requests.ts'
import { derivedSeed } from '../random-seed.ts'
import { encodeQuestion, tokenizerOf } from './encode-question.ts'
import type { FormatMode } from './format.ts'
import { STOP_TAG } from './grammar.ts'
import { type PromptTemplate, promptTemplates } from './prompts.ts'
import type { Search } from './search.ts'
import { runSearchRows } from './search-rollout.ts'
import { createTrajectory, type Trajectory, type TrajectoryInput } from './trajectory.ts'

export interface SelfSearchOptions {
  /** Trajectories per question (a group); default 1. */
  n?: number
  /** Default 1; 0 is greedy. */
  temperature?: number
  topP?: number
  topK?: number
  minP?: number
  /** Largest number of new tokens; default 256. */
  maxNewTokens?: number
  /** Default 0. Each question draws from a seed of its own, made from this one and its index. */
  seed?: number
  /** Default: the built-in self-search instruction. */
  promptTemplate?: PromptTemplate
  /** Stop at `</answer>`; default true. */
  stopAtAnswer?: boolean
  /** The rule behind `format` of each trajectory; default `'strict'`. */
  format?: FormatMode
  /** Added to each trajectory's `group`, which otherwise is the question's index. */
  firstGroup?: number
  /**
   * Who answers searches, from `createSearch`; by default the policy itself, in one pass. The same tokens come of either
   * where no search is answered from outside.
   */
  search?: Search
  /** The run's step, from 1, and its number of steps, for schedules and providers that look at them; default 0 of 0. */
  step?: number
  steps?: number
  signal?: AbortSignal
}

const builtInTemplate: PromptTemplate = { name: 'self-search', text: promptTemplates['self-search'] }

/** A question with the ids of its prompt. */
export interface EncodedQuestion {
  question: Question
  promptTokens: Int32Array
}

/**
 * Drops questions whose prompt has more than `maxPromptLength` tokens. Encoding is what costs time, so only prompts
 * that could be too long are encoded here: a token stands for at least one byte.
 *
 * @throws SsrlError `ERR_INVALID_CONFIG` when none is left
 */
export async function dropLongPrompts(
  policy: Policy,
  questions: readonly Question[],
  options: { promptTemplate?: PromptTemplate; maxPromptLength: number; signal?: AbortSignal },
): Promise<{ kept: Question[]; dropped: number }> {
  const { promptTemplate = builtInTemplate, maxPromptLength, signal } = options
  const lengthOf = (question: string) => encodeQuestion(tokenizerOf(policy), question, promptTemplate).length
  // Merges across the question's borders change its surroundings by a few tokens at most.
  const surroundings = lengthOf('a') + 16
  let shortest = Number.POSITIVE_INFINITY
  const fits = ({ question }: Question) => {
    if (surroundings + Buffer.byteLength(question) <= maxPromptLength) return true
    const length = lengthOf(question)
    shortest = Math.min(shortest, length)
    return length <= maxPromptLength
  }
  const fitting = await inTurns(questions, fits, signal)
  const kept = questions.filter((_, index) => fitting[index])
  if (kept.length === 0) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected prompts of at most ${maxPromptLength} tokens but the shortest has ${shortest}: raise maxPromptLength, ` +
        'lower maxCompletionLength or take a shorter promptTemplate',
    )
  }
  return { kept, dropped: questions.length - kept.length }
}

/**
 * Self-search (method: arXiv 2508.10874 §3): the policy thinks, writes its queries and their results, and answers, in
 * one pass. Yields the group of one question as soon as it is complete, in the order in which groups finish. Token ids,
 * log-probs and entropies are the sampler's own; nothing is encoded again.
 */
export async function* selfSearch(
  policy: Policy,
  questions: readonly (Question | EncodedQuestion)[],
  options: SelfSearchOptions = {},
): AsyncGenerator<Trajectory[]> {
  const encoded = await inTurns(questions, (item) => toEncoded(policy, item, options), options.signal)
  if (encoded.length === 0) return
  const n = options.n ?? 1
  const waiting = new Map<number, Trajectory[]>()
  const finished: Trajectory[][] = []
  let done = false
  let wake = () => {}
  const nextEvent = () =>
    new Promise<void>((resolve) => {
      if (done) resolve()
      else wake = resolve
    })
  const take = (index: number, sampleIndex: number, row: RowOutcome) => {
    const group = waiting.get(index) ?? []
    waiting.set(index, group)
    group[sampleIndex] = toTrajectory({ item: encoded[index]!, index, sampleIndex, row }, options)
    if (group.filter(Boolean).length < n) return
    finished.push(group)
    wake()
  }
  const leave = new AbortController()
  const generating = generateAll(policy, encoded, options, { take, signal: leave.signal }).finally(() => {
    done = true
    wake()
  })
  // Awaited below; until then a failure must not count as unhandled.
  generating.catch(() => {})
  try {
    while (!done || finished.length > 0) {
      const group = finished.shift()
      if (group) yield group
      else await nextEvent()
    }
    await generating
  } finally {
    leave.abort(new DOMException('the caller left', 'AbortError'))
    await generating.catch(() => {})
  }
}

/** All groups, in the order of the questions. */
export async function selfSearchAll(
  policy: Policy,
  questions: readonly (Question | EncodedQuestion)[],
  options: SelfSearchOptions = {},
): Promise<Trajectory[][]> {
  const groups: Trajectory[][] = []
  const first = options.firstGroup ?? 0
  for await (const group of selfSearch(policy, questions, options)) groups[group[0]!.group - first] = group
  return groups
}

/** What a trajectory takes from a completion, whether it was written in one pass or in turns. */
type RowOutcome = Pick<
  TrajectoryInput,
  | 'completionTokens'
  | 'pieces'
  | 'logProbs'
  | 'entropies'
  | 'source'
  | 'finishReason'
  | 'searches'
  | 'invalidActions'
>

interface GenerateCallbacks {
  take: (index: number, sampleIndex: number, row: RowOutcome) => void
  signal: AbortSignal
}

async function generateAll(
  policy: Policy,
  questions: readonly EncodedQuestion[],
  options: SelfSearchOptions,
  { take, signal: left }: GenerateCallbacks,
): Promise<void> {
  const signal = options.signal ? AbortSignal.any([options.signal, left]) : left
  const { search } = options
  if (search) return runSearchRows(policy, questions, { ...options, search }, { take, signal })
  const requests = questions.map(({ promptTokens }, index) => toRequest(promptTokens, index, options))
  await policy.generate(requests, {
    signal,
    onCompletion: (completion) => {
      const { requestIndex, sampleIndex, tokens, logProbs, entropies, finishReason } = completion
      const pieces = decodePieces(policy, tokens)
      take(requestIndex, sampleIndex, { completionTokens: tokens, pieces, logProbs, entropies, finishReason })
    },
  })
}

function toRequest(tokens: Int32Array, index: number, options: SelfSearchOptions): GenerateRequest {
  const { n = 1, temperature = 1, topP = 1, topK = 0, minP = 0, maxNewTokens = 256, seed = 0 } = options
  const stop = (options.stopAtAnswer ?? true) ? [STOP_TAG] : []
  return { tokens, n, temperature, topP, topK, minP, maxNewTokens, stop, seed: derivedSeed(seed, index) }
}

function toEncoded(
  policy: Policy,
  item: Question | EncodedQuestion,
  options: SelfSearchOptions,
): EncodedQuestion {
  if ('promptTokens' in item) return item
  const template = options.promptTemplate ?? builtInTemplate
  return { question: item, promptTokens: encodeQuestion(tokenizerOf(policy), item.question, template) }
}

function toTrajectory(
  found: { item: EncodedQuestion; index: number; sampleIndex: number; row: RowOutcome },
  options: SelfSearchOptions,
): Trajectory {
  const { question, promptTokens } = found.item
  return createTrajectory({
    ...found.row,
    questionId: question.id,
    question: question.question,
    goldenAnswers: question.goldenAnswers,
    group: found.index + (options.firstGroup ?? 0),
    sampleIndex: found.sampleIndex,
    promptTokens,
    format: options.format,
  })
}

/** The text that each token completes; end tokens have none. */
function decodePieces(policy: Policy, tokens: Int32Array): string[] {
  const stream = tokenizerOf(policy).createStream()
  const pieces = Array.from(tokens, (token) => (policy.endTokenIds.includes(token) ? '' : stream.push(token)))
  const rest = stream.end()
  if (rest !== '' && pieces.length > 0) pieces[pieces.length - 1] += rest
  return pieces
}
