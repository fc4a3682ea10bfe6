/** Where the layouts in use keep a question and its answers. */
import { SsrlError } from '../errors.ts'
import { describeType } from './rows.ts'

type Fields = Record<string, unknown>

/** Accepted names of the question field, in order of preference. A chat prompt (`prompt`) is the last resort. */
export const QUESTION_FIELDS = ['question', 'query', 'problem', 'extra_info.question', 'prompt'] as const

/** Accepted names of the answers field, in order of preference. */
export const ANSWER_FIELDS = [
  'golden_answers',
  'goldenAnswers',
  'golden_answer',
  'answers',
  'answer',
  'reward_model.ground_truth',
  'ground_truth',
  'target',
  'extra_info.answer',
] as const

/** The value at a dotted path, or undefined. */
export function fieldAt(fields: Fields, path: string): unknown {
  let value: unknown = fields
  for (const name of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Fields)[name]
  }
  return value
}

/** The question of a row, stripped; '' when it has none. Throws `ERR_DATASET` for one that is not text. */
export function readQuestion(fields: Fields, where: string): string {
  for (const name of QUESTION_FIELDS) {
    const value = fieldAt(fields, name)
    if (value === undefined || value === null) continue
    if (name === 'prompt') return questionOfPrompt(value, where)
    if (typeof value === 'string') return value.trim()
    throw new SsrlError(
      'ERR_DATASET',
      `${where}: expected ${name} to be text but received ${describeType(value)}`,
    )
  }
  return ''
}

// Search-R1's files have the whole instruction in the prompt and the question at its end.
function questionOfPrompt(prompt: unknown, where: string): string {
  const text = promptText(prompt, where)
  const marker = 'Question:'
  const at = text.lastIndexOf(marker)
  if (at < 0) return text.trim()
  const before = text.slice(0, at)
  const isInstruction = before.trim() === '' || before.includes('<answer>') || before.includes('\n')
  return (isInstruction ? text.slice(at + marker.length) : text).trim()
}

function promptText(prompt: unknown, where: string): string {
  if (typeof prompt === 'string') return prompt
  if (Array.isArray(prompt)) {
    const turns = prompt.filter((turn) => (turn as Fields | null)?.role === 'user')
    const content = (turns.at(-1) as Fields | undefined)?.content
    if (typeof content === 'string') return content
    if (prompt.length === 0) return ''
  }
  throw new SsrlError(
    'ERR_DATASET',
    `${where}: expected prompt to be text or a list of { role, content } with a user's turn but received ${describeType(prompt)}`,
  )
}

/** The golden answers of a row, stripped; [] when it has none. Throws `ERR_DATASET` for answers that are not text. */
export function readAnswers(fields: Fields, where: string): string[] {
  for (const name of ANSWER_FIELDS) {
    const value = fieldAt(fields, name)
    if (value !== undefined && value !== null) return answerList(value, `${where}: ${name}`)
  }
  return []
}

function answerList(value: unknown, where: string): string[] {
  if (typeof value === 'string') return [value.trim()]
  if (typeof value === 'number' && Number.isFinite(value)) return [String(value)]
  if (Array.isArray(value)) return value.flatMap((inner, index) => answerList(inner, `${where}[${index}]`))
  if (typeof value === 'object' && value !== null) {
    const { target, text, value: main, aliases } = value as Fields
    const known = [target, text, main, aliases].filter((inner) => inner !== undefined && inner !== null)
    if (known.length > 0) return [...new Set(known.flatMap((inner) => answerList(inner, where)))]
  }
  throw new SsrlError(
    'ERR_DATASET',
    `${where}: expected text, a list of texts or { target } but received ${describeType(value)}`,
  )
}
