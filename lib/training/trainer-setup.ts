import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import { Policy } from '../policy/policy.ts'
import { loadPromptTemplate, type PromptTemplate } from '../rollout/prompts.ts'
import type { Config } from './config.ts'
import { Learner } from './learner.ts'

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

export function createLearner(policy: Policy, config: Config): Learner {
  return new Learner(policy, {
    learningRate: config.learningRate,
    betas: [config.adamBeta1, config.adamBeta2],
    epsilon: config.adamEpsilon,
    weightDecay: config.weightDecay,
    maxGradNorm: config.maxGradNorm,
  })
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
