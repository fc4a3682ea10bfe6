import { sharedQuestions } from '../data/overlap.ts'
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import { type EvaluationScores, evaluate } from '../evaluation/evaluate.ts'
import { Policy } from '../policy/policy.ts'
import { loadPromptTemplate, type PromptTemplate } from '../rollout/prompts.ts'
import type { Search } from '../rollout/search.ts'
import type { Config } from './config.ts'
import type { LearnerOptions } from './learner.ts'

/** @throws SsrlError `ERR_INVALID_ARG` for what plain JavaScript may pass instead of a policy and questions */
export function requireInputs({
  policy,
  train,
  evaluation,
}: {
  policy: unknown
  train: unknown
  evaluation?: unknown
}): void {
  if (!(policy instanceof Policy)) {
    throw new SsrlError('ERR_INVALID_ARG', `Expected a Policy for policy but received ${nameOf(policy)}`)
  }
  requireQuestions(train, 'train')
  if (evaluation !== undefined) requireQuestions(evaluation, 'evaluation')
}

/**
 * What a reward by golden answers needs.
 *
 * @throws SsrlError `ERR_INVALID_CONFIG` when no question has one
 */
export function requireGoldenAnswers(train: readonly Question[]): void {
  if (train.some(({ goldenAnswers }) => goldenAnswers.length > 0)) return
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    "Expected training questions with golden answers but none has any: answerReward 'majorityVote' and rewards of " +
      'your own need none',
  )
}

function requireQuestions(value: unknown, name: string): asserts value is Question[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      `Expected at least one question for ${name} but received ${nameOf(value)}`,
    )
  }
  for (const [index, item] of value.entries()) {
    const isQuestion = typeof item?.question === 'string' && Array.isArray(item?.goldenAnswers)
    if (isQuestion) continue
    throw new SsrlError(
      'ERR_INVALID_ARG',
      `Expected { id, question, goldenAnswers } for ${name}[${index}] but received ${JSON.stringify(item)}`,
    )
  }
}

function nameOf(value: unknown): string {
  if (Array.isArray(value)) return `an array of ${value.length}`
  return value === null ? 'null' : typeof value
}

/** The template of the settings: a built-in name, a file, or the wording itself (it has `{question}` in it). */
export async function resolveTemplate({
  promptTemplate,
}: Pick<Config, 'promptTemplate'>): Promise<PromptTemplate> {
  if (promptTemplate.includes('{question}')) return { name: 'inline', text: promptTemplate }
  return loadPromptTemplate(promptTemplate)
}

/**
 * Largest prompt that is trained on.
 *
 * @throws SsrlError `ERR_INVALID_CONFIG` when prompt and completion can't fit the model's context
 */
export function promptLimit(config: Config, policy: Policy): number {
  const context = policy.config.maxPositions
  const room = context - config.maxCompletionLength
  if (room < 1) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected maxCompletionLength below the model's context of ${context} tokens but received ${config.maxCompletionLength}`,
    )
  }
  if (config.maxPromptLength !== null && config.maxPromptLength > room) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected maxPromptLength + maxCompletionLength of at most the model's context of ${context} tokens but received ` +
        `${config.maxPromptLength} + ${config.maxCompletionLength}`,
    )
  }
  return config.maxPromptLength ?? room
}

/** What the user should know before the first step. */
export function startWarnings(
  {
    policy,
    train,
    evaluation = [],
  }: { policy: Policy; train: readonly Question[]; evaluation?: readonly Question[] },
  { dropped, maxPromptLength }: { dropped: number; maxPromptLength: number },
): string[] {
  const warnings: string[] = []
  if (dropped > 0) {
    warnings.push(
      `${dropped} of ${train.length} prompts have more than ${maxPromptLength} tokens and are left out`,
    )
  }
  const shared = sharedQuestions(train, evaluation)
  if (shared.length > 0) {
    warnings.push(
      `${shared.length} evaluation questions are training questions too, such as "${shared[0]!.question}"`,
    )
  }
  if (!policy.exact) {
    warnings.push(
      "This machine's exactness self-test failed: old log-probs come from a second forward pass, which costs time; " +
        '`ssrl doctor` says more',
    )
  }
  return warnings
}

/** The run's own way of answering, on held-out questions; null when there are none. */
export async function evaluateOnHeldOut(
  policy: Policy,
  questions: readonly Question[],
  settings: Omit<Config, 'promptTemplate'> & { promptTemplate: PromptTemplate; search?: Search },
  signal?: AbortSignal,
): Promise<{ scores: EvaluationScores; criterion: number } | null> {
  if (questions.length === 0) return null
  const { promptTemplate, stopAtAnswer, format, seed } = settings
  const report = await evaluate({
    policy,
    questions,
    method: 'self-search',
    limit: settings.evaluationLimit ?? undefined,
    n: settings.evaluationSamples,
    temperature: settings.evaluationTemperature,
    maxNewTokens: settings.maxCompletionLength,
    promptTemplate,
    stopAtAnswer,
    format,
    seed,
    search: settings.search,
    signal,
  })
  const scores = report.benchmarks.questions!
  return { scores, criterion: scores.em }
}

/** AdamW as the settings say. */
export function learnerOptions(config: Config): LearnerOptions {
  return {
    learningRate: config.learningRate,
    betas: [config.adamBeta1, config.adamBeta2],
    epsilon: config.adamEpsilon,
    weightDecay: config.weightDecay,
    maxGradNorm: config.maxGradNorm,
  }
}

/** Seconds between laps, and since the start. */
export class Clock {
  readonly #started = performance.now()
  #last = this.#started

  lap(): number {
    const before = this.#last
    this.#last = performance.now()
    return (this.#last - before) / 1000
  }

  get total(): number {
    return (performance.now() - this.#started) / 1000
  }
}
