/**
 * Demonstrations for a cold start: a policy that writes no tags at all gives RL nothing to reward. They come from the
 * policy itself, shown a few worked examples, or are written by a template; from training questions only.
 */
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import { inTurns } from '../in-turns.ts'
import type { Policy } from '../policy/policy.ts'
import type { TextSegment } from '../policy/tokenizer.ts'
import { Random } from '../random.ts'
import { derivedSeed } from '../random-seed.ts'
import { exactMatch } from '../rewards/rules.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import { selfSearch } from '../rollout/self-search.ts'
import type { Trajectory } from '../rollout/trajectory.ts'

/** A worked example: a question and the completion that one would like to see. */
export interface BootstrapShot {
  question: string
  completion: string
}

/** One line of a demonstration file; `ssrl sft --data` reads it. */
export interface Demonstration {
  id: string
  question: string
  golden_answers: string[]
  completion: string
  /** The answer equals a golden one. */
  correct: boolean
  source: 'sample' | 'template'
}

export interface BootstrapStatistics {
  questions: number
  samples: number
  /** Samples whose strict format score is above 0. */
  wellFormed: number
  /** Of these, samples with a right answer. */
  correct: number
  kept: number
}

export interface BootstrapOptions {
  policy: Policy
  questions: readonly Question[]
  shots: readonly BootstrapShot[]
  /** Samples per question; default 4. */
  n?: number
  /** Default 0.7. */
  temperature?: number
  /** Default 0.95: these samples are selected, not trained on by policy gradient, so truncation is allowed. */
  topP?: number
  /** Default 192. */
  maxNewTokens?: number
  /** Demonstrations kept of one question; default 1. */
  perQuestion?: number
  /**
   * With too few right answers, well-formed wrong ones fill up to this number in all; default 0, right ones only. They
   * teach the form, and their wrong answers too.
   */
  fillTo?: number
  seed?: number
  signal?: AbortSignal
  onProgress?: (done: number, total: number) => void
}

/**
 * Samples completions with worked examples in the prompt and keeps those whose strict format holds: of each question
 * the right ones (the shortest first), then, up to `fillTo`, wrong ones of questions that have none.
 */
export async function bootstrapFromSamples(
  options: BootstrapOptions,
): Promise<{ demonstrations: Demonstration[]; statistics: BootstrapStatistics }> {
  const { policy, questions, shots, n = 4, perQuestion = 1, fillTo = 0 } = options
  if (shots.length === 0)
    throw new SsrlError('ERR_INVALID_ARG', 'Expected at least one worked example in shots')
  const encode = (question: Question) => ({
    question,
    promptTokens: tokenizerOf(policy).encodeSegments(fewShotPrompt(shots, question.question)),
  })
  const encoded = await inTurns(questions, encode, options.signal)
  const right: Demonstration[][] = []
  const wrong: Demonstration[][] = []
  const statistics = { questions: questions.length, samples: 0, wellFormed: 0, correct: 0, kept: 0 }
  let done = 0
  for await (const group of selfSearch(policy, encoded, samplingOf(options, n))) {
    const formed = group.map((trajectory) => cleaned(trajectory)).filter(({ format }) => format > 0)
    const scores = (await exactMatch(formed, { signal: new AbortController().signal })) as number[]
    const index = group[0]!.group
    const kept = (wanted: number) =>
      formed
        .filter((_, at) => scores[at] === wanted)
        .toSorted((a, b) => a.text.length - b.text.length)
        .map((trajectory) => demonstration(questions[index]!, trajectory.text, wanted === 1, 'sample'))
    right[index] = kept(1).slice(0, perQuestion)
    wrong[index] = kept(0).slice(0, 1)
    statistics.samples += group.length
    statistics.wellFormed += formed.length
    statistics.correct += scores.filter((score) => score === 1).length
    options.onProgress?.(++done, questions.length)
  }
  const demonstrations = right.flat()
  const fill = wrong.filter((_, index) => right[index]!.length === 0).flat()
  demonstrations.push(...fill.slice(0, Math.max(0, fillTo - demonstrations.length)))
  statistics.kept = demonstrations.length
  return { demonstrations, statistics }
}

function samplingOf(options: BootstrapOptions, n: number) {
  const { temperature = 0.7, topP = 0.95, maxNewTokens = 192, seed = 0, signal } = options
  return { n, temperature, topP, maxNewTokens, seed, signal }
}

/** Worked examples as a text that the policy goes on with; the question is untrusted, as everywhere. */
export function fewShotPrompt(shots: readonly BootstrapShot[], question: string): TextSegment[] {
  const examples = shots.map((shot) => `Question: ${shot.question}\n${shot.completion}\n\n`).join('')
  return [{ text: `${examples}Question: ` }, { text: question.trim(), untrusted: true }, { text: '\n' }]
}

/** What a token carries after `</answer>` is no part of a demonstration. */
function cleaned(trajectory: Trajectory): Trajectory {
  return { ...trajectory, text: trajectory.text.trim() }
}

function demonstration(
  { id, question, goldenAnswers }: Question,
  completion: string,
  correct: boolean,
  source: Demonstration['source'],
): Demonstration {
  return { id, question, golden_answers: goldenAnswers, completion, correct, source }
}

const openings = [
  (query: string) => `I need to find out: ${query}`,
  (query: string) => `The question is: ${query}? I will look it up.`,
  (query: string) => `I should search for "${query}".`,
]
const findings = [
  (query: string, answer: string) => `${query}: ${answer}.`,
  (query: string, answer: string) => `${answer} is the answer to "${query}".`,
  (query: string, answer: string) => `${query}? Sources say: ${answer}.`,
]
const conclusions = [
  (answer: string) => `The answer is ${answer}.`,
  (answer: string) => `So it is ${answer}.`,
  (answer: string) => `This says ${answer}.`,
]

/** What a template asks for: the question without its mark at the end. */
export const templateQuery = ({ question }: Question): string => question.trim().replace(/\s*[?.:]+$/, '')

/**
 * Writes one demonstration for each question from its first golden answer: one search, its information, the answer.
 * Questions whose text or answer holds a tag or a line break are left out.
 */
export function bootstrapFromTemplate(
  questions: readonly Question[],
  options: { seed?: number } = {},
): Demonstration[] {
  return questions.flatMap((question, index) => {
    const answer = question.goldenAnswers[0]?.trim() ?? ''
    const query = templateQuery(question)
    if (answer === '' || query === '' || /[<>\n]/.test(answer + query)) return []
    const random = new Random(derivedSeed(options.seed ?? 0, index))
    const completion =
      `<think> ${random.choice(openings)(query)} </think><search> ${query} </search>` +
      `<information> ${random.choice(findings)(query, answer)} </information>` +
      `<think> ${random.choice(conclusions)(answer)} </think><answer> ${answer} </answer>`
    return [demonstration(question, completion, true, 'template')]
  })
}
